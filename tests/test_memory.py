"""A session's record: its ring, its two slots and what is left of it after a crash.

A crash is played by looking at the same bytes again, as a restarted daemon does.
"""

import numpy as np
import pytest

from runtime.history import Boundary, Transition
from runtime.layout import ENTRY, HEAD, Head, Layout
from runtime.memory import Memory
from runtime.store import Store

RING = 4
NO_NUMBERS = Head(**dict.fromkeys(Head._fields, 0))


@pytest.fixture
def layout(models):
    return Layout(Store(models).load("counter@1").manifest, RING)


@pytest.fixture
def record(layout):
    """The bytes of a record, as they lie in a file."""
    return bytearray(layout.record_size)


@pytest.fixture
def memory(layout, record):
    claimed = Memory(layout, memoryview(record))
    claimed.claim(7, "")
    return claimed


def row_of(seq):
    """A step's inputs: obs (2), prev_action (2), prev_reward, prev_done."""
    return np.arange(6, dtype=np.float32) + np.float32(10 * seq)


def step(memory, seq, boundary=Boundary.NONE, reply=b"reply"):
    """Commit one step whose carry is filled with its number."""
    head = NO_NUMBERS._replace(next_seq=seq + 1, ring_count=memory.ring_count + 1)
    carry = [np.full(2, seq, np.float32).tobytes()]
    transition = Transition(seq, int(boundary), row_of(seq).tobytes())
    memory.commit(head, b"", b"", reply, carry, transition)


def reopened(layout, record):
    return Memory(layout, memoryview(record))


def spoil(record, at):
    record[at] ^= 0xFF


def h_of(memory):
    return memory.carry_arrays()["h"][0, 0]


def test_the_ring_gives_what_came_in_its_order(memory):
    for seq in (0, 1, 5):
        step(memory, seq)
    history = memory.since(0)
    assert history.seqs.tolist() == [0, 1, 5]
    np.testing.assert_array_equal(history.rows, [row_of(0), row_of(1), row_of(5)])


@pytest.mark.parametrize("steps", [4, 5, 6, 11])
def test_a_full_ring_keeps_the_last_ones(memory, steps):
    for seq in range(steps):
        step(memory, seq)
    assert memory.since(0).seqs.tolist() == list(range(steps - RING, steps))
    np.testing.assert_array_equal(memory.since(0).rows[-1], row_of(steps - 1))


def test_a_write_to_a_full_ring_that_is_not_committed_overwrites_nothing(layout, record, memory):
    for seq in range(9):
        step(memory, seq)
    memory.extend(memory.since(8))  # killed before the commit
    found = reopened(layout, record)
    assert found.recover() is None
    assert found.since(0).seqs.tolist() == [5, 6, 7, 8]


def test_what_lies_before_the_last_task_is_left_out(memory):
    for seq, boundary in enumerate([0, Boundary.TASK, Boundary.EPISODE, Boundary.TASK, 0]):
        step(memory, seq, boundary)
    assert memory.since(0).seqs.tolist() == [3, 4]
    assert memory.since(4).seqs.tolist() == [4]


def test_a_position_gives_the_transitions_from_it_on(memory):
    for seq in range(3):
        step(memory, seq)
    position = memory.ring_count
    assert len(memory.since(position)) == 0
    step(memory, 3)
    assert memory.since(position).seqs.tolist() == [3]


def test_a_position_is_lost_once_its_transition_is_overwritten(memory):
    for seq in range(RING):
        step(memory, seq)
    assert not memory.lost(0)
    step(memory, RING)
    assert memory.lost(0) and not memory.lost(1)
    assert memory.since(0).seqs.tolist() == [1, 2, 3, 4]


def test_the_last_episode_ends_with_the_first_transition_of_the_next(memory):
    for seq, boundary in enumerate([0, Boundary.EPISODE, 0, Boundary.EPISODE]):
        step(memory, seq, boundary)
    assert memory.last_episode().seqs.tolist() == [1, 2, 3]


def test_an_episode_in_the_history_is_given_as_the_graphs_inputs(memory):
    step(memory, 3, Boundary.EPISODE)
    ((seq, boundary, inputs),) = memory.since(0).inputs()
    assert (seq, boundary) == (3, Boundary.EPISODE)
    named = {name: value.tolist() for name, value in inputs.items()}
    assert named == {
        "obs": [[30, 31]],
        "prev_action": [[32, 33]],
        "prev_reward": [[34]],
        "prev_done": [[35]],
    }


def test_commits_go_to_the_two_slots_in_turn(layout, record, memory):
    numbers = []
    for seq in range(4):
        step(memory, seq)
        both = [HEAD.unpack_from(record, layout.slot(k))[2] for k in (0, 1)]
        numbers.append(both)
    assert numbers == [[0, 1], [2, 1], [2, 3], [4, 3]]


def test_a_commit_leaves_the_slot_before_as_it_was(layout, record, memory):
    step(memory, 0)
    before = bytes(record[layout.slot(1) : layout.slot(2)])
    step(memory, 1)
    assert bytes(record[layout.slot(1) : layout.slot(2)]) == before


def test_a_commit_without_a_carry_keeps_the_one_there_is(memory):
    step(memory, 6)
    memory.commit(NO_NUMBERS, b"", b"", b"other", None)
    assert h_of(memory) == 6 and memory.committed().reply == b"other"


def test_what_was_committed_is_found_again(layout, record, memory):
    applied = np.array([1, 2], np.float32).tobytes()
    head = Head(*range(1, 1 + len(Head._fields)))._replace(ring_count=0)
    memory.commit(head, b"", applied, b"an answer", [bytes(8)])
    found = reopened(layout, record)
    assert found.recover() is None
    assert found.session == 7 and found.commits == 1
    assert found.committed() == (head, b"", applied, b"an answer")


def test_a_shorter_reply_leaves_nothing_of_a_longer_one(memory):
    for reply in (b"a long one", b"another long one", b"short", b""):
        memory.commit(NO_NUMBERS, b"", b"", reply, [bytes(8)])
    assert memory.committed().reply == b""


def places(layout):
    """Offsets in slot 1 of its checksum, numbers, reply and carry."""
    start = layout.slot(1)
    return [start, start + HEAD.size - 1, start + layout.reply, start + layout.tensors[0].offset]


@pytest.mark.parametrize("place", range(4))
def test_a_torn_slot_takes_the_session_one_step_back(layout, record, memory, place):
    for seq in range(3):  # the third commit is in slot 1
        step(memory, seq)
    spoil(record, places(layout)[place])
    found = reopened(layout, record)
    assert found.recover() == "its last step is torn"
    assert found.committed().head.next_seq == 2 and h_of(found) == 1
    assert found.since(0).seqs.tolist() == [0, 1]
    step(found, 2)  # and it goes on from there
    assert reopened(layout, record).recover() is None


def test_a_commit_word_without_its_slot_takes_the_session_one_step_back(layout, record, memory):
    """A power cut may write the word's page and not the slot's."""
    for seq in range(3):
        step(memory, seq)
    record[8:16] = (4).to_bytes(8, "little")
    found = reopened(layout, record)
    assert found.recover() == "its last step is torn"
    assert found.committed().head.next_seq == 3


@pytest.mark.parametrize("word", [10, 2**63 + 1])
def test_a_commit_word_out_of_nowhere_is_not_believed(layout, record, memory, word):
    for seq in range(3):
        step(memory, seq)
    record[8:16] = word.to_bytes(8, "little")
    found = reopened(layout, record)
    assert "begins at the prior" in found.recover() and found.commits == 0


def test_where_both_slots_are_torn_nothing_counts(layout, record, memory):
    for seq in range(3):
        step(memory, seq)
    for k in (0, 1):
        spoil(record, layout.slot(k) + layout.tensors[0].offset)
    found = reopened(layout, record)
    assert found.recover() == "nothing of it is whole, it begins at the prior"
    assert found.commits == 0


def test_a_torn_first_commit_does_not_bring_back_the_records_former_owner(layout, record, memory):
    for seq in range(2):
        step(memory, seq)
    memory.free()
    memory.claim(8, "")
    step(memory, 0)
    spoil(record, layout.slot(1) + layout.tensors[0].offset)
    found = reopened(layout, record)
    found.recover()
    assert found.commits == 0


def test_a_torn_ring_is_empty_and_the_carry_stays(layout, record, memory):
    for seq in range(6):
        step(memory, seq)
    spoil(record, layout.ring + 3 * layout.entry_size + ENTRY.size)
    found = reopened(layout, record)
    assert found.recover() == "its recent transitions are torn"
    assert len(found.since(0)) == 0 and h_of(found) == 5
    step(found, 6)
    assert found.since(0).seqs.tolist() == [6]


@pytest.mark.parametrize("boundary", list(Boundary))
def test_a_boundary_that_is_torn_is_noticed(layout, record, memory, boundary):
    step(memory, 0)
    record[layout.ring + 8] ^= int(boundary)  # an entry is its seq (u64), then its boundary
    found = reopened(layout, record)
    trouble = found.recover()
    assert trouble == ("its recent transitions are torn" if boundary else None)


def test_an_entry_that_does_not_count_may_be_torn(layout, record, memory):
    for seq in range(5):  # the ring has five places and keeps four
        step(memory, seq)
    spoil(record, layout.ring + ENTRY.size)
    assert reopened(layout, record).recover() is None


def test_the_last_good_state_stays_while_others_are_committed(memory):
    assert memory.good() is None
    step(memory, 3)
    memory.keep_good()
    for seq in range(4, 9):
        step(memory, seq)
    assert memory.good() == [np.full(2, 3, np.float32).tobytes()]
    memory.forget_good()
    assert memory.good() is None


def test_a_last_good_state_that_is_torn_is_none(layout, record, memory):
    step(memory, 3)
    memory.keep_good()
    spoil(record, layout.good + layout.tensors[0].offset)
    assert memory.good() is None
    assert reopened(layout, record).recover() is None  # nothing else depends on it


def test_a_claimed_record_has_nothing_of_its_former_owner(layout, record, memory):
    memory.write_previous("counter@1")
    for seq in range(6):
        step(memory, seq)
    memory.keep_good()
    memory.free()
    memory.claim(8, "")
    assert memory.session == 8 and memory.commits == 0 and memory.previous == ""
    assert memory.good() is None and len(memory.since(0)) == 0
    memory.commit(NO_NUMBERS, b"", b"", b"", [bytes(8)])
    found = reopened(layout, record)
    assert found.recover() is None
    assert found.committed() == (NO_NUMBERS, b"", b"", b"") and h_of(found) == 0


def test_a_record_is_given_back_once(layout, record):
    returned = []
    memory = Memory(layout, memoryview(record), release=lambda: returned.append(1))
    memory.claim(7, "")
    step(memory, 0)
    memory.free()
    memory.free()
    assert returned == [1] and record[:16] == bytes(16)


def test_a_silent_record_is_not_found_but_goes_on_if_wanted(layout, record, memory):
    step(memory, 0)
    memory.silence()
    assert reopened(layout, record).commits == 0
    step(memory, 1)
    found = reopened(layout, record)
    assert found.recover() is None and h_of(found) == 1
