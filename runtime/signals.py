"""What signals ask of the daemon: to stop, or to read its configuration again."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Signals:
    """SIGTERM and SIGINT ask for a stop, SIGHUP for a reload, from the start to the end.

    To a service manager a process that SIGHUP ended has ended in order: it would not be started
    again.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)
    """One that is asked for during the start is carried out after it."""
    wake: Callable[[], None] | None = None
    """Makes who serves look at the events now; None as long as nobody does."""

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to them while inside; on the main thread."""
        asked = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload}
        previous = {number: signal.signal(number, act) for number, act in asked.items()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, *_: Any) -> None:
        self.stop.set()
        if self.wake is None:  # a start may take minutes, and has nothing to lose
            raise SystemExit(0)
        self.wake()

    def _reload(self, *_: Any) -> None:
        self.reload.set()
        if self.wake is not None:
            self.wake()
