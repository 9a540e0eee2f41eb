"""What an operator's requests, and a crash, do to the reference."""

from collections.abc import Callable
from dataclasses import replace

from runtime.messages import Adaptation
from runtime.policy import Policy
from tests.reference import Beside, Reference, Taken, Waiting
from tests.reference_guard import Trial, Watch
from tests.reference_mind import TASK, Mind, replayed


class Refused(Exception):
    """A request that the daemon has to refuse, with its code."""


def check_robot(reference: Reference, policy: Policy) -> None:
    """Whether a policy can drive a session's robot."""
    ours, theirs = reference.mind.policy.manifest, policy.manifest
    if ours.control_hz != theirs.control_hz:
        raise Refused("INCOMPATIBLE")


def swap(reference: Reference, policy: Policy, migration: str = "auto", blend: int = 0) -> str:
    """Make a policy take over at the next tick; what becomes of the memory."""
    check_robot(reference, policy)
    ours, theirs = reference.mind.policy.manifest, policy.manifest
    same = ours.carry_schema() == theirs.carry_schema()
    history = reference.mind.since_task()
    way = migration
    if way == "keep" and not same:
        raise Refused("INCOMPATIBLE")
    if way == "auto" and same and ours.name == theirs.name:
        way = "keep"
    elif way == "auto":
        way = "replay" if history else "reset"
    if way == "replay":
        mind = replayed(policy, reference.id, history)
    else:
        kept = history if way == "keep" else ()
        mind = Mind(policy, policy.initial_carry(), kept)
    probation = max(reference.limits.probation_ticks, blend)
    reference.waiting = Waiting(mind, way, blend, probation)
    return {"keep": "kept", "replay": "replayed", "reset": "reset"}[way]


def shadow(reference: Reference, policy: Policy | None) -> None:
    """Let a policy run along; None ends it."""
    if policy is None:
        if reference.beside is not None and not reference.beside.incumbent:
            reference.beside = None
        return
    check_robot(reference, policy)
    if reference.trial is not None:
        raise Refused("INCOMPATIBLE")
    mind = replayed(policy, reference.id, reference.mind.since_task())
    reference.beside = Beside(mind, incumbent=False)


def promote(reference: Reference, blend: int = 0) -> None:
    """Let the candidate take over at the next tick."""
    beside = reference.beside
    if beside is None or beside.incumbent:
        raise Refused("NO_CANDIDATE")
    if beside.broken:
        raise Refused("INCOMPATIBLE")
    mind = replace(beside.mind, history=reference.mind.since_task())
    probation = max(reference.limits.probation_ticks, blend)
    reference.waiting = Waiting(mind, "promote", blend, probation)


def roll_back(reference: Reference) -> str | None:
    """Back to the policy before; its label if it has to be swapped in anew."""
    beside = reference.beside
    if reference.waiting is not None:
        reference.waiting = None
    elif beside is not None and beside.incumbent and not beside.broken:
        reference.return_incumbent()
    elif reference.mind.previous:
        return reference.mind.previous
    else:
        raise Refused("NO_PREVIOUS_POLICY")
    return None


def take(reference: Reference) -> Taken:
    """A snapshot."""
    return Taken(reference.mind, reference.mood)


def restore(reference: Reference, taken: Taken) -> None:
    """Go on from a snapshot; a swap that waits is taken back, its memory is another one."""
    if taken.mind.policy is not reference.mind.policy:
        raise Refused("OTHER_POLICY")
    history = taken.mind.since_task()
    if history:
        first = history[0]._replace(boundary=history[0].boundary | TASK)
        history = (first, *history[1:])
    previous = reference.mind.previous
    reference.mind = replace(taken.mind, history=history, previous=previous, good=None)
    reference.mood, reference.waiting = taken.mood, None
    _go_on_from_here(reference)


def restore_good(reference: Reference) -> None:
    """Go on from the last good memory."""
    good = reference.mind.good
    if good is None:
        raise Refused("NOTHING_GOOD")
    reference.mind = replace(reference.mind, carry=good)
    reference.mood = reference.mood._replace(status=Adaptation.ADAPTED)
    _go_on_from_here(reference)


def _go_on_from_here(reference: Reference) -> None:
    reference.start_fresh, reference.owed = False, reference.owed & ~TASK
    reference.amend()


def crash(reference: Reference, load: Callable[[str], Policy]) -> None:
    """All that is not in the session's record is gone.

    The incumbent of a policy on probation runs along again, its memory rebuilt.
    """
    reference.waiting = reference.beside = None
    saved = reference.saved_trial
    reference.trial = Trial(saved, 0.0) if saved else None
    if saved:
        before = load(reference.mind.previous)
        mind = replayed(before, reference.id, reference.mind.since_task())
        reference.beside = Beside(mind, incumbent=True)
    reference.blend_left, reference.fallbacks, reference.clamp_rate = 0, 0, 0.0
    reference.watch = Watch()
