"""Preparing a session's next policy: its memory kept, rebuilt or reset, off the control path.

Everything slow happens on the caller's thread: the loop's thread only copies recent
transitions, steps the last few of them and switches (runtime/trial.py).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from runtime.history import History
from runtime.memory import Bytes
from runtime.replay import replay
from runtime.sessions import Adopted, Session
from runtime.spec import ActionElement, Element, Manifest
from runtime.state import Served
from runtime.trial import is_behind

NOTHING_TO_CATCH_UP = 2**62
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
    """The first tick that the new policy answers ..."""
    generation: int
    """... and the generation that this tick will be of."""


class Wish(NamedTuple):
    """How an operator wants policies to be changed."""

    migration: Migration = "auto"
    blend_ticks: int = 0
    probation_ticks: int = 100


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


def check_swap(session: Session, new: Manifest, migration: Migration) -> None:
    """Whether a session's policy can be swapped for this one.

    Raises:
        Incompatible: the policy cannot drive this session's robot, or adapts from a reward
            that the session does not send, or the carry cannot be kept.
    """
    if new.needs_reward and not session.sends_reward:
        raise Incompatible("it adapts from prev_reward, which the session does not send")
    check_compatible(session.policy.manifest, new)
    choose_migration(session.policy.manifest, new, migration, history=0)


def shared_options(old: Manifest, values: bytes, new: Manifest) -> bytes:
    """A new policy's options: those that the old one has too keep their values."""
    count = len(old.options)
    known = dict(
        zip((o.name for o in old.options), struct.unpack(f"<{count}f", values), strict=True)
    )
    chosen = [known.get(o.name, o.default) for o in new.options]
    inside = [
        v if o.low <= v <= o.high else o.default for v, o in zip(chosen, new.options, strict=True)
    ]
    return struct.pack(f"<{len(inside)}f", *inside)


@dataclass
class _Plan:
    """One session's swap while it is prepared."""

    session: Session
    served: Served
    wish: Wish
    adopted: Adopted
    chosen: Migration
    steps: int
    old_label: str
    old_stepper: Any

    def report(self) -> SwapReport:
        labels = self.old_label, self.served.policy.label
        seq = self.session.next_seq
        generation = self.session.generation + 1
        outcome = OUTCOMES[self.chosen]
        return SwapReport(self.session.id, *labels, outcome, self.steps, seq, generation)


def swap_sessions(
    policies: list[tuple[Session, Served]], wish: Wish, in_loop: InLoop
) -> list[SwapReport]:
    """Make each session's new policy take over at its next tick; all of them, or none.

    Args:
        policies: sessions with the loaded and verified policy that each is to get.
        wish: of the operator.
        in_loop: see `InLoop`; called from another thread than the loop's.

    Raises:
        Incompatible: a policy cannot drive its session's robot, or a carry not be kept.
        NoRoom: the state folder is full.
    """
    _check_all(policies, wish.migration)
    plans: list[_Plan] = []
    try:
        for session, served in policies:
            plans.append(_prepare(session, served, wish, in_loop))
        while True:
            reports, late = in_loop(partial(_offer_all, plans))
            if reports is not None:
                return reports
            for plan in late:  # ticks came in while others were prepared
                _catch_up(plan, in_loop)
    except BaseException:
        for plan in plans:
            plan.adopted.memory.free()
        raise


def _check_all(policies: list[tuple[Session, Served]], migration: Migration) -> None:
    for session, served in policies:
        try:
            check_swap(session, served.policy.manifest, migration)
        except Incompatible as error:
            raise Incompatible(
                f"{served.policy.label} cannot take over session {session.id}: {error}"
            ) from None


class Seen(NamedTuple):
    """A session as it was between two ticks."""

    stepper: Any
    options: bytes
    history: History
    position: int


def look(session: Session) -> Seen:
    memory = session.memory
    return Seen(session.stepper, session.options, memory.since(0), memory.ring_count)


def _prepare(session: Session, served: Served, wish: Wish, in_loop: InLoop) -> _Plan:
    """Decide on the carry and, for a replay, compute it; write the history to a record."""
    seen: Seen = in_loop(partial(look, session))
    old, new = seen.stepper.policy, served.policy
    chosen = choose_migration(old.manifest, new.manifest, wish.migration, len(seen.history))
    options = shared_options(old.manifest, seen.options, new.manifest)
    memory = served.slab.allocate()
    memory.claim(session.id, old.label, session.owner)
    carry: Sequence[Bytes] | None = None
    position, steps = seen.position, 0
    if chosen == "reset":
        carry, position = served.stepper.prior, NOTHING_TO_CATCH_UP
    else:
        memory.extend(seen.history)
    if chosen == "replay":
        carry = replay(new, session.id, seen.history, served.stepper.prior, options)
        steps = len(seen.history)
    adopted = Adopted(
        served.stepper, memory, carry, position, options, fresh=chosen == "reset",
        blend_ticks=wish.blend_ticks, probation_ticks=wish.probation_ticks,
    )  # fmt: skip
    return _Plan(session, served, wish, adopted, chosen, steps, old.label, seen.stepper)


def _catch_up(plan: _Plan, in_loop: InLoop) -> None:
    """Step the transitions that came since; from the start if another policy or a loop of the
    ring came between."""
    session, adopted = plan.session, plan.adopted
    same, lost, more, position = in_loop(
        lambda: (
            session.stepper is plan.old_stepper,
            session.memory.lost(adopted.position),
            session.memory.since(adopted.position),
            session.memory.ring_count,
        )
    )
    if not same or lost or plan.chosen == "reset":
        adopted.memory.free()
        fresh = _prepare(session, plan.served, plan.wish, in_loop)
        plan.__dict__.update(fresh.__dict__)
        return
    carry = adopted.carry
    if carry is not None:
        carry = replay(plan.served.policy, session.id, more, carry, adopted.options)
        plan.steps += len(more)
    adopted.memory.extend(more)
    plan.adopted = adopted._replace(carry=carry, position=position)


def _offer_all(plans: list[_Plan]) -> tuple[list[SwapReport] | None, list[_Plan]]:
    """Make all policies ready at once, or none and say which are late. In the loop."""
    late = [
        p
        for p in plans
        if p.session.stepper is not p.old_stepper or is_behind(p.session, p.adopted)
    ]
    if late:
        return None, late
    for plan in plans:
        offer(plan.session, plan.adopted)
    return [plan.report() for plan in plans], []


def offer(session: Session, adopted: Adopted) -> None:
    """Make a policy ready for a session's next tick, in place of one that waits. In the loop."""
    if session.ready is not None:
        session.ready.memory.free()
    session.ready = adopted


def cancel_swap(session: Session) -> SwapReport | None:
    """Take back a swap that no tick has taken yet; None if there is none. In the loop."""
    if session.ready is None:
        return None
    waiting, session.ready = session.ready, None
    waiting.memory.free()
    labels = waiting.stepper.policy.label, session.policy.label
    return SwapReport(session.id, *labels, "kept", 0, session.next_seq, session.generation)
