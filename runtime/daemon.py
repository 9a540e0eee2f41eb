"""The daemon: start, serve, stop.

The main thread owns the data plane and all sessions and ticks them. The control thread
answers requests and does the slow work, such as loading a bundle; what touches sessions it
hands to the main thread, which runs it between two ticks. Policies that learn between
episodes do so on a third thread, and state is written through to the disk by a fourth.
"""

import gc
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np
import structlog

from runtime import realtime
from runtime.access.access import Access
from runtime.config import ServeConfig
from runtime.control import Control
from runtime.endpoint import check_endpoint, take_endpoint
from runtime.errors import AdaptdError, InvalidBundle, InvalidConfig
from runtime.learning import Learning
from runtime.logs import Logging
from runtime.loop import Loop
from runtime.quarantine import Quarantine
from runtime.registry import Registry
from runtime.services import Services
from runtime.sessions import Rules, Session
from runtime.shadow import bring_incumbent
from runtime.signing.counters import Counters
from runtime.state import StateFolder
from runtime.store import Store
from runtime.transport import ControlPlane, DataPlane, new_context
from runtime.vetting.admission import Admission
from runtime.vetting.passed import Passed
from runtime.watch import WatchLimits

log = structlog.get_logger()

IDLE_POLL_MS = 200
TIDY_EVERY_NS = 1_000_000_000
SYNC_EVERY_S = 0.1
STOP_TIMEOUT_S = 2.0
SWITCH_INTERVAL_S = 0.0001
"""How long another Python thread may hold up the loop; CPython's own value is fifty times that."""


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

    def __init__(self, config: ServeConfig, logs: Logging | None = None):
        """Load what is to be served, find the sessions that were left, and bind.

        Args:
            config: how to serve.
            logs: whose session events go to the tap; None: none do.

        Raises:
            InvalidConfig: nothing to serve, or an endpoint or state folder that cannot be used.
            UnknownName, InvalidBundle: the default policy does not exist or is broken.
        """
        self.config = config
        self._logs = logs or Logging()
        self._stopping = threading.Event()
        self._mailbox = Mailbox()
        folder = config.state_folder()
        admission = Admission.of(config, Passed(folder / "passed.json"))
        store = Store(config.models, admission)
        default = _load_policies(store, config)
        keys = config.keys.folder is not None
        self._lock = take_endpoint(config.endpoint, keys)
        # Twice: a swap, until its probation is over, and a restore take a second record.
        state = StateFolder(folder, config.ring_size, 2 * config.max_sessions)
        state.take()
        self._registry = Registry(
            _rules(config), wall_s=int(time.time()), now_ns=time.monotonic_ns()
        )
        self._registry.asleep = state.recover(store.load)
        _resume_probations(self._registry, store, state)
        self._learning = Learning(self._in_loop, self._registry, config.bundles.lesson_s)
        self._loop = Loop(
            time.monotonic_ns,
            self._registry,
            on_episode=self._learning.episode_ended,
            on_failed_swap=self._note_failed_swap,
            allow_variant_batches=config.allow_variant_batches,
        )
        self._addresses = check_endpoint(config.endpoint, keys)
        self._bind(config)
        self._logs.events.wake = self._data.wake
        self._quarantine = Quarantine(folder / "quarantine.json")
        counters = Counters.read(
            folder / "counters.json", enforced=not config.signing.allow_downgrades
        )
        self._services = Services(
            config, store, self._loop, state, self._quarantine, counters, self._in_loop,
            self._stopping.set, self._dropped, self._learning.lost, self._access, default,
        )  # fmt: skip
        self._control = Control(self._services)

    def _bind(self, config: ServeConfig) -> None:
        """Make the planes, with keys or without."""
        settings = config.realtime
        # Under SCHED_FIFO a loop that spins would keep ZeroMQ's thread off its core.
        spin_ns = 1000 * settings.spin_us if settings.priority is None else 0
        self._context = new_context(settings.patient_io)
        self._access: Access | None = None
        self._data: DataPlane
        self._control_plane: ControlPlane
        if config.keys.folder is None:
            self._data = DataPlane(self._context, self._addresses, spin_ns)
            self._control_plane = ControlPlane(self._context, self._addresses)
        else:
            self._access = Access(self._context, config.keys, self._registry, time.monotonic_ns)
            self._data, self._control_plane = self._access.bind(
                self._addresses, spin_ns, self._loop.reception
            )

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or a shutdown request.

        Raises:
            InvalidConfig: somebody without a key of the list would be let in.
        """
        if self._access is not None:
            self._access.open_door(self._addresses)
        threads = [
            threading.Thread(target=self._serve_control, name="control", daemon=True),
            self._learning.thread,
        ]
        if self.config.durable:
            threads.append(threading.Thread(target=self._sync, name="sync", daemon=True))
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        np.seterr(invalid="ignore", over="ignore")  # what is not finite is looked for
        with _signals(self._stopping):
            for thread in threads:
                thread.start()
            self._services.realtime = realtime.apply(self.config.realtime)
            gc.collect()
            gc.freeze()
            recovered = len(self._registry)
            log.info("startup", endpoint=self.config.endpoint, pid=os.getpid(), sessions=recovered)
            self._serve()
        self._close(threads[0])

    def _serve(self) -> None:
        data, loop, events, next_tidy = self._data, self._loop, self._logs.events, 0
        while not self._stopping.is_set():
            data.serve(loop.tick_all, time.monotonic_ns, IDLE_POLL_MS / 1000)
            loop.tapped = data.tapped
            self._mailbox.run_waiting()
            if events:
                data.announce(events.take())
            now = time.monotonic_ns()
            if now > next_tidy:
                next_tidy = now + TIDY_EVERY_NS
                self._registry.follow_clock(int(time.time()), now)
                self._registry.tidy(now, self.config.idle_after_s, self.config.forget_after_s)
                self._logs.tidy()

    def _close(self, control: threading.Thread) -> None:
        self._learning.stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while control.is_alive() and time.monotonic() < deadline:
            self._mailbox.run_waiting()  # a request under way may still need the loop
            control.join(0.01)
        self._data.close()
        if control.is_alive():  # in the middle of something slow; it ends with the process
            log.warning("request_abandonment")
        else:
            if self._access is not None:
                self._access.close()
            self._context.destroy(linger=200)
        if self.config.durable:
            self._services.state.sync()
        if self._lock is not None:
            os.close(self._lock)
        log.info("shutdown", sessions=len(self._registry))

    def _serve_control(self) -> None:
        while not self._stopping.is_set():
            self._control_plane.serve(self._control.answer, IDLE_POLL_MS)
            self._quarantine.save()
        self._data.wake()
        self._control_plane.close()

    def _sync(self) -> None:
        while not self._stopping.wait(SYNC_EVERY_S):
            try:
                self._services.state.sync()
            except OSError as error:
                log.warning("sync_failure", reason=error.strerror)

    def _note_failed_swap(self, session: Session, policy: str, reason: str) -> None:
        log.warning("rollback", **session.about, old=policy, reason=reason)
        self._quarantine.strike(policy, reason)

    def _dropped(self) -> int:
        return self._data.dropped + self._control_plane.dropped

    def _in_loop(self, function: Callable[[], Any]) -> Any:
        future = self._mailbox.post(function)
        self._data.wake()
        return future.result()


def _rules(config: ServeConfig) -> Rules:
    """What the configuration says of every session."""
    guard = config.guard
    return Rules(
        watch=WatchLimits(max_age_ns=int(1e9 * guard.max_age_s), stuck_ticks=guard.stuck_ticks),
        stop_after=guard.stop_after,
        min_rate=guard.min_rate,
    )


def _resume_probations(registry: Registry, store: Store, state: StateFolder) -> None:
    """Sessions that were left while their policy was on probation get their incumbent back."""
    for session_id in [i for i, s in registry.asleep.items() if s.head().probation]:
        session = registry.find(session_id)
        assert session is not None
        try:
            bring_incumbent(session, state.serve(store.load(session.previous)))
        except AdaptdError as error:
            log.warning("incumbent_loss", **session.about, reason=str(error))
            session.end_probation()
            session.amend()


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
            kind = error.kind if isinstance(error, InvalidBundle) else "invalid"
            log.warning("bundle_refusal", policy=reference, kind=kind, reason=str(error))
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
