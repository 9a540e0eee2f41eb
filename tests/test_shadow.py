"""A candidate in the shadow: it runs along, is compared and not sent, and may be promoted."""

import numpy as np
import pytest

from runtime.messages import ActionFlag, Limit
from runtime.policy_requests import candidate_of
from runtime.shadow import promote_session, shadow_session
from runtime.swap import Incompatible, Wish, swap_sessions
from tests.bundles import write_bundle
from tests.loops import EPISODE, NEW_TASK, NOTHING, carry_of, make_loop, session_of, tick
from tests.odd_bundles import FRAGILE_FROM, write_fragile
from tests.test_swap import at_once, played, swap


def shadow(loop, reference):
    return shadow_session(session_of(loop), loop.bench.serve(reference), at_once).replayed_steps


def report(loop):
    return candidate_of(session_of(loop)).report()


def promote(loop, reference, **wish):
    served = loop.bench.serve(reference)
    return promote_session(session_of(loop), served, Wish(**wish), at_once)


def trip(loop, begin=0, ticks=30):
    """Observations, rewards, echoes and boundaries; the same every time."""
    rng = np.random.default_rng(begin)
    for seq in range(begin, begin + ticks):
        flags = EPISODE if seq % 7 == 6 else NOTHING
        flags |= NEW_TASK if seq % 13 == 12 else NOTHING
        obs, applied = rng.uniform(-1, 1, (2, 2))
        yield tick(loop, seq, obs, rng.normal(), flags, applied)


def test_difference_and_agreement_by_hand(models):
    """Sums h of 1, 2, 3 give actions (h, before) of gain 1 and, in the shadow, of gain 1/2:

    push 1, 2, 3 and 0.5, 1, 1.5; turn 0, 1, 1 (2, bounded) and 0, 0.5, 1. Ranges are 20
    and 2, so that 1.0 and 0.1 are near enough: in the first tick alone.
    """
    loop = make_loop(models)
    assert shadow(loop, "counter@2") == 0
    for seq in range(3):
        tick(loop, seq, obs=(1, 0))
    found = report(loop)
    assert (found["policy"], found["ticks"]) == ("counter@2", 3)
    assert found["difference"] == pytest.approx([1.0, 0.5 / 3], abs=1e-6)
    assert found["agreement"] == pytest.approx(1 / 3, abs=1e-4)


def test_the_latency_is_the_candidates_own(models):
    """The clock's nth look is at n^2 us: the policy takes 1 us, its candidate 9 - 4."""
    loop = make_loop(models)
    shadow(loop, "counter@2")
    looks = iter(range(100))
    loop.clock = lambda: 1000 * next(looks) ** 2
    tick(loop, 0)
    assert report(loop)["inference_us"] == 5.0


def test_a_candidate_begins_with_the_memory_of_recent_transitions(models):
    loop = played(models)
    assert shadow(loop, "other") == 5
    tick(loop, 5, obs=(1, 0))
    assert report(loop)["difference"] == [0, 0] and report(loop)["agreement"] == 1


def test_actions_are_those_without_a_shadow(models):
    write_bundle(models, "noisy", noisy=True)
    alone, shadowed = make_loop(models), make_loop(models)
    shadow(shadowed, "noisy")
    for ours, theirs in zip(trip(shadowed), trip(alone), strict=True):
        times = dict.fromkeys(("time_ns", "queue_ns", "inference_ns"), 0)
        assert ours[0]._replace(**times) == theirs[0]._replace(**times)
        np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_array_equal(carry_of(shadowed), carry_of(alone))


def test_a_candidate_that_fails_is_reported_and_harms_nothing(models):
    write_fragile(models)
    loop = played(models)
    shadow(loop, "fragile")
    assert tick(loop, 5, obs=(1, FRAGILE_FROM))[1][0] == 6
    assert "it failed" in report(loop)["broken"]
    assert tick(loop, 6, obs=(1, 0))[1][0] == 7 and report(loop)["ticks"] == 0


def test_a_candidate_whose_output_is_not_finite_is_reported(models):
    write_bundle(models, "loud", gain=1e38)
    loop = played(models)
    shadow(loop, "loud")
    header, action = tick(loop, 5, obs=(1, 0))
    assert action[0] == 6 and not header.limits & Limit.NOT_FINITE
    assert report(loop)["broken"] == "its output is not finite"


def test_a_tick_that_the_policy_itself_spoilt_is_not_compared(models):
    write_bundle(models, "loud", gain=1e38)
    loop = make_loop(models, "loud")
    shadow(loop, "counter@1")
    header, _ = tick(loop, 0, obs=(9, 0))
    assert header.limits & Limit.NOT_FINITE
    tick(loop, 1, obs=(0, 0), flags=NEW_TASK)
    assert report(loop)["ticks"] == 1 and report(loop)["difference"] == [0, 0]


def test_a_candidate_follows_its_own_rules_at_boundaries(models):
    rules = {"episode": "prior", "task": "prior", "gap": "prior"}
    write_bundle(models, "strict", carry_size=3, boundaries=rules)
    shadowed, strict = make_loop(models), make_loop(models, "strict")
    shadow(shadowed, "strict")
    for _ in zip(trip(shadowed), trip(strict), strict=True):
        ours = b"".join(session_of(shadowed).companion.carry)
        assert ours == b"".join(map(bytes, session_of(strict).memory.carry))


def test_a_candidate_does_not_change_either_while_the_session_is_frozen(models):
    loop = played(models)
    shadow(loop, "counter@2")
    session_of(loop).frozen = True
    for seq in (5, 6):
        tick(loop, seq, obs=(1, 0))
    assert np.frombuffer(session_of(loop).companion.carry[0], np.float32).tolist() == [5, 5]
    session_of(loop).frozen = False
    promote(loop, "counter@2")
    assert tick(loop, 7, obs=(1, 0))[1][0] == 3


@pytest.mark.parametrize("reference", ["counter@2", "other@1"])
def test_a_promoted_candidate_has_its_own_memory_bit_for_bit(models, reference):
    """Of many rewards added in another order nothing else would have the same bits."""
    shadowed, all_along = make_loop(models), make_loop(models, reference)
    shadow(shadowed, reference)
    for _ in zip(trip(shadowed), trip(all_along), strict=True):
        pass
    offered = promote(shadowed, reference, blend_ticks=0)
    assert (offered.new, offered.carry, offered.from_seq) == (reference, "kept", 30)
    pairs = list(zip(trip(shadowed, 30), trip(all_along, 30), strict=True))
    assert pairs[0][0][0].flags & ActionFlag.SWAPPED
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_array_equal(carry_of(shadowed), carry_of(all_along))


def test_a_candidate_that_is_broken_cannot_take_over(models):
    write_bundle(models, "loud", gain=1e38)
    loop = played(models)
    shadow(loop, "loud")
    tick(loop, 5, obs=(1, 0))
    with pytest.raises(Incompatible, match="cannot take over: its output is not finite"):
        promote(loop, "loud")
    assert tick(loop, 6, obs=(1, 0))[1][0] == 7


def test_a_promotion_whose_candidate_is_gone_by_its_tick_changes_nothing(models):
    """Ended by the operator in between; the memory of another policy must not stand in."""
    loop = played(models)
    shadow(loop, "counter@2")
    promote(loop, "counter@2")
    session_of(loop).drop_companion()
    header, action = tick(loop, 5, obs=(1, 0))
    assert action[0] == 6 and header.generation == 1
    assert not header.flags & ActionFlag.SWAPPED


def test_a_promotion_does_not_take_another_candidates_memory(models):
    loop = played(models)
    shadow(loop, "counter@2")
    promote(loop, "counter@2")
    shadow(loop, "other")
    assert tick(loop, 5, obs=(1, 0))[0].generation == 1
    assert report(loop)["policy"] == "other@1"


def test_a_policy_on_probation_has_no_room_for_a_shadow(models):
    loop = played(models)
    swap(loop, "other")
    tick(loop, 5)
    with pytest.raises(Incompatible, match="on probation for 99 ticks more"):
        shadow(loop, "counter@2")


def test_a_policy_for_another_robot_cannot_run_along(models):
    write_bundle(models, "fast", control_hz=50.0)
    loop = played(models)
    with pytest.raises(Incompatible, match="control at 50 Hz"):
        shadow(loop, "fast")


def test_a_blend_goes_by_equal_steps_from_the_old_action_to_the_new(models):
    """The sum is 4: gain 1 gives 4, gain 1/2 gives 2; weights 1/4, 1/2, 3/4 and then 1."""
    loop = played(models, ticks=4)
    swap(loop, "counter@2", blend_ticks=3)
    answers = [tick(loop, seq, obs=(0, 0)) for seq in range(4, 8)]
    assert [floats[0] for _, floats in answers] == [3.5, 3.0, 2.5, 2.0]
    assert [floats[-2] for _, floats in answers] == [2.0] * 4  # as requested
    assert [bool(h.limits & Limit.BLEND) for h, _ in answers] == [True, True, True, False]


def test_a_blended_action_obeys_the_rate_limit(models):
    rated = [
        {"name": "push", "unit": "N", "low": -10.0, "high": 10.0, "max_rate": 1.0},  # 0.1 a step
        {"name": "turn", "unit": "rad", "low": -1.0, "high": 1.0, "max_rate": None},
    ]
    write_bundle(models, "rated", 1, action=rated)
    write_bundle(models, "rated", 2, gain=0.5, action=rated)
    loop = make_loop(models, "rated@1")
    tick(loop, 0, obs=(4, 0))
    swap(loop, "rated@2", blend_ticks=1)
    header, action = tick(loop, 1, obs=(0, 0))  # half way from 4 to 2 would be 3
    assert action[0] == pytest.approx(3.9) and header.limits & Limit.RATE


def test_all_sessions_are_promoted_from_one_shadow(models):
    loop = make_loop(models)
    second = loop.bench.open("counter@1", session=43)
    served = loop.bench.serve("counter@2")
    for session in (session_of(loop), second):
        shadow_session(session, served, at_once)
        promote_session(session, served, Wish(), at_once)
    for i in (42, 43):
        assert tick(loop, 0, obs=(1, 0), session=i)[1][0] == 0.5
    assert swap_sessions([], Wish(), at_once) == []
