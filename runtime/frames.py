"""The tick's two ends: an observation out of its bytes, and an action into its."""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.guard import all_finite
from runtime.messages import (
    HEADER,
    HEADER_SIZE,
    MAGIC,
    VERSION,
    ActionFlag,
    Code,
    FrameError,
    Header,
    Kind,
    ObservationFlag,
    unpack,
)
from runtime.sessions import Session

# Plain integers: an operation on an enum's member takes a microsecond.
_APPLIED_ACTION = int(ObservationFlag.APPLIED_ACTION)
_INVALID = int(ObservationFlag.INVALID)
_NOTHING = np.zeros(0, np.float32)
_ACTION, _OK = int(Kind.ACTION), int(Code.OK)
_U32 = 0xFFFFFFFF


def check_observation(frame: bytes, header: Header, session: Session) -> tuple[bytes, bytes]:
    """The observation in a frame, as the session's policy takes it.

    Returns:
        float32 (O,), and float32 (A,), the action that the robot says it applied; empty if
        it does not say.

    Raises:
        FrameError: a vector is of another length, or a number is not finite.
    """
    if header.first != session.obs_size:
        raise FrameError(
            Code.WRONG_SIZE,
            f"an observation of {header.first} numbers: {session.policy.label} takes "
            f"{session.obs_size}",
        )
    echoed = header.flags & _APPLIED_ACTION
    if header.second != (session.action_size if echoed else 0):
        raise FrameError(
            Code.WRONG_SIZE,
            f"an applied action of {header.second} numbers: {session.policy.label} takes "
            f"{session.action_size}, announced by its flag",
        )
    end = HEADER_SIZE + 4 * header.first
    # A broken sensor is why an observation is declared invalid: nothing will use its numbers.
    start = end if header.flags & _INVALID else HEADER_SIZE
    payload = np.frombuffer(frame, np.float32, offset=start) if len(frame) > start else _NOTHING
    if not (all_finite(payload) and math.isfinite(header.reward)):
        raise FrameError(Code.NOT_FINITE, f"the {_not_finite(frame, header, session)}")
    return frame[HEADER_SIZE:end], frame[end:] if echoed else b""


def _not_finite(frame: bytes, header: Header, session: Session) -> str:
    """Which number is the trouble, in words."""
    if not math.isfinite(header.reward):
        return f"previous reward is {header.reward}"
    payload = np.frombuffer(frame, np.float32, offset=HEADER_SIZE)
    i = int(np.flatnonzero(~np.isfinite(payload))[0])
    manifest = session.policy.manifest
    names = [f"observation {e.name!r}" for e in manifest.observation]
    names += [f"applied action {e.name!r}" for e in manifest.action]
    return f"{names[i]} is {payload[i]}"


def action_frame(
    session: Session,
    seq: int,
    flags: int,
    action: bytes,
    requested: NDArray[np.float32],
    limits: int,
    received_ns: int,
    queue_ns: int,
    inference_ns: int,
) -> bytes:
    """The reply: the action applied, and the one requested where a limit acted."""
    size = len(action) // 4
    header = HEADER.pack(
        MAGIC, VERSION, _ACTION, flags, session.id, seq, received_ns, 0.0, session.generation,
        size, size if limits else 0, _OK, limits, min(queue_ns, _U32), min(inference_ns, _U32),
        session.monitor.status,
    )  # fmt: skip
    return header + action + requested.tobytes() if limits else header + action


def repeated(reply: bytes) -> bytes:
    """The same answer, marked as repeated."""
    header = unpack(reply)
    header = header._replace(flags=header.flags | ActionFlag.REPEATED)
    return header.pack() + reply[HEADER_SIZE:]
