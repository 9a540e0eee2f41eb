"""A session as it goes on, in the form of a recorded one."""

import time
from collections import deque
from typing import Any

from runtime.errors import InvalidConfig
from runtime.onlooker import Onlooker
from runtime.recording.ticks import RecordedSession, RecordedTick
from runtime.spec import Manifest
from runtime.tap import MOST_EVENTS, Tick

MOST_TICKS = 500_000
"""Kept in memory of one session."""


class LiveSession:
    """Keeps the last ticks of a session as they come from the tap."""

    def __init__(self, session: int, last_s: float):
        """
        Args:
            session: which.
            last_s: how long ticks are kept.
        """
        self._kept_ns = round(1e9 * last_s)
        self._ticks: deque[RecordedTick] = deque(maxlen=MOST_TICKS)
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self._session = session
        self._events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)

    def tick(self, tick: Tick, policy: str | None, manifest: Manifest | None) -> None:
        """A tick of this session, and the policy that made it if known."""
        found = recorded(tick, policy, tick.received_ns + self._wall_offset_ns)
        self._ticks.append(found)
        while found.at_ns - self._ticks[0].at_ns > self._kept_ns:
            self._ticks.popleft()

    def event(self, event: dict[str, Any]) -> None:
        """What else happened to it."""
        self._events.append(event)

    def session(self, onlooker: Onlooker) -> RecordedSession:
        """What was kept, with what the onlooker knows of the policies.

        Raises:
            InvalidConfig: nothing was.
        """
        if not self._ticks:
            raise InvalidConfig(f"session {self._session} made no tick while it was looked at")
        known = {t.generation: onlooker.label(self._session, t.generation) for t in self._ticks}
        ticks = [t._replace(policy=t.policy or known[t.generation]) for t in self._ticks]
        where = f"session {self._session}"
        return RecordedSession(
            self._session, where, ticks, list(self._events), manifests=onlooker.manifests
        )


def recorded(tick: Tick, policy: str | None, at_ns: int) -> RecordedTick:
    """A tick from the tap as a recording would have it.

    Args:
        tick: as it came.
        policy: that made it, if known.
        at_ns: wall clock, ns since 1970.
    """
    answer = tick.answer
    return RecordedTick(
        tick.seq, at_ns, tick.observation, tick.echo, tick.flags, tick.sent_ns, tick.reward,
        tick.received_ns, answer.requested, answer.action, int(answer.limits), int(answer.flags),
        answer.generation, policy, tick.belief, int(answer.adaptation), answer.queue_ns / 1000,
        answer.inference_ns / 1000,
    )  # fmt: skip
