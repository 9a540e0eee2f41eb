"""Changing a session's policy between two ticks, its memory kept, rebuilt or reset.

Everything slow happens on the caller's thread: the loop's thread only copies recent
transitions, steps the last few of them and switches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from runtime.loop import is_behind, replay
from runtime.policy import Arrays, Policy
from runtime.sessions import Adopted, History, Session
from runtime.spec import ActionElement, Element, Manifest

NOTHING_TO_CATCH_UP = 2**64 - 1
Migration = Literal["auto", "keep", "replay", "reset"]
Outcome = Literal["kept", "replayed", "reset"]
OUTCOMES: dict[Migration, Outcome] = {"keep": "kept", "replay": "replayed", "reset": "reset"}
InLoop = Callable[[Callable[[], Any]], Any]
"""Runs a function between two ticks, on the loop's thread, and gives its result."""


class Incompatible(Exception):
    """Two policies that cannot follow each other in one session, and why."""


class SwapReport(NamedTuple):
    """What a swap does to one session."""

    session: int
    old: str
    new: str
    carry: Outcome
    replayed_steps: int
    from_seq: int
    """The first tick that the new policy answers."""


def check_compatible(old: Manifest, new: Manifest) -> None:
    """Whether the same robot may be driven by both: same elements, units and order.

    Raises:
        Incompatible: with the first difference.
    """
    if old.control_hz != new.control_hz:
        raise Incompatible(f"control at {new.control_hz:g} Hz, the session's {old.control_hz:g} Hz")
    for what, ours, theirs in (
        ("observation", old.observation, new.observation),
        ("action", old.action, new.action),
    ):
        if len(ours) != len(theirs):
            raise Incompatible(f"{what} of {len(theirs)} elements, the session's has {len(ours)}")
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if _meaning(a) != _meaning(b):
                raise Incompatible(
                    f"{what} element {i} is {b.name} [{b.unit}], the session's {a.name} [{a.unit}]"
                )


def _meaning(element: Element | ActionElement) -> tuple[str, str]:
    return element.name, element.unit


def choose_migration(old: Manifest, new: Manifest, asked: Migration, history: int) -> Migration:
    """What to do with the carry: keep it, replay recent transitions, or reset.

    A carry means the same to two policies if they are versions of one bundle and its
    tensors agree. Two networks with equal shapes but different names share nothing.

    Args:
        asked: by the operator; "auto" decides.
        history: transitions that could be replayed.

    Raises:
        Incompatible: "keep" was asked for and the carry's tensors differ.
    """
    same_tensors = old.carry_schema() == new.carry_schema()
    if asked == "keep" and not same_tensors:
        raise Incompatible(f"{new.name} has a carry of other tensors: it cannot be kept")
    if asked != "auto":
        return asked
    if same_tensors and old.name == new.name:
        return "keep"
    return "replay" if history else "reset"


def check_swap(session: Session, policy: Policy, migration: Migration) -> None:
    """Whether a session's policy can be swapped for this one.

    Raises:
        Incompatible: the policy cannot drive this session's robot, or adapts from a reward
            that the session does not send, or the carry cannot be kept.
    """
    if policy.manifest.needs_reward and not session.sends_reward:
        raise Incompatible("it adapts from prev_reward, which the session does not send")
    check_compatible(session.policy.manifest, policy.manifest)
    choose_migration(session.policy.manifest, policy.manifest, migration, history=0)


@dataclass
class _Plan:
    """One session's swap while it is prepared."""

    session: Session
    policy: Policy
    migration: Migration
    old: Policy
    adopted: Adopted
    chosen: Migration
    steps: int

    def report(self) -> SwapReport:
        outcome = OUTCOMES[self.chosen]
        labels = self.old.label, self.policy.label
        return SwapReport(self.session.id, *labels, outcome, self.steps, self.session.next_seq)


def swap_sessions(
    policies: list[tuple[Session, Policy]], migration: Migration, in_loop: InLoop
) -> list[SwapReport]:
    """Make each session's new policy take over at its next tick; all of them, or none.

    Args:
        policies: sessions with the loaded and verified policy that each is to get.
        migration: what to do with the carry.
        in_loop: see `InLoop`; called from another thread than the loop's.

    Raises:
        Incompatible: a policy cannot drive its session's robot, or a carry not be kept.
    """
    for session, policy in policies:
        try:
            check_swap(session, policy, migration)
        except Incompatible as error:
            raise Incompatible(
                f"{policy.label} cannot take over session {session.id}: {error}"
            ) from None
    plans = [_prepare(session, policy, migration, in_loop) for session, policy in policies]
    while True:
        reports, late = in_loop(partial(_offer_all, plans))
        if reports is not None:
            return reports
        for plan in late:  # ticks came in while others were prepared
            _catch_up(plan, in_loop)


def _prepare(session: Session, policy: Policy, migration: Migration, in_loop: InLoop) -> _Plan:
    """Decide on the carry and, for a replay, compute it."""
    old, history = in_loop(lambda: (session.policy, session.ring.since(0)))
    chosen = choose_migration(old.manifest, policy.manifest, migration, len(history))
    steps = 0
    if chosen == "keep":
        adopted = Adopted(policy, None, 0)
    elif chosen == "reset":
        adopted = Adopted(policy, policy.initial_carry(), NOTHING_TO_CATCH_UP, fresh=True)
    else:
        adopted, steps = _replayed(session.id, policy, policy.initial_carry(), history, 0)
    return _Plan(session, policy, migration, old, adopted, chosen, steps)


def _catch_up(plan: _Plan, in_loop: InLoop) -> None:
    """Step the transitions that came since; from the start if another policy or a loop of the
    ring came between."""
    session, adopted = plan.session, plan.adopted
    same, lost, more = in_loop(
        lambda: (
            session.policy is plan.old,
            session.ring.lost(adopted.next_seq),
            session.ring.since(adopted.next_seq),
        )
    )
    if not same or lost or adopted.carry is None:
        fresh = _prepare(session, plan.policy, plan.migration, in_loop)
        plan.old, plan.adopted = fresh.old, fresh.adopted
        plan.chosen, plan.steps = fresh.chosen, fresh.steps
    else:
        plan.adopted, plan.steps = _replayed(
            session.id, plan.policy, adopted.carry, more, plan.steps
        )


def _offer_all(plans: list[_Plan]) -> tuple[list[SwapReport] | None, list[_Plan]]:
    """Make all policies ready at once, or none and say which are late. In the loop."""
    late = [p for p in plans if p.session.policy is not p.old or is_behind(p.session, p.adopted)]
    if late:
        return None, late
    for plan in plans:
        plan.session.ready = plan.adopted
    return [plan.report() for plan in plans], []


def cancel_swap(session: Session) -> SwapReport | None:
    """Take back a swap that no tick has taken yet; None if there is none. In the loop."""
    if session.ready is None:
        return None
    waiting, session.ready = session.ready.policy.label, None
    return SwapReport(session.id, waiting, session.policy.label, "kept", 0, session.next_seq)


def _replayed(
    session_id: int, policy: Policy, carry: Arrays, history: History, steps: int
) -> tuple[Adopted, int]:
    """The policy after some more history, and how many steps it has replayed by then."""
    carry = replay(policy, session_id, history, carry)
    next_seq = int(history.seqs[-1]) + 1 if len(history) else 0
    return Adopted(policy, carry, next_seq), steps + len(history)
