"""The state folder: what a restart goes on from, and what it sets aside and says so."""

import os
import shutil
import struct
from zlib import crc32

import pytest

from runtime.errors import InvalidConfig
from runtime.layout import FILE_HEADER_SIZE
from runtime.messages import ActionFlag, Code, unpack
from runtime.slab import NoRoom
from runtime.state import StateFolder
from runtime.store import Store
from tests.bundles import write_bundle
from tests.loops import Bench, carry_of, frame, tick

IDS = (1, 2, 3)
VERSION_AT, RING_AT, POLICY_AT, CARRY_AT, HEADER_END = 4, 16, 40, 72, 232
"""Offsets in a slab's header."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


def leave(state):
    """The daemon is gone: the kernel lets go of its lock."""
    os.close(state._lock)


def left(models, folder, ids=IDS, ticks=4, reference="counter@1", **named):
    """What a daemon leaves whose sessions i have seen `ticks` observations of i each."""
    bench = Bench(models, folder=folder, **named)
    for i in ids:
        bench.open(reference, session=i)
        for seq in range(ticks):
            bench.loop.tick(frame(seq, obs=(i, 0), session=i), 0)
    leave(bench.state)


def found(models, folder, **named):
    """A daemon that begins on a state folder."""
    bench = Bench(models, folder=folder, **named)
    bench.loop.registry.asleep = bench.state.recover(bench.store.load)
    return bench


def slab_of(folder):
    (path,) = folder.glob("*.slab")
    return path


def put_aside(folder):
    return [p.name for p in folder.iterdir() if ".set-aside-" in p.name]


def edit(path, at, content, checked=False):
    """Change a slab's bytes; with a header that is right again if `checked`."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)
        if checked:
            file.seek(4)
            crc = crc32(file.read(HEADER_END - 4))
            file.seek(0)
            file.write(struct.pack("<I", crc))


def test_every_session_goes_on_where_it_was(models, folder):
    left(models, folder)
    bench = found(models, folder)
    assert not bench.state.set_aside
    for i in IDS:
        header, action = tick(bench.loop, 4, obs=(0, 0), session=i)
        assert action[-2] == 4 * i and not header.flags & ActionFlag.FRESH


def test_a_repeated_observation_gets_the_bytes_from_before_the_crash(models, folder):
    bench = Bench(models, folder=folder)
    bench.open("counter@1", session=1)
    reply = bench.loop.tick(frame(0, session=1), 0).reply
    leave(bench.state)
    again = found(models, folder).loop.tick(frame(0, session=1), 9).reply
    header = unpack(again)
    assert header.flags & ActionFlag.REPEATED
    assert header._replace(flags=header.flags - ActionFlag.REPEATED).pack() + again[64:] == reply


BROKEN = {
    "of another version": (
        lambda path: edit(path, VERSION_AT, b"\x09\0\0\0", checked=True),
        "its layout is version 9, this is 1",
    ),
    "of another carry": (
        lambda path: edit(path, CARRY_AT, bytes(32), checked=True),
        "its sessions have a carry of other tensors",
    ),
    "of a changed policy": (
        lambda path: edit(path, POLICY_AT, bytes(32), checked=True),
        "the policy has changed since, under the same version",
    ),
    "with a corrupt header": (
        lambda path: edit(path, RING_AT, b"\x01"),
        "its header is corrupt",
    ),
    "with records of another size": (
        lambda path: edit(path, RING_AT, struct.pack("<Q", 5000), checked=True),
        "its records have",
    ),
    "truncated": (lambda path: os.truncate(path, FILE_HEADER_SIZE + 100), "truncated to 4196"),
    "cut in its header": (lambda path: os.truncate(path, 100), "it is no slab"),
    "that is none": (lambda path: path.write_bytes(b"x" * 9999), "it is no slab"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.fault(
    "a state file is corrupt, foreign or of another version",
    "It is set aside with the reason; the daemon serves.",
)
def test_a_slab_that_is_broken_is_set_aside(models, folder, kind):
    """A slab of another version, carry or policy, truncated or corrupt."""
    left(models, folder)
    spoil, sentence = BROKEN[kind]
    spoil(slab_of(folder))
    bench = found(models, folder)
    assert len(bench.state.set_aside) == 1 and sentence in bench.state.set_aside[0]
    assert len(put_aside(folder)) == 1
    assert unpack(bench.loop.tick(frame(4, session=1), 0).reply).status == Code.UNKNOWN_SESSION
    bench.open("counter@1", session=1)
    assert tick(bench.loop, 0, session=1)[0].flags & ActionFlag.FRESH


def test_a_bundle_that_changed_under_its_version_does_not_get_the_sessions(models, folder):
    left(models, folder)
    shutil.rmtree(models / "counter")
    write_bundle(models, "counter", gain=2.0)
    bench = found(models, folder)
    assert "the policy has changed since, under the same version" in bench.state.set_aside[0]
    assert not bench.loop.registry.asleep and len(put_aside(folder)) == 1


def test_the_sessions_of_a_bundle_that_is_gone_are_set_aside_and_others_go_on(models, folder):
    left(models, folder)
    left(models, folder, ids=(9,), reference="other@1")
    shutil.rmtree(models / "other")
    bench = found(models, folder)
    assert sorted(bench.loop.registry.asleep) == [1, 2, 3]
    assert "there is no policy 'other@1'" in bench.state.set_aside[0]


def spoil_record(models, folder, number, slots):
    """Flip a byte of the carry in some slots of a record."""
    bench = Bench(models, folder=folder)
    layout = bench.serve("counter@1").slab.layout
    leave(bench.state)
    for k in slots:
        at = FILE_HEADER_SIZE + number * layout.record_size + layout.slot(k)
        at += layout.tensors[0].offset
        with open(slab_of(folder), "r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
        edit(slab_of(folder), at, bytes([byte ^ 0xFF]))


def test_a_broken_record_begins_at_the_prior_and_the_others_keep_their_bits(models, folder):
    left(models, folder)
    spoil_record(models, folder, number=1, slots=(0, 1))
    bench = found(models, folder)
    first, second = bench.state.set_aside
    assert first == "session 2 of counter@1: nothing of it is whole, it begins at the prior"
    assert second.endswith("it is corrupt")
    header, action = tick(bench.loop, 4, obs=(0.5, 0), session=2)
    assert action[0] == 0.5 and header.flags & ActionFlag.FRESH
    for i in (1, 3):
        header, action = tick(bench.loop, 4, obs=(0, 0), session=i)
        assert action[-2] == 4 * i and not header.flags & ActionFlag.FRESH


def test_what_was_rescued_from_a_broken_slab_survives_once_more(models, folder):
    left(models, folder)
    spoil_record(models, folder, number=0, slots=(0, 1))
    bench = found(models, folder)
    tick(bench.loop, 4, obs=(0, 0), session=3)
    leave(bench.state)
    bench = found(models, folder)
    assert not bench.state.set_aside
    assert tick(bench.loop, 5, obs=(0, 0), session=3)[1][-2] == 12
    assert tick(bench.loop, 4, obs=(0, 0), session=2)[1][-2] == 8


@pytest.mark.fault("a power cut tears the last step", "The session goes back to the step before.")
def test_a_torn_last_step_goes_back_by_one_and_says_so(models, folder):
    left(models, folder)  # an open and four steps: the fifth commit is in slot 1
    spoil_record(models, folder, number=0, slots=(1,))
    bench = found(models, folder)
    assert bench.state.set_aside == ["session 1 of counter@1: its last step is torn"]
    assert tick(bench.loop, 3, obs=(1, 0), session=1)[1][0] == 4  # that step once more
    assert not put_aside(folder)


def test_a_crash_within_a_swap_leaves_the_later_policy(models, folder):
    left(models, folder, ids=(1,))
    bench = Bench(models, folder=folder)
    memory = bench.serve("other@1").slab.allocate()
    memory.claim(1, "counter@1")
    old = bench.state.recover(bench.store.load)[1]
    head = old.head()._replace(generation=2, ring_count=0)
    memory.commit(head, b"", b"", b"", [bytes(12)])  # killed before the old one was let go
    leave(bench.state)
    bench = found(models, folder)
    (asleep,) = bench.loop.registry.asleep.values()
    assert asleep.stepper.policy.label == "other@1" and asleep.memory.previous == "counter@1"
    leave(bench.state)
    assert len(found(models, folder).loop.registry.asleep) == 1


def test_a_record_that_was_claimed_and_not_begun_is_free(models, folder):
    bench = Bench(models, folder=folder)
    bench.serve("counter@1").slab.allocate().claim(5, "")
    leave(bench.state)
    bench = found(models, folder)
    assert not bench.loop.registry.asleep and not bench.state.set_aside


def test_sessions_keep_their_ring_where_the_configured_size_is_another(models, folder):
    left(models, folder, ring=3)
    bench = found(models, folder, ring=50)
    session = bench.loop.registry.find(1)
    assert session.memory.since(0).seqs.tolist() == [1, 2, 3]
    assert not bench.state.set_aside


def test_a_larger_limit_makes_room_in_the_file_there_is(models, folder):
    store = Store(models)
    for capacity in (1, 2):
        state = StateFolder(folder, 8, capacity)
        state.take()
        assert len(state.recover(store.load)) == capacity - 1
        slab = state.serve(store.load("counter@1")).slab
        slab.allocate().start_over(capacity, [bytes(8)], b"")
        with pytest.raises(NoRoom, match=f"holds {capacity} sessions already"):
            slab.allocate()
        leave(state)


def test_only_its_user_can_read_the_state(models, folder):
    left(models, folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}


def test_one_daemon_at_a_time_keeps_its_state_in_a_folder(models, folder):
    bench = Bench(models, folder=folder)
    with pytest.raises(InvalidConfig, match="another adaptd keeps its state in"):
        StateFolder(folder, 8, 8).take()
    leave(bench.state)
    StateFolder(folder, 8, 8).take()


def test_a_folder_that_cannot_be_written_is_a_bad_configuration(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidConfig, match="cannot hold state: Not a directory"):
        StateFolder(tmp_path / "file" / "state", 8, 8).take()


def idle(models, folder, seen_s=1000):
    """A session whose last tick was at 10 s of the ticks' clock."""
    bench = Bench(models, folder=folder)
    bench.loop.registry.wall_s, bench.loop.clock = seen_s, lambda: 10_000_000_000
    bench.open("counter@1")
    for seq in range(3):
        bench.loop.tick(frame(seq), 10_000_000_000)
    return bench.loop


def test_an_idle_session_sleeps_and_its_next_observation_wakes_it(models, folder):
    loop = idle(models, folder)
    loop.registry.tidy(12_000_000_000, idle_after_s=2, forget_after_s=100)
    assert loop.registry.live and not loop.registry.asleep  # not yet
    loop.registry.tidy(12_000_000_001, idle_after_s=2, forget_after_s=100)
    assert not loop.registry.live and list(loop.registry.asleep) == [42]
    assert tick(loop, 3)[1][0] == 4 and not loop.registry.asleep
    assert carry_of(loop)[0, 0] == 4


def test_a_session_that_slept_for_too_long_is_forgotten(models, folder):
    loop = idle(models, folder)
    for wall_s, known in ((1100, 1), (1101, 0)):
        loop.registry.wall_s = wall_s
        loop.registry.tidy(10**12, idle_after_s=2, forget_after_s=100)
        assert len(loop.registry) == known
    assert tick(loop, 3)[0].status == Code.UNKNOWN_SESSION
