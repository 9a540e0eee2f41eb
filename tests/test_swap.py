"""Swapping policies between two ticks: memory kept, rebuilt or reset, and never a lost tick."""

import pytest

from runtime.messages import ActionFlag
from runtime.store import Store
from runtime.swap import Incompatible, check_swap, swap_session
from tests.bundles import write_bundle
from tests.test_loop import ID, NEW_TASK, make_loop, tick


def at_once(function):
    """Stands for the loop's mailbox where there is one thread only."""
    return function()


def swap(loop, store, reference, migration="auto"):
    return swap_session(loop.sessions[ID], store.load(reference), migration, at_once)


def played(models, ticks=5, **named):
    """A session that has seen observations 1, 1, 1, ..."""
    loop = make_loop(models, **named)
    for seq in range(ticks):
        tick(loop, seq, obs=(1, 0))
    return loop


def test_versions_of_one_bundle_keep_the_memory(models):
    loop = played(models)
    report = swap(loop, Store(models), "counter@2")
    assert (report.carry, report.replayed_steps, report.from_seq) == ("kept", 0, 5)
    assert loop.sessions[ID].policy.label == "counter@1"  # until the next tick
    header, action = tick(loop, 5, obs=(1, 0))
    assert header.flags & ActionFlag.SWAPPED and header.generation == 2
    assert action[0] == 3.0  # counter@2 has gain 0.5: 0.5 * (5 + 1)
    header, _ = tick(loop, 6, obs=(1, 0))
    assert not header.flags & ActionFlag.SWAPPED


def test_another_policys_memory_is_rebuilt_from_recent_transitions(models):
    loop = played(models)
    report = swap(loop, Store(models), "other")
    assert (report.carry, report.replayed_steps) == ("replayed", 5)
    _, action = tick(loop, 5, obs=(1, 0))
    assert action[0] == 6.0
    assert loop.sessions[ID].carry["h"].shape == (1, 3)


def test_replay_begins_at_the_last_task_boundary(models):
    loop = played(models)
    tick(loop, 5, obs=(1, 0), flags=NEW_TASK)
    tick(loop, 6, obs=(1, 0))
    report = swap(loop, Store(models), "other")
    assert report.replayed_steps == 2
    assert tick(loop, 7, obs=(1, 0))[1][0] == 3.0


def test_replay_has_no_more_than_the_ring(models):
    loop = played(models, ticks=10, ring=4)
    assert swap(loop, Store(models), "other").replayed_steps == 4
    assert tick(loop, 10, obs=(1, 0))[1][0] == 5.0


def test_a_session_without_history_starts_from_the_prior(models):
    loop = make_loop(models)
    assert swap(loop, Store(models), "other").carry == "reset"


@pytest.mark.parametrize(
    ("migration", "expected"), [("reset", 1.0), ("replay", 3.0), ("keep", 3.0)]
)
def test_an_operator_may_choose(models, migration, expected):
    loop = played(models)
    report = swap(loop, Store(models), "counter@2", migration)
    assert report.carry == {"keep": "kept", "replay": "replayed"}.get(migration, migration)
    assert tick(loop, 5, obs=(1, 0))[1][0] == (0.5 if migration == "reset" else expected)


def test_a_reset_before_the_switch_still_resets(models):
    loop = played(models)
    swap(loop, Store(models), "other")
    loop.sessions[ID].reset()
    assert tick(loop, 5, obs=(1, 0))[1][0] == 1.0


def test_a_reset_migration_is_a_task_boundary(models):
    loop = played(models)
    swap(loop, Store(models), "other", "reset")
    _, action = tick(loop, 5, obs=(1, 0), reward=7.0)
    assert action.tolist() == [1.0, 0.0]  # neither memory, nor reward, nor action before
    assert swap(loop, Store(models), "counter@1", "replay").replayed_steps == 1


def test_replay_skips_what_the_tick_did_not_remember(models):
    loop = played(models)
    tick(loop, 5, obs=(3e38, 0))
    tick(loop, 6, obs=(3e38, 0))  # not finite: not remembered
    tick(loop, 7, obs=(-3e38, 0))
    before = loop.sessions[ID].carry["h"][0, 0]
    swap(loop, Store(models), "other")
    header, _ = tick(loop, 8, obs=(0, 0))
    assert not header.limits
    assert loop.sessions[ID].carry["h"][0, 0] == before


def test_a_swap_whose_first_step_fails_changes_nothing(models, monkeypatch):
    loop = played(models)
    other = Store(models).load("other")
    swap_session(loop.sessions[ID], other, "auto", at_once)
    monkeypatch.setattr(other, "step", lambda *_: 1 / 0)
    header, action = tick(loop, 5, obs=(1, 0))
    assert header.status == 0 and header.generation == 1 and action[0] == 6.0
    assert loop.sessions[ID].policy.label == "counter@1"
    assert loop.sessions[ID].counters.swaps == 0


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
        check_swap(loop.sessions[ID], Store(models).load("foreign"), "auto")
    with pytest.raises(Incompatible, match="cannot be kept"):
        check_swap(loop.sessions[ID], Store(models).load("other"), "keep")
    assert tick(loop, 5)[1][0] == 6.0
