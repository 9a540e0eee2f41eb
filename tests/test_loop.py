"""The tick's rules, on the pure loop with the hand-made policy (tests/bundles.py)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.messages import (
    HEADER_SIZE,
    VERSION,
    ActionFlag,
    Adaptation,
    Code,
    Header,
    Kind,
    Limit,
    unpack,
)
from runtime.sessions import Rules
from tests.bundles import write_bundle
from tests.loops import (
    EPISODE,
    ID,
    INVALID,
    NEW_TASK,
    carry_of,
    frame,
    make_loop,
    session_of,
    state,
    tick,
)


@pytest.fixture
def loop(models):
    return make_loop(models)


def test_actions_and_carry_by_hand(loop):
    # next.h = h + obs[0] + prev_reward; action = (next.h, prev_action[0] + prev_done)
    header, action = tick(loop, 0, obs=(2, 0), reward=5)  # the first step has no step before it
    assert action.tolist() == [2, 0] and header.kind == Kind.ACTION and header.first == 2
    _, action = tick(loop, 1, obs=(1, 0), reward=0.5)
    # h = 2 + 1 + .5; the applied action's first element was 2, but the second is bounded by 1
    assert action.tolist() == [3.5, 1.0, 3.5, 2.0]
    header, _ = tick(loop, 2)
    assert header.limits == Limit.BOUNDS and header.second == 2
    assert session_of(loop).counters.steps == 3


def test_the_robots_own_word_on_what_it_did_goes_first(loop):
    tick(loop, 0, obs=(0.25, 0))
    _, action = tick(loop, 1, obs=(0, 0), applied=(0.75, 0))
    assert action.tolist() == [0.25, 0.75]


def test_the_guarded_action_is_the_previous_one_if_the_robot_is_silent(loop):
    tick(loop, 0, obs=(500, 0))  # requested 500, applied 10
    _, action = tick(loop, 1, obs=(-500, 0))
    assert action.tolist() == [0, 1, 0, 10]


def test_an_episode_keeps_the_memory_and_a_task_forgets_it(loop):
    tick(loop, 0, obs=(0.5, 0))
    _, action = tick(loop, 1, obs=(0, 0), reward=0.25, flags=EPISODE)
    assert action.tolist() == [0.75, 1.0, 0.75, 1.5]  # prev_done adds one to prev_action[0]
    _, action = tick(loop, 2, obs=(3, 0), reward=9, flags=NEW_TASK | EPISODE)
    assert action.tolist() == [3, 0]


def test_a_repeated_seq_gets_the_same_answer_and_no_second_step(loop):
    first = loop.tick(frame(0), 0).reply
    before = state(loop)
    again = loop.tick(frame(0, obs=(99, 99)), 5).reply
    assert unpack(again).flags == ActionFlag.REPEATED | ActionFlag.FRESH
    assert again[HEADER_SIZE:] == first[HEADER_SIZE:]
    assert state(loop) == before and session_of(loop).counters.repeated == 1


def test_the_first_step_says_that_it_is_fresh_whatever_came_before_it(loop):
    header, _ = tick(loop, 0, flags=INVALID)
    assert not header.flags & ActionFlag.FRESH
    header, action = tick(loop, 1, obs=(1, 0), reward=7.0)  # no step led here
    assert header.flags & ActionFlag.FRESH and action.tolist() == [1, 0]
    assert not tick(loop, 2)[0].flags & ActionFlag.FRESH


def test_an_older_seq_is_an_error(loop):
    for seq in range(3):
        tick(loop, seq)
    before = state(loop)
    header, reply = tick(loop, 1)
    assert header.status == Code.OLD_SEQ and b"the next one is 3" in reply
    assert state(loop) == before


def test_a_gap_is_counted_and_follows_the_declared_rule(loop, models):
    tick(loop, 0, obs=(1, 0))
    header, action = tick(loop, 5, obs=(1, 0))
    assert header.flags & ActionFlag.GAP and action[0] == 2  # "keep": the memory goes on
    counters = session_of(loop).counters
    assert (counters.gaps, counters.missed) == (1, 4)
    write_bundle(models, "strict", boundaries={"episode": "keep", "task": "prior", "gap": "prior"})
    loop = make_loop(models, "strict")
    tick(loop, 0, obs=(1, 0))
    assert tick(loop, 5, obs=(1, 0))[1][0] == 1
    tick(loop, 9, flags=INVALID)  # no step: the next one tells the policy
    assert tick(loop, 10, obs=(1, 0))[1][0] == 1
    assert tick(loop, 11, obs=(1, 0))[1][0] == 2


@pytest.mark.parametrize(
    ("bad", "code", "sentence"),
    [
        (
            frame(1, obs=(1, 2, 3)),
            Code.WRONG_SIZE,
            "an observation of 3 numbers: counter@1 takes 2",
        ),
        (frame(1, applied=(1, 2, 3)), Code.WRONG_SIZE, "an applied action of 3 numbers"),
        (frame(1, second=1) + bytes(4), Code.WRONG_SIZE, "an applied action of 1 numbers"),
        (frame(1, obs=(1, np.nan)), Code.NOT_FINITE, "observation 'y' is nan"),
        (frame(1, applied=(np.inf, 0)), Code.NOT_FINITE, "applied action 'push' is inf"),
        (frame(1, reward=np.nan), Code.NOT_FINITE, "previous reward is nan"),
        (frame(2**64 - 1), Code.SEQ_TOO_FAR, "skips more than 1000000: the next is 1"),
        (frame(1, session=43), Code.UNKNOWN_SESSION, "there is no session 43"),
        (frame(1, version=VERSION + 1), Code.WRONG_VERSION, "protocol version 2"),
        (frame(1, first=7), Code.WRONG_SIZE, "the header announces 28"),
        (frame(1)[:63], Code.MALFORMED, "a frame of 63 bytes"),
        (b"", Code.MALFORMED, "a frame of 0 bytes"),
        (b"GARBAGE!" * 10, Code.MALFORMED, "does not begin with ADPT"),
        (Header(Kind.ACTION, 0, ID, 1, 0).pack(), Code.WRONG_KIND, "kind 2 is not an observation"),
    ],
)
def test_a_bad_frame_gets_a_coded_answer_and_changes_nothing(loop, bad, code, sentence):
    tick(loop, 0)
    before = state(loop)
    reply = loop.tick(bad, 0).reply
    assert unpack(reply).kind == Kind.ERROR and unpack(reply).status == code
    assert sentence in reply[HEADER_SIZE:].decode()
    assert state(loop) == before
    assert loop.reception.refused == {code.name: 1}
    assert not tick(loop, 1)[0].status  # and the session goes on


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_at_all_can_raise_or_change_state(shared_loop, content):
    for candidate in (content, frame(0)[:12] + content, frame(1)[:20] + content):
        before = state(shared_loop)
        reply = shared_loop.tick(candidate, 0).reply
        if unpack(reply).kind == Kind.ERROR:
            assert state(shared_loop) == before


@pytest.fixture(scope="module")
def shared_loop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder, "counter")
    return make_loop(folder)


@pytest.mark.fault(
    "a policy gives NaN after some ticks",
    "The fallback action is sent; the memory stays as it was.",
)
def test_an_output_that_is_not_finite_becomes_the_fallback_and_is_not_remembered(loop):
    tick(loop, 0, obs=(3e38, 0))
    before = carry_of(loop)
    header, floats = tick(loop, 1, obs=(3e38, 0))  # the sum overflows
    assert header.limits & Limit.NOT_FINITE
    assert floats[:2].tolist() == [0.0, 0.5] and np.isnan(floats[2:]).all()
    assert header.adaptation == Adaptation.INVALID
    np.testing.assert_array_equal(carry_of(loop), before)
    assert tick(loop, 2, obs=(-3e38, 0))[1][0] == 0.0


@pytest.mark.fault("a policy gives NaN from then on", "The session stops until it is re-armed.")
def test_a_policy_whose_output_is_never_finite_stops_the_session(models):
    write_bundle(models, "loud", gain=1e38)
    loop = make_loop(models, "loud", rules=Rules(stop_after=3))
    limits = [tick(loop, seq, obs=(9, 0))[0].limits for seq in range(4)]
    assert limits == [Limit.NOT_FINITE] * 3 + [Limit.STOPPED]


def test_a_new_task_is_not_lost_when_its_first_step_is_not_finite(loop):
    for seq in range(3):
        tick(loop, seq, obs=(20, 0))
    header, _ = tick(loop, 3, obs=(3e38, 0), reward=3e38, flags=NEW_TASK)
    assert not header.limits & Limit.NOT_FINITE  # at a boundary the reward does not count
    write_bundle(loop.folder, "explosive", gain=3.0)
    session_of(loop).reset()
    session_of(loop).stepper = loop.bench.serve("explosive").stepper
    header, _ = tick(loop, 4, obs=(3e38, 0))
    assert header.limits & Limit.NOT_FINITE
    session_of(loop).stepper = loop.bench.serve("counter@1").stepper
    assert tick(loop, 5, obs=(1, 0))[1][0] == 1.0  # a bound, 10, would hide an old memory


def test_the_rate_limit_counts_from_what_the_robot_did(models):
    rated = [
        {"name": "push", "unit": "N", "low": -10.0, "high": 10.0, "max_rate": 10.0},  # 1 a step
        {"name": "turn", "unit": "rad", "low": -1.0, "high": 1.0, "max_rate": None},
    ]
    write_bundle(models, "rated", action=rated)
    loop = make_loop(models, "rated")
    assert tick(loop, 0, obs=(9, 0))[1][0] == 9.0  # nothing was applied before
    assert tick(loop, 1, obs=(-20, 0))[1][0] == 8.0
    assert tick(loop, 2, obs=(0, 0), applied=(0, 0))[1][0] == -1.0  # the robot did 0
    assert tick(loop, 3, obs=(9, 0), flags=NEW_TASK)[1][0] == 0.0  # it did not stop moving
    assert tick(loop, 4, obs=(-18, 0), flags=EPISODE)[1][0] == -9.0  # it was put back


def test_noise_comes_from_session_and_seq(models):
    write_bundle(models, "noisy", noisy=True)
    runs = []
    for _ in range(2):
        loop = make_loop(models, "noisy")
        runs.append([tick(loop, seq, obs=(0, 0))[1].tobytes() for seq in range(4)])
    assert runs[0] == runs[1] and len(set(runs[0])) == 4


def test_a_session_that_a_request_woke_is_not_put_to_sleep_under_it(loop):
    registry, now = loop.registry, 10**15
    registry.tidy(now, idle_after_s=600, forget_after_s=1e9)
    assert not registry.live and ID in registry.asleep
    woken = registry.find(ID)
    registry.tidy(now + 10**9, idle_after_s=600, forget_after_s=1e9)
    assert registry.live[ID] is woken
    registry.tidy(now + 601 * 10**9, idle_after_s=600, forget_after_s=1e9)
    assert ID in registry.asleep


def test_a_session_that_has_not_begun_may_begin_anywhere(loop):
    """As one whose state was lost does: its robot goes on counting."""
    header, reply = tick(loop, 2**54)
    assert header.status == Code.SEQ_TOO_FAR and b"the next is 0" in reply
    header, _ = tick(loop, 5_000_000)
    assert header.flags & ActionFlag.FRESH and header.flags & ActionFlag.GAP
    assert session_of(loop).next_seq == 5_000_001
