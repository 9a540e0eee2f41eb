"""The daemon: start, serve, stop.

Two threads. The main thread owns the data plane and all sessions and ticks them. The
control thread answers requests and does the slow work, such as loading a bundle; what
touches sessions it hands to the main thread, which runs it between two ticks.
"""

import gc
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from runtime.config import ServeConfig
from runtime.control import Control
from runtime.errors import AdaptdError, InvalidConfig
from runtime.loop import Loop
from runtime.store import Store
from runtime.transport import ControlPlane, DataPlane, take_endpoint

log = structlog.get_logger()

IDLE_POLL_MS = 200
STOP_TIMEOUT_S = 2.0
SWITCH_INTERVAL_S = 0.0005
"""How long another Python thread may hold up the loop; CPython's own value is ten times that."""


class Mailbox:
    """Functions that other threads want run between two ticks."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )

    def post(self, function: Callable[[], Any]) -> "Future[Any]":
        """Ask for a function to be run; its result or exception comes through the future."""
        future: Future[Any] = Future()
        self._waiting.put((function, future))
        return future

    def run_waiting(self) -> None:
        """Run all that is waiting, on the caller's thread."""
        while not self._waiting.empty():
            function, future = self._waiting.get()
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)


class Daemon:
    """One adaptd: the sessions, their policies and the sockets."""

    def __init__(self, config: ServeConfig):
        """Load what is to be served and bind.

        Raises:
            InvalidConfig: nothing to serve, or an endpoint that cannot be bound.
            UnknownName, InvalidBundle: the default policy does not exist or is broken.
        """
        self.config = config
        self._stopping = threading.Event()
        self._mailbox = Mailbox()
        self._loop = Loop(clock=time.monotonic_ns)
        store = Store(config.models)
        default = _load_policies(store, config)
        self._lock = take_endpoint(config.endpoint)
        self._data = DataPlane(config.endpoint)
        self._control_plane = ControlPlane(self._data, config.endpoint)
        self._control = Control(
            store,
            self._loop,
            self._in_loop,
            self._stopping.set,
            lambda: self._data.dropped + self._control_plane.dropped,
            default,
            config.max_sessions,
            config.ring_size,
        )

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or a shutdown request."""
        thread = threading.Thread(target=self._serve_control, name="control", daemon=True)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()
        with _signals(self._stopping):
            thread.start()
            log.info("ready", endpoint=self.config.endpoint, pid=os.getpid())
            while not self._stopping.is_set():
                self._data.serve(self._loop.tick, time.monotonic_ns, IDLE_POLL_MS)
                self._mailbox.run_waiting()
        self._close(thread)

    def _close(self, thread: threading.Thread) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while thread.is_alive() and time.monotonic() < deadline:
            self._mailbox.run_waiting()  # a request under way may still need the loop
            thread.join(0.01)
        self._data.close()
        if thread.is_alive():  # in the middle of something slow; it ends with the process
            log.warning("control_request_abandoned")
        else:
            self._data.context.destroy(linger=200)
        if self._lock is not None:
            os.close(self._lock)
        log.info("stopped", sessions=len(self._loop.sessions))

    def _serve_control(self) -> None:
        while not self._stopping.is_set():
            self._control_plane.serve(self._control.answer, IDLE_POLL_MS)
        self._control_plane.wake_loop()
        self._control_plane.close()

    def _in_loop(self, function: Callable[[], Any]) -> Any:
        future = self._mailbox.post(function)
        self._control_plane.wake_loop()
        return future.result()


def _load_policies(store: Store, config: ServeConfig) -> str | None:
    """Load the default policy, and the others if asked; the default's reference, if any."""
    names = store.names()
    if not names:
        raise InvalidConfig(
            f"{config.models} holds no policy bundles (expected <name>/<version>/manifest.json); "
            f"choose another folder by --models"
        )
    default = config.policy or (names[0] if len(names) == 1 else None)
    if config.policy is not None:
        store.load(config.policy)
    for reference in store.references() if config.preload else []:
        try:
            store.load(reference)
        except AdaptdError as error:  # the others can still be served
            log.warning("bundle_refused", policy=reference, reason=str(error))
    return default


@contextmanager
def _signals(stopping: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for an orderly stop while inside."""
    previous = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _PatientLogger(structlog.PrintLogger):
    """Prints lines; one that nobody takes any more, or a full disk, is no reason to stop."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def configure_logging(level: str) -> None:
    """JSON lines on standard output, one per event."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lambda *_: _PatientLogger(sys.stdout),
    )
