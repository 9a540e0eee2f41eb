"""Looking on: every tick that a daemon makes, as it publishes them."""

import json
import math
import time
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from runtime.answer import Answer, parse_answer
from runtime.messages import HEADER_SIZE, ActionFlag, Header, Kind, ObservationFlag, unpack

MOST_AT_ONCE = 1000
"""Messages that one call gives at most, so that a flood does not keep it for ever."""
MOST_EVENTS = 1000
_GAP = int(ActionFlag.GAP)
_APPLIED_ACTION = int(ObservationFlag.APPLIED_ACTION)
FRAMES_OF_TICK, FRAMES_OF_EVENT = 4, 2
Frames = list[bytes]
"""Of a tick: the session, the observation, the answer, the belief. Of an event: the session
and JSON."""


class Tick(NamedTuple):
    """One tick as seen on the tap."""

    session: int
    seq: int
    observation: np.ndarray
    """(O,), as the robot sent it."""
    answer: Answer
    belief: np.ndarray
    """All belief outputs in the manifest's order, flattened; empty where no step was made."""
    flags: int
    """Of the observation: `ObservationFlag`."""
    reward: float
    """Of the step that led here."""
    echo: np.ndarray
    """(A,), the action that the robot says it applied since the last tick; empty if it does
    not say."""
    sent_ns: int
    """Sender's monotonic clock."""
    received_ns: int
    """Daemon's monotonic clock."""


class Continuity:
    """Counts the ticks that an onlooker did not get to see.

    A tap drops what a subscriber is too slow to take; the numbers that the robot itself
    left out are marked by the daemon and do not count.
    """

    def __init__(self) -> None:
        self.missed: dict[int, int] = {}
        """Ticks by session."""
        self._next: dict[int, int] = {}

    def note(self, session: int, seq: int, flags: int) -> int:
        """Take a tick in; how many of its session were missed just before it.

        Args:
            session, seq: of the tick.
            flags: of its answer, `ActionFlag`.
        """
        expected = self._next.get(session, seq)
        self._next[session] = seq + 1
        if seq <= expected or flags & _GAP:  # a session of the same id may begin again
            return 0
        self.missed[session] = self.missed.get(session, 0) + seq - expected
        return seq - expected


class Tap:
    """Every tick that the daemon makes, for looking on."""

    def __init__(self, socket: Any):
        self._socket = socket
        self.refused = 0
        """Observations from the stream plane that the daemon refused: no tick was made of them."""
        self.last_refusal = ""
        """Why, the last time."""
        self.continuity = Continuity()
        """What this onlooker was too slow to see, or was not connected for."""
        self.events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        """What else happened to sessions (docs/events.md), oldest first; take them out."""

    @property
    def missed(self) -> int:
        """Ticks that were not seen, of all sessions."""
        return sum(self.continuity.missed.values())

    def follow(self, session: int | None) -> None:
        """Listen to one more session; None: to all."""
        self._socket.subscribe(_topic(session))

    def leave(self, session: int | None) -> None:
        """Listen to a session no more; None: only to those that are followed by their id."""
        self._socket.unsubscribe(_topic(session))

    def messages(self, timeout_s: float = 0.0) -> list[Frames]:
        """The messages that have come, undecoded, waiting up to `timeout_s` for the first.

        At most `MOST_AT_ONCE`: if there are as many, more may wait.
        """
        found: list[Frames] = []
        wait_ms = math.ceil(1000 * timeout_s)
        while len(found) < MOST_AT_ONCE and self._socket.poll(0 if found else wait_ms):
            found.append(self._socket.recv_multipart())
        return found

    def ticks(self, timeout_s: float = 0.0) -> list[Tick]:
        """The ticks that have come, waiting up to `timeout_s` for the first.

        Events that come between are put into `events`, what was missed is counted.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            decoded = [self.decode(frames) for frames in self.messages(left_s)]
            found = [tick for tick in decoded if tick is not None]
            if found or not left_s:  # an event that came alone is not what was waited for
                return found

    def decode(self, frames: Frames) -> Tick | None:
        """The tick in a message; None if it is an event or a refusal, which are kept here."""
        if len(frames) == FRAMES_OF_EVENT:
            self.events.append(event_of(frames))
            return None
        _, observation, reply, belief = frames
        header = unpack(reply)
        if header.kind != Kind.ACTION:
            self.refused += 1
            self.last_refusal = reply[HEADER_SIZE:].decode(errors="replace")
            return None
        self.continuity.note(header.session, header.seq, header.flags)
        return tick_of(observation, reply, header, belief)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _topic(session: int | None) -> bytes:
    return b"" if session is None else session.to_bytes(8, "little")


def event_of(frames: Frames) -> dict[str, Any]:
    """The JSON object of an event."""
    return json.loads(frames[1])


def tick_of(observation: bytes, reply: bytes, header: Header, belief: bytes) -> Tick:
    """A tick from its frames.

    Args:
        observation: as received.
        reply: the action as sent, and `header` its header.
        belief: float32.
    """
    seen = unpack(observation)
    numbers = np.frombuffer(observation, np.float32, offset=HEADER_SIZE)
    echo = numbers[seen.first :] if seen.flags & _APPLIED_ACTION else numbers[:0]
    return Tick(
        header.session, header.seq, numbers[: seen.first], parse_answer(reply, header),
        np.frombuffer(belief, np.float32), seen.flags, seen.reward, echo, seen.time_ns,
        header.time_ns,
    )  # fmt: skip
