"""A second policy beside a session's own: a candidate in the shadow, an incumbent after a swap."""

from functools import partial
from typing import Any, NamedTuple

from runtime.companion import Companion
from runtime.replay import replay
from runtime.sessions import Adopted, Session
from runtime.state import Served
from runtime.swap import (
    Incompatible,
    InLoop,
    Seen,
    SwapReport,
    Wish,
    check_swap,
    look,
    offer,
    shared_options,
)
from runtime.trial import CATCH_UP_STEPS


def return_incumbent(session: Session) -> SwapReport | None:
    """Let the incumbent come back at once, if one runs along. In the loop."""
    companion = session.companion
    if companion is None or companion.memory is None or companion.broken:
        return None
    old = session.policy.label
    session.roll_back()
    session.swap_unsaid = True
    session.amend()
    labels, generation = (old, session.policy.label), session.generation
    return SwapReport(session.id, *labels, "kept", 0, session.next_seq, generation)


def bring_incumbent(session: Session, served: Served) -> None:
    """Let the policy before run along again, after a restart in the middle of a probation.

    Its memory is rebuilt from the recent transitions. In the loop, or before it runs.
    """
    history, policy = session.memory.since(0), served.policy
    options = shared_options(session.policy.manifest, session.options, policy.manifest)
    carry = replay(policy, session.id, history, served.stepper.prior, options)
    memory = served.slab.allocate()
    memory.claim(session.id, "", session.owner)
    memory.extend(history)
    position = session.memory.ring_count
    session.companion = Companion(served.stepper, carry, options, memory, position)


class ShadowReport(NamedTuple):
    """A candidate that runs along."""

    about: dict[str, Any]
    """`Session.about` as it began."""
    replayed_steps: int
    """How many recent transitions its memory was rebuilt from."""


def shadow_session(session: Session, served: Served, in_loop: InLoop) -> ShadowReport:
    """Let a policy run along on a session's observations, its actions compared and not sent.

    Raises:
        Incompatible: it could not drive this robot, or the session's policy is on probation.
    """
    check_swap(session, served.policy.manifest, "auto")
    seen: Seen = in_loop(partial(look, session))
    policy = served.policy
    options = shared_options(seen.stepper.policy.manifest, seen.options, policy.manifest)
    carry = replay(policy, session.id, seen.history, served.stepper.prior, options)
    steps, position = len(seen.history), seen.position

    def begin() -> ShadowReport | None:
        if session.probation is not None:
            raise Incompatible(
                f"session {session.id} swapped lately: its policy is on probation for "
                f"{session.probation.left} ticks more"
            )
        if session.memory.ring_count - position > CATCH_UP_STEPS:
            return None
        behind = session.memory.since(position)
        now = replay(policy, session.id, behind, carry, options)
        session.companion = Companion(served.stepper, now, options)
        return ShadowReport(session.about, steps + len(behind))

    while (report := in_loop(begin)) is None:
        more, position = in_loop(
            lambda: (session.memory.since(position), session.memory.ring_count)  # noqa: B023
        )
        carry = replay(policy, session.id, more, carry, options)
        steps += len(more)
    return report


def promote_session(session: Session, served: Served, wish: Wish, in_loop: InLoop) -> SwapReport:
    """Make a session's shadow candidate take over, with the memory it has by then.

    Args:
        session: with a candidate in the shadow.
        served: the candidate's policy.
        wish: of the operator; the migration is not looked at.
        in_loop: see `InLoop`.
    """
    seen: Seen = in_loop(partial(look, session))
    memory = served.slab.allocate()
    memory.claim(session.id, seen.stepper.policy.label, session.owner)
    memory.extend(seen.history)
    adopted = Adopted(
        served.stepper, memory, None, seen.position, session.options, candidate=True,
        blend_ticks=wish.blend_ticks, probation_ticks=wish.probation_ticks,
    )  # fmt: skip

    def ready() -> SwapReport:
        companion = session.companion
        if companion is None or companion.stepper is not served.stepper or companion.broken:
            memory.free()
            why = companion.broken if companion is not None else "it is gone"
            raise Incompatible(f"the candidate of session {session.id} cannot take over: {why}")
        offer(session, adopted._replace(options=companion.options))
        labels = session.policy.label, companion.label
        seq, generation = session.next_seq, session.generation + 1
        return SwapReport(session.id, *labels, "kept", companion.ticks, seq, generation)

    return in_loop(ready)
