"""Changing a session's policy between two ticks, its memory kept, rebuilt or reset.

Everything slow happens on the caller's thread: the loop's thread only copies recent
transitions, steps the last few of them and switches.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

from runtime.loop import offer_swap, run_step
from runtime.policy import Arrays, Policy
from runtime.sessions import Adopted, Session
from runtime.spec import ActionElement, Element, Manifest

NOTHING_TO_CATCH_UP = 2**64 - 1
Migration = Literal["auto", "keep", "replay", "reset"]
T = TypeVar("T")
InLoop = Callable[[Callable[[], T]], T]
"""Runs a function between two ticks, on the loop's thread, and gives its result."""


class Incompatible(Exception):
    """Two policies that cannot follow each other in one session, and why."""


class SwapReport(NamedTuple):
    """What a swap does to one session."""

    session: int
    old: str
    new: str
    carry: Literal["kept", "replayed", "reset"]
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
    if chosen == "keep":
        adopted, steps = Adopted(policy, None, 0), 0
    elif chosen == "reset":
        adopted, steps = Adopted(policy, policy.initial_carry(), NOTHING_TO_CATCH_UP), 0
    else:
        adopted, steps = _replay(session, policy, history, in_loop)
    report = in_loop(lambda: _offer(session, adopted, old, chosen, steps))
    while report is None:  # ticks came in while replaying: catch up and offer again
        more = in_loop(lambda: session.ring.since(adopted.next_seq))
        carry = adopted.carry if adopted.carry is not None else policy.initial_carry()
        adopted = _advance(session.id, policy, carry, adopted.next_seq, more)
        steps += len(more)
        report = in_loop(lambda: _offer(session, adopted, old, chosen, steps))
    return report


def _replay(
    session: Session, policy: Policy, history: list, in_loop: InLoop
) -> tuple[Adopted, int]:
    start = in_loop(lambda: session.next_seq) if not history else history[0].seq
    return _advance(session.id, policy, policy.initial_carry(), start, history), len(history)


def _advance(
    session_id: int, policy: Policy, carry: Arrays, next_seq: int, history: list
) -> Adopted:
    for transition in history:
        carry = run_step(policy, session_id, transition, carry).carry
        next_seq = transition.seq + 1
    return Adopted(policy, carry, next_seq)


def _offer(
    session: Session, adopted: Adopted, old: Policy, chosen: Migration, steps: int
) -> SwapReport | None:
    if not offer_swap(session, adopted):
        return None
    names = {"keep": "kept", "replay": "replayed", "reset": "reset"}
    done = names[chosen]
    return SwapReport(
        session.id, old.label, adopted.policy.label, done, steps, session.next_seq  # type: ignore[arg-type]
    )
