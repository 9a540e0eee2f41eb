"""The tick's two ends: an observation out of its bytes, and an action into its."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.guard import all_finite
from runtime.messages import (
    HEADER_SIZE,
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
_ACTION, _OK = int(Kind.ACTION), int(Code.OK)


class Observation(NamedTuple):
    """A checked observation, batch of one."""

    header: Header
    obs: NDArray[np.float32]  # (1, O)
    applied: NDArray[np.float32] | None  # (1, A), as the robot reports it


def check_observation(frame: bytes, header: Header, session: Session) -> Observation:
    """The observation in a frame, as the session's policy takes it.

    Raises:
        FrameError: a vector is of another length, or a number is not finite.
    """
    manifest = session.policy.manifest
    if header.first != manifest.obs_size:
        raise FrameError(
            Code.WRONG_SIZE,
            f"an observation of {header.first} numbers: {session.policy.label} takes "
            f"{manifest.obs_size}",
        )
    echoed = bool(header.flags & _APPLIED_ACTION)
    if header.second != (manifest.action_size if echoed else 0):
        raise FrameError(
            Code.WRONG_SIZE,
            f"an applied action of {header.second} numbers: {session.policy.label} takes "
            f"{manifest.action_size}, announced by its flag",
        )
    payload = np.frombuffer(frame, np.float32, offset=HEADER_SIZE)
    if not (all_finite(payload) and math.isfinite(header.reward)):
        raise FrameError(Code.NOT_FINITE, f"the {_not_finite(payload, header, session)}")
    obs, applied = payload[: header.first], payload[header.first :]
    return Observation(header, obs[None], applied[None] if echoed else None)


def _not_finite(payload: NDArray[np.float32], header: Header, session: Session) -> str:
    """Which number is the trouble, in words."""
    if not math.isfinite(header.reward):
        return f"previous reward is {header.reward}"
    i = int(np.flatnonzero(~np.isfinite(payload))[0])
    manifest = session.policy.manifest
    names = [f"observation {e.name!r}" for e in manifest.observation]
    names += [f"applied action {e.name!r}" for e in manifest.action]
    return f"{names[i]} is {payload[i]}"


def action_frame(
    session: Session,
    seq: int,
    flags: int,
    action: NDArray[np.float32],
    requested: NDArray[np.float32],
    limits: int,
    time_ns: int,
    queue_ns: int,
    inference_ns: int,
) -> bytes:
    """The reply: the action applied, and the one requested where a limit acted."""
    payload = action.tobytes()
    if limits:
        payload += requested.tobytes()
    size = action.shape[-1]
    header = Header(
        _ACTION, flags, session.id, seq, time_ns,
        generation=session.generation, first=size, second=size if limits else 0,
        status=_OK, limits=limits, queue_ns=min(queue_ns, 0xFFFFFFFF),
        inference_ns=min(inference_ns, 0xFFFFFFFF), adaptation=session.monitor.status,
    )  # fmt: skip
    return header.pack() + payload


def repeated(reply: bytes) -> bytes:
    """The same answer, marked as repeated."""
    header = unpack(reply)
    header = header._replace(flags=header.flags | ActionFlag.REPEATED)
    return header.pack() + reply[HEADER_SIZE:]
