"""A session's outgoing frame: laid out once, and each tick writes what differs."""

import struct
from typing import Any

import numpy as np

from runtime.errors import ProtocolError
from runtime.messages import HEADER_SIZE, Header, Kind, ObservationFlag

# Plain integers: combining an enum's members takes longer than the rest of a frame together.
EPISODE_START = int(ObservationFlag.EPISODE_START)
NEW_TASK = int(ObservationFlag.NEW_TASK)
INVALID = int(ObservationFlag.INVALID)
_APPLIED_ACTION = int(ObservationFlag.APPLIED_ACTION)
MAX_REWARD = float(np.finfo(np.float32).max)

_TOLD = struct.Struct("<HQQQf4xHH")  # the header from its flags to its lengths
_TOLD_AT = 6


class ObservationFrame:
    """Writes observation messages of one session into one buffer."""

    def __init__(self, session: int, observed: int, acted: int, policy: str):
        """
        Args:
            session: its id.
            observed, acted: how many numbers an observation and an action have.
            policy: named where an observation does not fit it.
        """
        self._session, self._sizes, self._policy = session, (observed, acted), policy
        header = Header(Kind.OBSERVATION, 0, session, 0, 0).pack()
        self._buffer = bytearray(header) + bytes(4 * (observed + acted))
        payload = np.frombuffer(self._buffer, "<f4", offset=HEADER_SIZE)
        self._observed, self._applied = payload[:observed], payload[observed:]
        self._long = memoryview(self._buffer)
        self._short = self._long[: HEADER_SIZE + 4 * observed]

    def write(
        self,
        seq: int,
        flags: int,
        now_ns: int,
        observation: Any,
        reward: float,
        applied_action: Any | None,
    ) -> memoryview:
        """The frame of one tick; the next one is written over it.

        Args:
            seq: of the tick.
            flags: its boundaries, and whether it is invalid.
            now_ns: the sender's monotonic time.
            observation: (O,).
            reward: of the step that led here.
            applied_action: (A,), or None for the last answer's.

        Raises:
            ProtocolError: a vector of the wrong size, or a reward that float32 does not hold.
        """
        if not -MAX_REWARD <= reward <= MAX_REWARD:
            raise ProtocolError("NOT_FINITE", f"the previous reward is {reward}")
        observed, acted = self._sizes
        if type(observation) is np.ndarray and observation.shape == (observed,):
            self._observed[:] = observation
        else:
            self._observed[:] = self._vector("observation", observation, observed)
        if applied_action is None:
            told = (flags, self._session, seq, now_ns, reward, observed, 0)
            _TOLD.pack_into(self._buffer, _TOLD_AT, *told)
            return self._short
        self._applied[:] = self._vector("applied action", applied_action, acted)
        told = (flags | _APPLIED_ACTION, self._session, seq, now_ns, reward, observed, acted)
        _TOLD.pack_into(self._buffer, _TOLD_AT, *told)
        return self._long

    def _vector(self, what: str, values: Any, size: int) -> np.ndarray:
        vector = np.ascontiguousarray(values, np.float32).ravel()
        if vector.size != size:
            raise ProtocolError(
                "WRONG_SIZE",
                f"an {what} of {vector.size} numbers: {self._policy} takes {size}",
            )
        return vector
