"""Changing a session's policy between two ticks, its memory kept, rebuilt or reset.

Everything slow happens on the caller's thread: the loop's thread only copies recent
transitions, steps the last few of them and switches.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

from runtime.loop import offer_swap, replay
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
    """Whether `swap_session` can be done.

    Raises:
        Incompatible: the policy cannot drive this session's robot, or its carry not be kept.
    """
    check_compatible(session.policy.manifest, policy.manifest)
    choose_migration(session.policy.manifest, policy.manifest, migration, history=0)


def swap_session(
    session: Session, policy: Policy, migration: Migration, in_loop: InLoop
) -> SwapReport:
    """Make `policy` take over one session at its next tick.

    Args:
        session: one that `check_swap` allowed.
        policy: loaded and verified.
        migration: what to do with the carry.
        in_loop: see `InLoop`; called from another thread than the loop's.
    """
    old, history = in_loop(lambda: (session.policy, session.ring.since(0)))
    chosen = choose_migration(old.manifest, policy.manifest, migration, len(history))
    steps = 0
    if chosen == "keep":
        adopted = Adopted(policy, None, 0)
    elif chosen == "reset":
        adopted = Adopted(policy, policy.initial_carry(), NOTHING_TO_CATCH_UP, fresh=True)
    else:
        adopted, steps = _replayed(session.id, policy, policy.initial_carry(), history, 0)
    while (from_seq := in_loop(partial(_offer, session, adopted))) is None:
        # Ticks came in while replaying: catch up and offer again.
        assert adopted.carry is not None
        more = in_loop(partial(session.ring.since, adopted.next_seq))
        adopted, steps = _replayed(session.id, policy, adopted.carry, more, steps)
    return SwapReport(session.id, old.label, policy.label, OUTCOMES[chosen], steps, from_seq)


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


def _offer(session: Session, adopted: Adopted) -> int | None:
    """The seq from which the policy will act; None if it is too far behind."""
    return session.next_seq if offer_swap(session, adopted) else None
