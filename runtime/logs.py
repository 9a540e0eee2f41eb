"""What the daemon tells: JSON lines on standard output, and session events for the tap.

An event is a noun (docs/events.md lists them) with what it is about: `session`, `policy`,
`generation`, `seq`. What happens to a session goes to both, whatever the log's level, so
that a recording knows as much as the log.
"""

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

BURST = 5
"""Lines of one warning about one session that are written ..."""
BURST_S = 10.0
"""... within so long; the others are counted."""
MOST_WAITING = 4096
_LEVELS = logging.getLevelNamesMapping()


class SessionEvents:
    """A processor that keeps events about a session for the tap, as JSON.

    Any thread may log; one takes the events out.
    """

    def __init__(self) -> None:
        self.wake: Callable[[], None] = lambda: None
        """Called from any thread when there is an event to take out."""
        self._waiting: deque[tuple[int, bytes]] = deque(maxlen=MOST_WAITING)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if "session" in event:
            said = {k: v for k, v in event.items() if k != "exc_info"}
            line = json.dumps(
                {**said, "level": method, "time_ns": time.monotonic_ns()}, default=str
            )
            self._waiting.append((event["session"], line.encode()))
            self.wake()
        return event

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> list[tuple[int, bytes]]:
        """The events that wait, each with its session, oldest first."""
        found = []
        with suppress(IndexError):
            while True:
                found.append(self._waiting.popleft())
        return found


class RateLimit:
    """A processor that drops what is more than `BURST` of one warning about one session.

    The count of those dropped is on the first line after them, as `suppressed`.
    """

    def __init__(self, burst: int = BURST, period_s: float = BURST_S):
        self._burst, self._period_s = burst, period_s
        self._seen: dict[tuple[str, Any], list[float]] = {}

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if method == "info":
            return event
        now_s = time.monotonic()
        key = (event["event"], event.get("session"))
        began_s, count = self._seen.get(key, (now_s, 0))
        if now_s - began_s >= self._period_s:
            if count > self._burst:
                event["suppressed"] = int(count) - self._burst
            began_s, count = now_s, 0
            self._forget(now_s)
        self._seen[key] = [began_s, count + 1]
        if count >= self._burst:
            raise structlog.DropEvent
        return event

    def _forget(self, now_s: float) -> None:
        """Let go of warnings that ended long ago with nothing left to tell."""
        for key, (began_s, count) in list(self._seen.items()):
            if now_s - began_s > self._period_s and count <= self._burst:
                del self._seen[key]

    def overdue(self, now_s: float) -> list[dict[str, Any]]:
        """Bursts that ended without a line after them, told once: `suppression` events."""
        found = []
        for key, (began_s, count) in list(self._seen.items()):
            if now_s - began_s > self._period_s and count > self._burst:
                del self._seen[key]
                about = {} if key[1] is None else {"session": key[1]}
                found.append({"of": key[0], "suppressed": int(count) - self._burst, **about})
        return found


class _PatientLogger(structlog.PrintLogger):
    """Prints lines; one that nobody takes any more, or a full disk, is no reason to stop."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def be_silent() -> None:
    """Write no event: for a loop that only repeats what has been told already."""
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silent)


class Logging:
    """The daemon's way to tell; `configure` makes it the process's."""

    def __init__(self, level: str = "info"):
        """
        Args:
            level: least severe event that is written; the tap gets all.
        """
        self.set_level(level)
        self.events = SessionEvents()
        self._limit = RateLimit()

    def set_level(self, level: str) -> None:
        """Write no event that is less severe, from now on."""
        self._least = _LEVELS[level.upper()]

    def configure(self) -> None:
        """Let every structlog logger of the process write this way."""
        structlog.configure(
            processors=[
                self._limit,
                self.events,
                self._only_severe,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=lambda *_: _PatientLogger(sys.stdout),
        )

    def _only_severe(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if _LEVELS.get(method.upper(), logging.ERROR) < self._least:
            raise structlog.DropEvent
        return event

    def tidy(self) -> None:
        """Tell how many lines of ended bursts were not written; about once a second."""
        for facts in self._limit.overdue(time.monotonic()):
            structlog.get_logger().warning("suppression", **facts)
