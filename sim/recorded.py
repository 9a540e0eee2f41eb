"""A recorded robot: its observations once more, into a live daemon."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from runtime.client import Answer, Client, Session
from runtime.errors import InvalidRecording
from runtime.messages import ObservationFlag
from runtime.recording.ticks import RecordedSession, RecordedTick

_EPISODE_START, _NEW_TASK, _INVALID = (
    ObservationFlag.EPISODE_START, ObservationFlag.NEW_TASK, ObservationFlag.INVALID,
)  # fmt: skip


class Echo(NamedTuple):
    """A recorded tick and the live daemon's answer to its observation."""

    recorded: RecordedTick
    answer: Answer

    @property
    def same(self) -> bool:
        """Whether the policy wanted the same, to the bit."""
        return self.answer.requested.tobytes() == self.recorded.requested.tobytes()

    @property
    def difference(self) -> float:
        """Largest one of an element of the requested action."""
        return float(np.abs(self.answer.requested - self.recorded.requested).max(initial=0.0))


def open_again(client: Client, recorded: RecordedSession, policy: str | None) -> Session:
    """A session for a recorded robot: of the same id, on which noise depends, if that is free.

    Args:
        client: connected to the daemon.
        recorded: the session.
        policy: name or name@version; None for the first one of the recording.

    Raises:
        InvalidRecording: it does not say which policy acted, and none is named.
        ProtocolError, TimeoutError: as `Client.open`.
    """
    label = policy or recorded.policy_of(recorded.ticks[0])
    if label is None:
        raise InvalidRecording(
            f"{recorded.where} does not say which policy acted: name one by --policy"
        )
    session = client.open(label, recorded.session)
    if session.resumed:  # somebody's session has that id
        session = client.open(label)
    if session.next_seq == 0:
        session.next_seq = recorded.ticks[0].seq
    return session


def send_again(
    recorded: RecordedSession, session: Session, rate_hz: float | None = None
) -> Iterator[Echo]:
    """Send the recorded observations, with what the robot had really applied.

    Args:
        recorded: the session.
        session: where to send them.
        rate_hz: observations per second; as fast as answers come if None.
    """
    deadline, applied = time.monotonic(), None
    for tick in recorded.ticks:
        flags = tick.observation_flags
        session.next_seq = max(session.next_seq, tick.seq)
        answer = session.step(
            tick.observation, tick.reward, tick.echo if tick.echo.size else applied,
            bool(flags & _EPISODE_START), bool(flags & _NEW_TASK), invalid=bool(flags & _INVALID),
        )  # fmt: skip
        applied = tick.applied
        yield Echo(tick, answer)
        if rate_hz:
            deadline = max(deadline + 1 / rate_hz, time.monotonic() - 1 / rate_hz)
            time.sleep(max(0.0, deadline - time.monotonic()))
