"""Swapping policies between two ticks: memory kept, rebuilt or reset, and never a lost tick."""

import pytest

from runtime.messages import ActionFlag
from runtime.shadow import promote_session, return_incumbent, shadow_session
from runtime.snapshot import put, take, write_history
from runtime.swap import Incompatible, Wish, check_swap, swap_sessions
from tests.bundles import write_bundle
from tests.loops import EPISODE, NEW_TASK, NOTHING, carry_of, make_loop, session_of, tick


def at_once(function):
    """Stands for the loop's mailbox where there is one thread only."""
    return function()


def swap(loop, reference, migration="auto", **wish):
    policies = [(session_of(loop), loop.bench.serve(reference))]
    return swap_sessions(policies, Wish(migration, **wish), at_once)[0]


def played(models, ticks=5, **named):
    """A session that has seen observations 1, 1, 1, ..."""
    loop = make_loop(models, **named)
    for seq in range(ticks):
        tick(loop, seq, obs=(1, 0))
    return loop


def test_versions_of_one_bundle_keep_the_memory(models):
    loop = played(models)
    report = swap(loop, "counter@2")
    assert (report.carry, report.replayed_steps, report.from_seq) == ("kept", 0, 5)
    assert session_of(loop).policy.label == "counter@1"  # until the next tick
    header, action = tick(loop, 5, obs=(1, 0))
    assert header.flags & ActionFlag.SWAPPED and header.generation == 2
    assert action[0] == 3.0  # counter@2 has gain 0.5: 0.5 * (5 + 1)
    header, _ = tick(loop, 6, obs=(1, 0))
    assert not header.flags & ActionFlag.SWAPPED


def test_another_policys_memory_is_rebuilt_from_recent_transitions(models):
    loop = played(models)
    report = swap(loop, "other")
    assert (report.carry, report.replayed_steps) == ("replayed", 5)
    _, action = tick(loop, 5, obs=(1, 0))
    assert action[0] == 6.0
    assert carry_of(loop).shape == (1, 3)


def test_replay_begins_at_the_last_task_boundary(models):
    loop = played(models)
    tick(loop, 5, obs=(1, 0), flags=NEW_TASK)
    tick(loop, 6, obs=(1, 0))
    report = swap(loop, "other")
    assert report.replayed_steps == 2
    assert tick(loop, 7, obs=(1, 0))[1][0] == 3.0


def test_replay_has_no_more_than_the_ring(models):
    loop = played(models, ticks=10, ring=4)
    assert swap(loop, "other").replayed_steps == 4
    assert tick(loop, 10, obs=(1, 0))[1][0] == 5.0


def test_a_session_without_history_starts_from_the_prior(models):
    loop = make_loop(models)
    assert swap(loop, "other").carry == "reset"


@pytest.mark.parametrize(
    ("migration", "expected"), [("reset", 1.0), ("replay", 3.0), ("keep", 3.0)]
)
def test_an_operator_may_choose(models, migration, expected):
    loop = played(models)
    report = swap(loop, "counter@2", migration)
    assert report.carry == {"keep": "kept", "replay": "replayed"}.get(migration, migration)
    assert tick(loop, 5, obs=(1, 0))[1][0] == (0.5 if migration == "reset" else expected)


def test_a_reset_before_the_switch_still_resets(models):
    loop = played(models)
    swap(loop, "other")
    session_of(loop).reset()
    assert tick(loop, 5, obs=(1, 0))[1][0] == 1.0


def test_a_reset_migration_is_a_task_boundary(models):
    loop = played(models)
    swap(loop, "other", "reset")
    _, action = tick(loop, 5, obs=(1, 0), reward=7.0)
    assert action.tolist() == [1.0, 0.0]  # neither memory, nor reward, nor action before
    assert swap(loop, "counter@1", "replay").replayed_steps == 1


def test_replay_skips_what_the_tick_did_not_remember(models):
    loop = played(models)
    tick(loop, 5, obs=(3e38, 0))
    tick(loop, 6, obs=(3e38, 0))  # not finite: not remembered
    tick(loop, 7, obs=(-3e38, 0))
    before = carry_of(loop)[0, 0]
    swap(loop, "other")
    header, _ = tick(loop, 8, obs=(0, 0))
    assert not header.limits and header.flags & ActionFlag.SWAPPED
    assert session_of(loop).policy.label == "other@1"
    assert carry_of(loop)[0, 0] == before


def test_a_swap_whose_first_step_fails_changes_nothing(models, monkeypatch):
    loop = played(models)
    swap(loop, "other")
    monkeypatch.setattr(loop.bench.serve("other").stepper, "run", lambda: 1 / 0)
    header, action = tick(loop, 5, obs=(1, 0))
    assert header.status == 0 and header.generation == 1 and action[0] == 6.0
    assert session_of(loop).policy.label == "counter@1"
    assert session_of(loop).counters.swaps == 0


def test_a_swap_whose_first_output_is_not_finite_changes_nothing(models):
    write_bundle(models, "loud", gain=1e38)
    loop = played(models)
    swap(loop, "loud")
    header, action = tick(loop, 5, obs=(1, 0))
    assert header.generation == 1 and action[0] == 6.0
    assert not header.flags & ActionFlag.SWAPPED


@pytest.mark.parametrize("instead", [None, "same"])
def test_a_promotion_whose_candidate_is_gone_by_the_tick_changes_nothing(models, instead):
    write_bundle(models, "same", gain=2.0)
    loop = played(models)
    session, candidate = session_of(loop), loop.bench.serve("counter@2")
    shadow_session(session, candidate, at_once)
    promote_session(session, candidate, Wish(), at_once)
    session.drop_companion()
    if instead:  # whose memory has the same shape and another meaning
        shadow_session(session, loop.bench.serve(instead), at_once)
    header, action = tick(loop, 5, obs=(1, 0))
    assert header.generation == 1 and action[0] == 6.0
    assert not header.flags & ActionFlag.SWAPPED


def restore(loop, taken):
    session = session_of(loop)
    memory = loop.bench.state.serve(session.policy).slab.allocate()
    memory.claim(session.id, session.previous)
    write_history(memory, taken.history)
    put(session, memory, taken)


def test_a_snapshot_goes_over_a_swap_that_waits(models):
    loop = played(models, ticks=2)
    taken = take(session_of(loop))
    for seq in range(2, 5):
        tick(loop, seq, obs=(1, 0))
    swap(loop, "other")
    restore(loop, taken)
    header, action = tick(loop, 5, obs=(1, 0))
    assert header.generation == 1 and action[0] == 3.0


def test_an_incumbent_knows_all_transitions_after_a_restored_snapshot_too(models):
    loop = played(models)
    swap(loop, "other")
    tick(loop, 5, obs=(1, 0))
    taken = take(session_of(loop))
    tick(loop, 6, obs=(1, 0))
    restore(loop, taken)
    tick(loop, 7, obs=(1, 0))
    return_incumbent(session_of(loop))
    assert tick(loop, 8, obs=(1, 0))[1][0] == 9.0
    assert session_of(loop).memory.since(0).seqs.tolist() == list(range(9))


def test_replay_follows_the_new_policys_own_rules(models):
    rules = {"episode": "prior", "task": "prior", "gap": "keep"}
    write_bundle(models, "episodic", carry_size=3, boundaries=rules)
    for first, second, expected in (("counter@1", "episodic", 4.0), ("episodic", "counter@1", 7.0)):
        loop = make_loop(models, first)
        for seq in range(6):
            tick(loop, seq, obs=(1, 0), flags=EPISODE if seq == 3 else NOTHING)
        assert swap(loop, second).replayed_steps == 6
        assert tick(loop, 6, obs=(1, 0))[1][0] == expected


def test_a_small_ring_that_has_come_round_is_replayed_from_its_start(models):
    loop = played(models, ring=4)
    asked = []

    def busy(function):
        """A robot that ticks six times between the replay and the offer."""
        asked.append(function)
        if len(asked) == 2:
            for seq in range(5, 11):
                tick(loop, seq, obs=(1, 0))
        return function()

    swap_sessions([(session_of(loop), loop.bench.serve("other"))], Wish(), busy)
    assert tick(loop, 11, obs=(1, 0))[1][0] == 5.0  # the last four, and its own


def test_a_policy_that_needs_rewards_cannot_take_over_a_session_without(models):
    write_bundle(models, "blind", needs_reward=False)
    loop = make_loop(models, "blind")
    session_of(loop).sends_reward = False
    with pytest.raises(Incompatible, match="adapts from prev_reward"):
        swap(loop, "counter@1")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"control_hz": 50.0}, "control at 50 Hz, the session's 10 Hz"),
        (
            {"observation": [{"name": n, "unit": "m", "low": None, "high": None} for n in "yx"]},
            r"observation element 0 is y \[m\], the session's x \[m\]",
        ),
    ],
)
def test_a_policy_for_another_robot_is_refused(models, change, reason):
    write_bundle(models, "foreign", **change)
    loop = played(models)
    with pytest.raises(Incompatible, match=reason):
        check_swap(session_of(loop), loop.bench.store.load("foreign").manifest, "auto")
    with pytest.raises(Incompatible, match="cannot be kept"):
        check_swap(session_of(loop), loop.bench.store.load("other").manifest, "keep")
    assert tick(loop, 5)[1][0] == 6.0
