"""The daemon's answer to one observation, as a robot sees it."""

import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from runtime.messages import (
    HEADER_SIZE,
    ActionFlag,
    Adaptation,
    Header,
    Kind,
    Limit,
)

_ACTION = Header(Kind.ACTION, 0, 0, 0, 0).pack()[:6]
"""How every action message begins: magic, version, kind."""
_FIELDS = struct.Struct("<HQQQ4xIHH2xHIIB7x")  # the rest of the header, without status and reward
_FLOAT32 = np.dtype("<f4")
assert len(_ACTION) + _FIELDS.size == HEADER_SIZE

# Making an enum's member from a number takes longer than the rest of an answer together.
_limits = lru_cache(1 << 12)(Limit)
_flags = lru_cache(1 << 12)(ActionFlag)
_adaptation = lru_cache(8)(Adaptation)


class Answer(NamedTuple):
    """An action and what the daemon says about it."""

    action: np.ndarray
    """What to apply, (A,); the fallback action if the daemon was silent."""
    requested: np.ndarray
    """What the policy wanted, (A,); differs from `action` where a limit acted."""
    limits: Limit
    flags: ActionFlag
    adaptation: Adaptation
    generation: int
    """Counts the policies of this session; grows by one at each swap."""
    seq: int
    silent: bool
    """The daemon did not answer in time: `action` is the fallback."""
    queue_ns: int
    inference_ns: int


def silence(fallback: np.ndarray, seq: int) -> Answer:
    """What a robot does where no answer came."""
    nothing = (Limit(0), ActionFlag(0), Adaptation.UNADAPTED)
    return Answer(fallback, fallback, *nothing, 0, seq, True, 0, 0)


def answer_to(seq: int, reply: bytes) -> Answer | None:
    """The answer to `seq` if a sound action message is that; the quick way through a tick."""
    if reply[:6] != _ACTION or len(reply) < HEADER_SIZE:
        return None
    (
        flags, _, found, _, generation, first, second, limits, queue_ns, inference_ns, adaptation,
    ) = _FIELDS.unpack_from(reply, 6)  # fmt: skip
    if found != seq or len(reply) != HEADER_SIZE + 4 * (first + second):
        return None
    payload = np.frombuffer(reply, _FLOAT32, -1, HEADER_SIZE) if first else _NOTHING
    action, requested = (payload[:first], payload[first:]) if second else (payload, payload)
    return Answer(
        action, requested, _limits(limits), _flags(flags), _adaptation(adaptation),
        generation, seq, False, queue_ns, inference_ns,
    )  # fmt: skip


def parse_answer(reply: bytes, header: Header) -> Answer:
    """An action message as an `Answer`."""
    answer = answer_to(header.seq, reply)
    assert answer is not None, "the header is not of this action message"
    return answer


_NOTHING = np.empty(0, np.float32)
