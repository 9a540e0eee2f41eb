"""Probation: a new policy that misbehaves is sent back, and the old one has lost nothing.

"Nothing" is told by a run of the old policy alone over the same observations.
"""

import os

import numpy as np
import pytest

from runtime.companion import Probation
from runtime.messages import ActionFlag, Limit, ObservationFlag, unpack
from runtime.registry import Registry
from runtime.shadow import return_incumbent
from runtime.state import StateFolder
from runtime.swap import cancel_swap
from tests.bundles import write_bundle
from tests.loops import (
    EPISODE,
    NEW_TASK,
    NOTHING,
    Bench,
    carry_of,
    frame,
    make_loop,
    session_of,
    tick,
)  # fmt: skip
from tests.odd_bundles import FRAGILE_FROM, write_fragile
from tests.test_swap import played, swap

ZERO = (0.0, 0.0)


@pytest.fixture
def loud(models):
    """A policy whose output overflows where the sum of observations reaches 340."""
    write_bundle(models, "loud", gain=1e36)
    write_bundle(models, "loud", version=2, gain=1e36)
    return models


class Pair:
    """A loop in which policies are tried, and one that goes on undisturbed."""

    def __init__(self, models, reference="counter@1", **named):
        self.tried, self.alone = (make_loop(models, reference, **named) for _ in range(2))
        self.failed = []
        self.tried.on_failed_swap = lambda session, *what: self.failed.append(what)
        self.seq = 0

    def tick(self, obs=(1.0, 0.0), reward=0.0, flags=NOTHING):
        """The same observation and applied action for both; their answers."""
        named = {"obs": obs, "reward": reward, "flags": flags, "applied": ZERO}
        answers = [tick(loop, self.seq, **named) for loop in (self.tried, self.alone)]
        self.seq += 1
        return answers

    def play(self, count, seed=0):
        rng = np.random.default_rng(seed)
        for k in range(count):
            flags = EPISODE if k % 5 == 3 else NOTHING
            self.tick(rng.uniform(-1, 1, 2), rng.normal(), flags)

    def assert_the_old_one_is_back(self):
        (header, action), (_, expected) = self.tick()
        np.testing.assert_array_equal(action, expected)
        np.testing.assert_array_equal(carry_of(self.tried), carry_of(self.alone))
        self.play(10, seed=9)
        np.testing.assert_array_equal(carry_of(self.tried), carry_of(self.alone))
        ours, theirs = (session_of(loop).memory.since(0) for loop in (self.tried, self.alone))
        assert ours.seqs.tolist() == theirs.seqs.tolist()
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        session = session_of(self.tried)
        assert session.policy.label == "counter@1" and session.probation is None
        return header


@pytest.mark.fault(
    "a new policy gives NaN after some ticks", "The policy before answers that very tick."
)
def test_an_output_that_is_not_finite_brings_the_old_policy_back_within_the_tick(loud):
    pair = Pair(loud)
    pair.play(6)
    swap(pair.tried, "loud@1")
    pair.play(4, seed=1)
    assert session_of(pair.tried).policy.label == "loud@1"
    (header, action), (_, expected) = pair.tick(obs=(500, 0))
    np.testing.assert_array_equal(action, expected)  # this very observation
    assert header.flags & ActionFlag.SWAPPED and header.generation == 3
    assert not header.limits & Limit.NOT_FINITE
    assert pair.failed == [("loud@1", "its output is not finite or its step failed")]
    pair.assert_the_old_one_is_back()


def test_a_step_that_fails_brings_the_old_policy_back_within_the_tick(models):
    write_fragile(models)
    pair = Pair(models)
    swap(pair.tried, "fragile")
    pair.play(4)
    (header, action), (_, expected) = pair.tick(obs=(1, FRAGILE_FROM))
    assert header.status == 0 and header.flags & ActionFlag.SWAPPED
    np.testing.assert_array_equal(action, expected)
    pair.assert_the_old_one_is_back()


def test_a_late_observation_is_marked_so_though_its_policy_was_sent_back(loud):
    loop = played(loud)
    swap(loop, "loud@1")
    tick(loop, 5)
    frames = [frame(6, obs=(500, 0)), frame(7, obs=(0, 0))]
    first, second = (unpack(result.reply).flags for result in loop.tick_all(frames, 0))
    assert first == ActionFlag.SUPERSEDED | ActionFlag.SWAPPED and second == 0


def test_boundaries_during_a_probation_reach_the_old_policy_too(loud):
    pair = Pair(loud)
    pair.play(6)
    swap(pair.tried, "loud@1")
    pair.tick(obs=(3, 0))
    pair.tick(obs=(2, 0), flags=NEW_TASK)
    pair.tick(obs=(1, 0), flags=EPISODE)
    pair.tick(obs=(500, 0))
    pair.assert_the_old_one_is_back()


def clamped_after(models, clamped, ticks=20):
    """A copy of the policy is tried after 20 ticks at the bounds; it is at them so often."""
    write_bundle(models, "twin")
    pair = Pair(models)
    pair.tick(obs=(100, 0))
    for _ in range(19):
        pair.tick(obs=(0, 0))
    swap(pair.tried, "twin")
    for k in range(ticks):
        pair.tick(obs=(-100 if k == clamped else 0, 0))
    return pair


def test_a_clamp_rate_above_twice_the_old_policys_brings_that_back(models):
    """20 ticks with weight 0.02 each make a rate of 1 - 0.98^20 = 0.332; 14 of 20 are 0.7."""
    pair = clamped_after(models, clamped=14)
    ((policy, sentence),) = pair.failed
    assert policy == "twin@1"
    assert sentence == "70 % of its actions were clamped, of the policy before 33 %"
    header = pair.assert_the_old_one_is_back()
    assert header.flags & ActionFlag.SWAPPED  # it came back between two ticks


def test_a_clamp_rate_below_twice_the_old_policys_is_no_reason(models):
    """13 of 20 are 0.65, which is below 0.664."""
    pair = clamped_after(models, clamped=13)
    assert not pair.failed and session_of(pair.tried).policy.label == "twin@1"


def test_a_clamp_rate_is_not_judged_on_a_few_ticks(models):
    pair = clamped_after(models, clamped=99, ticks=19)
    assert not pair.failed
    pair.tick(obs=(0, 0))
    assert len(pair.failed) == 1


def overrun(models, step_ns):
    """A policy is tried while each look at the clock takes so long."""
    pair = Pair(models)
    pair.play(6)
    swap(pair.tried, "counter@2")
    looks = iter(range(10**6))
    pair.tried.clock = lambda: step_ns * next(looks)
    pair.tick()
    return pair


def test_a_step_longer_than_the_control_period_brings_the_old_policy_back(models):
    """The control rate is 10 Hz."""
    pair = overrun(models, 100_000_001)
    ((policy, sentence),) = pair.failed
    assert policy == "counter@2"
    assert sentence == "a step took 100.0 ms of a control period of 100.0 ms"
    pair.assert_the_old_one_is_back()


def test_a_step_as_long_as_the_control_period_is_none(models):
    assert not overrun(models, 100_000_000).failed


def test_a_policy_that_served_its_probation_stays(loud):
    pair = Pair(loud)
    swap(pair.tried, "loud@1", probation_ticks=3)
    for left in (2, 1):
        pair.tick(obs=(1, 0))
        assert session_of(pair.tried).probation.left == left
    pair.tick(obs=(1, 0))
    session = session_of(pair.tried)
    assert session.probation is None and session.companion is None
    assert pair.tick(obs=(500, 0))[0][0].limits & Limit.NOT_FINITE
    assert session.policy.label == "loud@1" and not pair.failed


def test_a_tick_without_a_step_does_not_count_towards_the_probation(models):
    loop = played(models)
    swap(loop, "other", probation_ticks=10)
    tick(loop, 5)
    tick(loop, 6, flags=ObservationFlag.INVALID)
    assert session_of(loop).probation.left == 9


def test_an_operators_rollback_during_probation_loses_nothing(models):
    pair = Pair(models)
    pair.play(6)
    swap(pair.tried, "counter@2")
    pair.play(7, seed=1)
    report = return_incumbent(session_of(pair.tried))
    assert (report.old, report.new, report.carry) == ("counter@2", "counter@1", "kept")
    assert pair.assert_the_old_one_is_back().flags & ActionFlag.SWAPPED
    assert not pair.failed  # an operator's wish is no strike


def test_a_rollback_before_the_first_tick_takes_the_swap_back(models):
    pair = Pair(models)
    pair.play(6)
    swap(pair.tried, "counter@2")
    assert cancel_swap(session_of(pair.tried)).new == "counter@1"
    assert cancel_swap(session_of(pair.tried)) is None
    assert not pair.assert_the_old_one_is_back().flags & ActionFlag.SWAPPED


def test_a_rollback_after_the_probation_is_a_swap_to_the_policy_before(models):
    pair = Pair(models)
    pair.play(6)
    swap(pair.tried, "other", probation_ticks=2)
    pair.play(5, seed=1)
    assert return_incumbent(session_of(pair.tried)) is None
    assert session_of(pair.tried).previous == "counter@1"
    assert swap(pair.tried, "counter@1").carry == "replayed"
    pair.tick()
    np.testing.assert_array_equal(carry_of(pair.tried), carry_of(pair.alone))


def test_a_second_swap_during_a_probation_goes_back_to_the_first_ones_policy(loud):
    pair = Pair(loud)
    pair.play(6)
    swap(pair.tried, "other")
    pair.play(2, seed=1)
    swap(pair.tried, "loud@1")
    pair.play(2, seed=2)
    pair.tick(obs=(500, 0))
    assert session_of(pair.tried).policy.label == "other@1"
    np.testing.assert_array_equal(carry_of(pair.tried)[0, :2], carry_of(pair.alone)[0])


def test_records_are_given_back_after_swaps_that_failed(loud):
    pair = Pair(loud)
    before = len(pair.tried.bench.serve("loud@1").slab._free)
    for _ in range(3):
        swap(pair.tried, "loud@1")
        pair.tick(obs=(1, 0))
        pair.tick(obs=(500, 0))
        pair.tick(obs=(-500, 0))
    slabs = [pair.tried.bench.serve(name).slab for name in ("loud@1", "counter@1")]
    assert len(pair.failed) == 3 and [len(s._free) for s in slabs] == [before, before - 1]


def test_a_restart_in_a_probation_finds_the_new_policy_alone(models, tmp_path):
    """The incumbent's record is silent: a session is never found twice."""
    bench = Bench(models, folder=tmp_path / "state")
    bench.open("counter@1")
    bench.loop.bench = bench
    for seq in range(5):
        tick(bench.loop, seq, obs=(1, 0))
    swap(bench.loop, "other", probation_ticks=50)
    tick(bench.loop, 5, obs=(1, 0))
    os.close(bench.state._lock)
    state = StateFolder(tmp_path / "state", 64, 256)
    state.take()
    registry = Registry(asleep=state.recover(bench.store.load))
    assert not state.set_aside
    (asleep,) = registry.asleep.values()
    assert asleep.stepper.policy.label == "other@1" and asleep.head().probation == 50
    assert not state.serve(bench.store.load("counter@1")).slab.used


def test_a_rate_is_judged_over_the_whole_probation():
    """The old one was clamped in 10 %: 0.2 is allowed."""
    probation = Probation(100, 0.1, period_ns=1000)
    clamps = [Limit.RATE if k % 5 == 4 else 0 for k in range(60)]
    assert [probation.judge(int(x), True, 0) for x in clamps] == [None] * 60
    for _ in range(100):
        sentence = probation.judge(int(Limit.BOUNDS), True, 0)
        if sentence:
            break
    assert probation.clamped / probation.ticks > 0.2
    assert (probation.clamped - 1) / (probation.ticks - 1) <= 0.2
