"""The reference's words for observations and answers, and how they look on the wire."""

from typing import NamedTuple

import numpy as np

from runtime.messages import (
    HEADER_SIZE,
    ActionFlag,
    Header,
    Kind,
    Limit,
    ObservationFlag,
    unpack,
)

MASKED = ActionFlag.REPEATED | ActionFlag.SUPERSEDED
"""Flags that say how an observation came, and nothing of what it did."""


class Told(NamedTuple):
    """An observation as it was sent."""

    seq: int
    obs: np.ndarray  # (O,)
    reward: float
    flags: int
    applied: np.ndarray | None  # (A,)
    sent_ns: int


class Heard(NamedTuple):
    """Those parts of an answer that time decides."""

    received_ns: int
    inference_ns: int
    stale: bool


class Expected(NamedTuple):
    """All other parts of it."""

    flags: int
    limits: int
    generation: int
    adaptation: int
    action: bytes
    requested: bytes


def frame(session: int, told: Told) -> bytes:
    """An observation's bytes."""
    applied = b"" if told.applied is None else told.applied.tobytes()
    flags = told.flags | (ObservationFlag.APPLIED_ACTION if applied else 0)
    sizes = {"first": len(told.obs), "second": len(applied) // 4}
    header = Header(Kind.OBSERVATION, flags, session, told.seq, told.sent_ns, told.reward, **sizes)
    return header.pack() + told.obs.tobytes() + applied


def unmarked(reply: bytes) -> bytes:
    """An answer without what says how its observation came."""
    header = unpack(reply)
    return header._replace(flags=header.flags & ~MASKED).pack() + reply[HEADER_SIZE:]


def parsed(reply: bytes) -> tuple[Expected, Heard]:
    """An answer as the reference gives it."""
    header, floats = unpack(reply), reply[HEADER_SIZE:]
    action, requested = floats[: 4 * header.first], floats[4 * header.first :]
    flags = header.flags & ~MASKED
    stale = bool(header.limits & Limit.STALE)
    return (
        Expected(
            flags, header.limits, header.generation, header.adaptation, action,
            requested or action,
        ),
        Heard(header.time_ns, header.inference_ns, stale),
    )  # fmt: skip
