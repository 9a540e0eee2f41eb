"""A session changes its policy: the switch between two ticks, and the new one's probation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from runtime.companion import CLAMPED
from runtime.guard import limited
from runtime.memory import Bytes
from runtime.messages import Limit
from runtime.replay import replay
from runtime.sessions import Adopted, Session

log = structlog.get_logger()

CATCH_UP_STEPS = 8
"""Most transitions that a tick steps through a new policy before its own."""
_BLEND = int(Limit.BLEND)


class FailedSwap(NamedTuple):
    """A policy that was sent back, and why."""

    policy: str
    sentence: str


def is_behind(session: Session, adopted: Adopted) -> bool:
    """Whether a carry lacks more transitions than a tick would step through on the way."""
    if adopted.fresh:
        return False
    missing = session.memory.ring_count - adopted.position
    return missing > CATCH_UP_STEPS or session.memory.lost(adopted.position)


def take_swap(session: Session) -> Callable[[], None] | None:
    """Let the policy that is ready take over, its carry brought up to the last tick.

    Returns:
        A function that undoes it; None if it failed and nothing has changed.
    """
    ready, session.ready = session.ready, None
    assert ready is not None
    try:
        behind = session.memory.since(ready.position)
        if ready.candidate:
            carry = _candidates_carry(session, ready)
        elif ready.carry is None:
            carry = session.carry
        else:
            policy = ready.stepper.policy
            carry = replay(policy, session.id, behind, ready.carry, ready.options)
        ready.memory.extend(behind)
        return session.adopt(ready, carry)
    except Exception:
        log.exception("swap_failure", **session.about)
        ready.memory.free()
        return None


def _candidates_carry(session: Session, ready: Adopted) -> Sequence[Bytes]:
    candidate = session.companion
    if candidate is None or candidate.stepper is not ready.stepper or candidate.broken:
        raise RuntimeError("the candidate that was to take over is gone")
    return candidate.carry


def fails_at_once(session: Session) -> bool:
    """Whether an output that is not finite brings the policy before back."""
    companion = session.companion
    return (
        session.probation is not None
        and companion is not None
        and companion.memory is not None
        and not companion.broken
    )


def after_step(
    session: Session, limits: int, healthy: bool, inference_ns: int
) -> FailedSwap | None:
    """Judge a policy on probation by a tick that is done; it may be sent back."""
    clamped = bool(limits & CLAMPED)
    if session.probation is None:
        session.note_clamped(clamped)
        return None
    sentence = session.probation.judge(limits, healthy, inference_ns)
    if sentence is not None and fails_at_once(session):
        failed = session.policy.label
        session.roll_back()
        session.swap_unsaid = True
        session.amend()
        return FailedSwap(failed, sentence)
    if session.probation.left <= 0:
        session.end_probation()
    return None


def blended(
    session: Session, requested: NDArray[np.float32], reference: NDArray[np.float32] | None
) -> tuple[bytes, int]:
    """An action on the way from the policy before to the new one, and the limits that acted."""
    weight = np.float32(1 - session.blend_left / (session.blend_ticks + 1))
    session.blend_left -= 1
    new = limited(requested, None, session.limits)
    companion = session.companion
    if companion is None or companion.action is None or companion.broken:
        final = limited(requested, reference, session.limits)
        return final.action.tobytes(), final.limits
    mixed = companion.action + weight * (new.action - companion.action)
    final = limited(mixed.astype(np.float32), reference, session.limits)
    return final.action.tobytes(), new.limits | final.limits | _BLEND
