"""A tensor of the carry about the observation just before: gone where that was not taken in.

The policy is `counter` of tests/bundles.py with such a carry: the first action is the sum of
obs[0] and of the rewards over the steps that follow each other without a hole.
"""

import pytest

from runtime.companion import carry_before
from runtime.history import Boundary
from runtime.sessions import Session
from runtime.snapshot import put, take, write_history
from runtime.spec import Boundaries
from tests.bundles import write_bundle
from tests.loops import EPISODE, INVALID, Bench, make_loop, session_of, tick
from tests.test_shadow import shadow
from tests.test_swap import swap

BRIEF = [{"name": "h", "shape": [2], "dtype": "float32", "init": 0.0, "transient": True}]


@pytest.fixture
def loop(models):
    write_bundle(models, "brief", carry=BRIEF)
    return make_loop(models, "brief")


def push(loop, seq, **named):
    """The first action for an observation of (1, 0)."""
    return tick(loop, seq, (1, 0), **named)[1][0]


@pytest.mark.parametrize(
    "boundary", [Boundary.GAP, Boundary.UNSEEN, Boundary.GAP | Boundary.FROZEN]
)
def test_the_others_of_the_carry_stay(boundary):
    rules = Boundaries(episode="keep", task="prior")
    found = carry_before(rules, boundary, ["a", "b", "c"], ["x", "y", "z"], (1,))
    assert found == ["a", "y", "c"]
    for kept in (Boundary.NONE, Boundary.EPISODE, Boundary.FROZEN):
        assert carry_before(rules, kept, ["a", "b"], ["x", "y"], (1,)) == ["a", "b"]


def test_steps_in_a_row_and_episodes_keep_it(loop):
    assert [push(loop, seq) for seq in range(3)] == [1, 2, 3]
    assert push(loop, 3, flags=EPISODE) == 4


def test_a_missing_number_is_a_hole(loop):
    push(loop, 0)
    assert [push(loop, seq) for seq in (2, 3)] == [1, 2]


def test_an_observation_without_a_step_is_a_hole(loop):
    push(loop, 0)
    push(loop, 1, flags=INVALID)
    assert [push(loop, seq) for seq in (2, 3)] == [1, 2]


def test_what_a_frozen_session_saw_is_a_hole(loop):
    push(loop, 0)
    session_of(loop).frozen = True
    assert [push(loop, seq) for seq in (1, 2, 3)] == [2, 1, 1]
    session_of(loop).frozen = False
    assert [push(loop, seq) for seq in (4, 5)] == [1, 2]


def test_a_step_that_is_not_finite_is_a_hole(loop):
    push(loop, 0)
    push(loop, 1, reward=3e38)
    push(loop, 2, reward=3e38)  # 6e38 is no float32
    assert [push(loop, seq) for seq in (3, 4)] == [1, 2]


def test_a_restored_memory_lacks_the_last_observation(loop):
    for seq in range(3):
        push(loop, seq)
    session = session_of(loop)
    taken = take(session)
    memory = loop.bench.serve("brief").slab.allocate()
    memory.claim(session.id, "")
    write_history(memory, taken.history)
    put(session, memory, taken)
    assert [push(loop, seq) for seq in (3, 4)] == [1, 2]


def test_a_hole_survives_a_crash(loop, models, tmp_path):
    bench = Bench(models, folder=tmp_path / "state", store=loop.bench.store)
    session = bench.open("brief")
    push(bench.loop, 0)
    push(bench.loop, 1, flags=INVALID)
    again = Session.recovered(session.stepper, session.memory, session.rules)
    assert again.unseen
    bench.loop.registry.add(again)
    assert [push(bench.loop, seq) for seq in (2, 3)] == [1, 2]


def push_with_holes(loop):
    """The answers to nine observations, among them every kind of hole."""
    answers = []
    for seq in (0, 1, 3, 4, 5, 6, 7, 8, 9):
        session_of(loop).frozen = seq in (6, 7)
        answers.append(push(loop, seq, flags=INVALID if seq == 4 else EPISODE * (seq == 5)))
    return answers


def test_a_shadow_and_a_replay_see_the_same_holes(loop, models):
    alone = push_with_holes(loop)
    assert alone == [1, 2, 1, 0, 1, 2, 1, 1, 2]  # 0: the fallback action
    counting = make_loop(models, "counter@1")
    shadow(counting, "brief")
    push_with_holes(counting)
    assert session_of(counting).companion.action[0] == alone[-1]
    assert swap(counting, "brief").carry == "replayed"
    assert push(counting, 10) == push(loop, 10) == 3
