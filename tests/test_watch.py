"""Observations that must not be acted on: old, rare, stuck, declared invalid; and the stop."""

import numpy as np
import pytest

from runtime.messages import HEADER_SIZE, ActionFlag, Limit, ObservationFlag, unpack
from runtime.sessions import Rules
from runtime.watch import DRIFT_SHIFT, RATE_WINDOW, Watch, WatchLimits
from tests.bundles import write_bundle
from tests.loops import EPISODE, ID, NEW_TASK, NOTHING, carry_of, frame, make_loop, session_of
from tests.test_daemon import ONE
from tests.test_swap import swap

MS = 1_000_000
S = 1000 * MS
INVALID = ObservationFlag.INVALID


def ages(deliveries, max_age_ns=100 * MS):
    """Whether each (sent, received) is stale."""
    watch = Watch(WatchLimits(max_age_ns))
    return [watch.look(sent, at, b"", False) == Limit.STALE for sent, at in deliveries]


def paced(offset_ns, delays_ms, start_ns=5 * S):
    """Sent every 20 ms by a clock that is `offset_ns` behind, and so long on their way."""
    for k, delay in enumerate(delays_ms):
        sent = start_ns + 20 * MS * k
        yield sent - offset_ns, sent + delay * MS


@pytest.mark.parametrize("offset", [0, -3 * S, 90 * S, 10**6 * S])
def test_an_observation_is_old_by_the_senders_clock_whatever_that_shows(offset):
    delays = [0, 1, 2, 100, 101, 0, 300]
    expected = [False, False, False, False, True, False, True]
    assert ages(paced(offset, delays, start_ns=2 * 10**6 * S)) == expected


def test_on_one_clock_the_very_first_observation_may_be_old():
    assert ages([(5 * S, 5 * S + 101 * MS)]) == [True]


def test_age_counts_from_the_quickest_delivery():
    """A far clock: the first came after an unknown time, the second 30 ms quicker."""
    assert ages(paced(90 * S, [50, 20, 121, 120])) == [False, False, True, False]


def test_clocks_that_drift_apart_make_nothing_old():
    """50 parts in a million over an hour are 180 ms; 1 in 4096 is allowed."""
    second_by_second = [(k * S + 1, k * S + 1 + 50_000 * k) for k in range(3600)]
    assert not any(ages(second_by_second))
    assert 2**-DRIFT_SHIFT > 50e-6


def test_a_queue_that_grows_faster_than_clocks_drift_is_found():
    growing = [(k * S + 1, k * S + 1 + 5 * MS * k) for k in range(60)]
    assert ages(growing) == [False] * 22 + [True] * 38  # by 4.76 ms a second


@pytest.mark.parametrize("jump", [-3600 * S, 3600 * S])
@pytest.mark.fault("a robot's clock jumps", "No observation is old or young for it.")
def test_a_jump_of_the_senders_clock_is_a_new_clock(jump):
    steady = list(paced(0, [1] * 5, start_ns=10**4 * S))
    after = [(sent + jump, at) for sent, at in paced(0, [1, 1, 200, 1], start_ns=10**4 * S + S)]
    back = list(paced(0, [1, 200, 1], start_ns=10**4 * S + 2 * S))
    expected = [False] * 5 + [False, False, True, False] + [False, True, False]
    assert ages(steady + after + back) == expected


def test_a_sender_without_a_clock_is_never_old():
    assert ages([(0, k * 3600 * S) for k in range(4)]) == [False] * 4


def test_zero_switches_the_age_off():
    assert ages([(S, S), (2 * S, 9000 * S)], max_age_ns=0) == [False, False]


def test_observations_come_too_seldom_over_a_window():
    """At least 10 a second over 16: 1.6 s; slow from the tick that shows it to the next such."""
    watch = Watch(WatchLimits(0, min_rate_hz=10.0))
    times = np.cumsum([0] + [100] * RATE_WINDOW + [101] * RATE_WINDOW + [100] * RATE_WINDOW)
    slow = [watch.look(0, int(t) * MS, b"", False) == Limit.SLOW for t in times]
    assert [k for k, found in enumerate(slow) if found] == list(range(32, 48))


def test_an_observation_is_stuck_once_it_has_not_changed_for_so_many_ticks():
    watch = Watch(WatchLimits(0, stuck_ticks=3))
    seen = [watch.look(0, 0, obs, False) for obs in (b"a", b"b", b"b", b"b", b"b", b"b", b"c")]
    assert seen == [0, 0, 0, 0, Limit.STUCK, Limit.STUCK, 0]


def test_tests_fail_apart_and_together():
    watch = Watch(WatchLimits(MS, stuck_ticks=1))
    assert watch.look(S, S, b"a", True) == Limit.INVALID
    assert watch.look(2 * S, 3 * S, b"a", True) == Limit.INVALID | Limit.STUCK | Limit.STALE


class Times:
    """Drives a session whose observations carry times; the control rate is 10 Hz."""

    def __init__(self, models, reference="counter@1", **limits):
        rules = {k: limits.pop(k) for k in ("stop_after", "min_rate") if k in limits}
        self.loop = make_loop(models, reference, rules=Rules(WatchLimits(**limits), **rules))
        self.now, self.seq = S, 0
        self.loop.clock = lambda: self.now

    def tick(self, obs=(1.0, 0.0), age_ns=0, after_ns=100 * MS, **named):
        self.now += after_ns
        content = frame(self.seq, obs, time_ns=self.now - age_ns, **named)
        self.seq += 1
        reply = self.loop.tick(content, self.now).reply
        return unpack(reply), np.frombuffer(reply, np.float32, offset=HEADER_SIZE).tolist()


@pytest.mark.fault(
    "a robot freezes with an observation in its hands",
    "The memory steps; the fallback action is sent.",
)
def test_a_stale_observation_is_remembered_and_answered_by_the_fallback(models):
    drive = Times(models, max_age_ns=50 * MS)
    drive.tick()
    header, action = drive.tick(age_ns=51 * MS)
    assert header.limits == Limit.STALE
    assert action == [0, 0.5, 2, 1]  # the fallback, and what the policy would have liked
    assert carry_of(drive.loop)[0, 0] == 2
    header, action = drive.tick()
    assert header.limits == 0 and action[:2] == [3, 0]  # prev_action is the fallback
    assert session_of(drive.loop).counters.stale == 1


def test_slow_observations_are_remembered_and_answered_by_the_fallback(models):
    """Nine tenths of 10 Hz are asked for, 8 Hz come."""
    drive = Times(models, max_age_ns=0, min_rate=0.9)
    limits = [drive.tick(after_ns=125 * MS)[0].limits for _ in range(RATE_WINDOW + 2)]
    assert [bool(x & Limit.SLOW) for x in limits] == [False] * RATE_WINDOW + [True] * 2
    assert carry_of(drive.loop)[0, 0] == RATE_WINDOW + 2


def test_a_stuck_observation_is_not_remembered(models):
    drive = Times(models, max_age_ns=0, stuck_ticks=2)
    answers = [drive.tick(obs=(0.25, 0)) for _ in range(4)]
    assert [header.limits for header, _ in answers] == [0, 0, Limit.STUCK, Limit.STUCK]
    assert carry_of(drive.loop)[0, 0] == 0.5
    assert answers[3][1][:2] == [0, 0.5]
    assert drive.tick(obs=(0, 0))[1][0] == 0.5


@pytest.mark.parametrize("obs", [(9.0, 9.0), (np.nan, np.inf)])
def test_an_observation_that_the_sender_does_not_trust_changes_nothing(models, obs):
    drive = Times(models)
    drive.tick()
    header, action = drive.tick(obs=obs, flags=INVALID)
    assert header.limits == Limit.INVALID and header.seq == 1
    assert action == [0, 0.5, 0, 0.5]
    header, action = drive.tick()
    assert action[0] == 2 and not header.flags & ActionFlag.GAP


def test_a_repeat_of_an_invalid_tick_gets_the_same_answer(models):
    loop = make_loop(models)
    first = loop.tick(frame(0, flags=INVALID), 0).reply
    again = loop.tick(frame(0, flags=INVALID), 0).reply
    assert again[6] == ActionFlag.REPEATED and first[64:] == again[64:]


def test_the_fallback_obeys_the_rate_limit(models):
    rated = [
        {"name": "push", "unit": "N", "low": -10.0, "high": 10.0, "max_rate": 10.0},  # 1 a step
        {"name": "turn", "unit": "rad", "low": -1.0, "high": 1.0, "max_rate": None},
    ]
    write_bundle(models, "rated", action=rated)
    drive = Times(models, "rated")
    drive.tick(obs=(5, 0))
    header, action = drive.tick(flags=INVALID)
    assert header.limits == Limit.INVALID | Limit.RATE
    assert action == [4, 0.5, 0, 0.5]


@pytest.mark.parametrize(("told", "expected"), [(NEW_TASK, [1, 0]), (EPISODE, [6, 1])])
def test_a_boundary_on_a_tick_without_a_step_is_told_by_the_next_step(models, told, expected):
    drive = Times(models)
    drive.tick(obs=(5, 0))
    drive.tick(flags=INVALID | told)
    drive.tick(flags=INVALID)
    header, action = drive.tick(reward=0)
    assert action[:2] == expected
    assert bool(header.flags & ActionFlag.FRESH) == (told == NEW_TASK)
    assert drive.tick(obs=(0, 0))[1][0] == expected[0]  # and once only


def test_the_first_step_begins_fresh_though_a_tick_without_a_step_came_before(models):
    drive = Times(models)
    assert not drive.tick(flags=INVALID)[0].flags & ActionFlag.FRESH
    assert drive.tick()[0].flags & ActionFlag.FRESH
    assert not drive.tick()[0].flags & ActionFlag.FRESH


def test_fallbacks_in_a_row_stop_a_session_until_it_is_armed_again(models):
    drive = Times(models, stop_after=3)
    for flags in (INVALID, INVALID, NOTHING, INVALID, INVALID):
        drive.tick(flags=flags)
    assert not session_of(drive.loop).stopped  # two, and two
    assert drive.tick(flags=INVALID)[0].limits == Limit.INVALID
    assert session_of(drive.loop).stopped
    for _ in range(2):
        header, action = drive.tick()
        assert header.limits == Limit.STOPPED and action == [0, 0.5, 0, 0.5]
    assert carry_of(drive.loop)[0, 0] == 1
    session_of(drive.loop).rearm()
    assert drive.tick()[1][0] == 2
    drive.tick(flags=INVALID)
    assert not session_of(drive.loop).stopped  # it counts from the beginning


def test_outputs_that_are_not_finite_in_a_row_stop_a_session_too(models):
    write_bundle(models, "loud", gain=1e38)
    drive = Times(models, "loud", stop_after=3)
    limits = [drive.tick(obs=(9, 0))[0].limits for _ in range(4)]
    assert limits == [Limit.NOT_FINITE] * 3 + [Limit.STOPPED]


def test_boundaries_while_stopped_are_not_lost(models):
    drive = Times(models)
    drive.tick(obs=(5, 0))
    session_of(drive.loop).stopped = True
    drive.tick(flags=NEW_TASK)
    session_of(drive.loop).rearm()
    assert drive.tick()[1][0] == 1


def test_a_swap_is_taken_though_the_session_is_stopped(models):
    drive = Times(models)
    drive.tick(obs=(5, 0))
    session_of(drive.loop).stopped = True
    swap(drive.loop, "counter@2")
    header, action = drive.tick()
    assert header.flags & ActionFlag.SWAPPED and action[:2] == [0, 0.5]
    session_of(drive.loop).rearm()
    assert drive.tick(obs=(0, 0))[1][0] == 2.5


def test_the_stop_survives_a_restart(daemon, client):
    session = client.open("counter@1", session=ID)
    session.step(ONE)
    assert client.request("stop") == {"sessions": [ID]}
    assert session.step(ONE).limits == Limit.STOPPED
    daemon.kill()
    daemon.start()
    (row,) = client.request("status")["sessions"]
    assert row["stopped"] and client.open(session=ID).facts["stopped"]
    assert session.step(ONE).limits == Limit.STOPPED
    assert client.request("rearm", session=ID) == {"sessions": [ID]}
    assert session.step(ONE).action[0] == 2
