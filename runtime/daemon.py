"""The daemon: start, serve, reload, drain, stop.

The main thread owns the data plane and all sessions and ticks them. The control thread
answers requests and does the slow work, such as loading a bundle; what touches sessions it
hands to the main thread, which runs it between two ticks. Policies that learn between
episodes do so on a third thread, and state is written through to the disk by a fourth.
"""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import structlog

from runtime import realtime
from runtime.access.access import Access
from runtime.config import ServeConfig
from runtime.control import Control
from runtime.endpoint import check_endpoint, take_endpoint
from runtime.errors import AdaptdError
from runtime.learning import Learning
from runtime.logs import Logging
from runtime.loop import Loop
from runtime.mailbox import Mailbox
from runtime.notify import Notifier
from runtime.pending import TickResult
from runtime.policy import Policy
from runtime.quarantine import Quarantine
from runtime.registry import Registry
from runtime.reload import Reload, load_policies, load_s, rules_of
from runtime.services import Services
from runtime.sessions import Session
from runtime.shadow import bring_incumbent
from runtime.signals import Signals
from runtime.signing.counters import Counters
from runtime.state import StateFolder
from runtime.store import Store
from runtime.supervision import Supervision
from runtime.transport import ControlPlane, DataPlane, new_context
from runtime.vetting.admission import Admission
from runtime.vetting.passed import Passed

log = structlog.get_logger()

IDLE_POLL_MS = 200
TIDY_EVERY_S = 1.0
SYNC_EVERY_S = 0.1
QUIET_S = 0.05
"""After a stop was asked for: when nothing came for so long, all that was sent is answered ..."""
DRAIN_S = 0.5
"""... and robots that go on sending are answered no longer than this."""
REQUESTS_S = 1.5
"""As `DRAIN_S`, of control requests: the first may have to load a policy that others wait for."""
STOP_TIMEOUT_S = 2.0
"""How long requests and lessons that are under way have to end."""
SYNC_TIMEOUT_S = 60.0
SWITCH_INTERVAL_S = 0.0001
"""How long another Python thread may hold up the loop; CPython's own value is fifty times that."""


class Daemon:
    """One adaptd: the sessions, their policies and the sockets."""

    def __init__(
        self,
        config: ServeConfig,
        logs: Logging | None = None,
        reread: Callable[[], ServeConfig] | None = None,
        signals: Signals | None = None,
    ):
        """Load what is to be served, find the sessions that were left, and bind.

        Args:
            config: how to serve.
            logs: whose session events go to the tap; None: none do.
            reread: gives the configuration anew at SIGHUP; None: it is as it was.
            signals: those that are heard already; None: they are from `run` on.

        Raises:
            InvalidConfig: nothing to serve, or an endpoint or state folder that cannot be used.
            UnknownName, InvalidBundle: the default policy does not exist or is broken.
        """
        self.config = config
        self._logs = logs or Logging()
        self._signals = signals or Signals()
        self._stopping, self._reload_asked = self._signals.stop, self._signals.reload
        self._mailbox = Mailbox()
        self._notifier = Notifier()
        folder = config.state_folder()
        admission = Admission.of(config, Passed(folder / "passed.json"))
        store = Store(config.models, admission)
        default = load_policies(store, config, self._notifier)
        keys = config.keys.folder is not None
        self._lock = take_endpoint(config.endpoint, keys)
        # Twice: a swap, until its probation is over, and a restore take a second record.
        state = StateFolder(folder, config.ring_size, 2 * config.max_sessions)
        state.take()
        self._registry = Registry(
            rules_of(config), wall_s=int(time.time()), now_ns=time.monotonic_ns()
        )
        load = partial(self._load_at_start, store)
        self._registry.asleep = state.recover(load)
        _resume_probations(self._registry, load, state)
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
            self._stop, self._dropped, self._learning.lost, self._access, default,
        )  # fmt: skip
        self._control = Control(self._services)
        self._supervision = Supervision(self._notifier, self._registry, self._default_policy)
        self._reload = Reload(
            reread or (lambda: config), self._services, self._notifier, self._logs.set_level
        )

    def _load_at_start(self, store: Store, reference: str) -> Policy:
        """Load the policy of a session that was left; the service manager waits for each."""
        self._notifier.extend(load_s(self.config))
        return store.load(reference)

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
        """Serve until SIGTERM, SIGINT or a shutdown request; on the main thread.

        Raises:
            InvalidConfig: somebody without a key of the list would be let in.
        """
        with self._signals.heard():
            self._run()

    def _run(self) -> None:
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
        self._signals.wake = self._wake
        for thread in threads:
            thread.start()
        self._services.realtime = realtime.apply(self.config.realtime)
        gc.collect()
        gc.freeze()
        recovered = len(self._registry)
        log.info("startup", endpoint=self.config.endpoint, pid=os.getpid(), sessions=recovered)
        self._supervision.ready()
        self._serve()
        self._notifier.stopping()
        self._drain()
        self._close(threads[0])

    def _serve(self) -> None:
        data, loop, events, next_tidy = self._data, self._loop, self._logs.events, 0
        every_s = self._supervision.period_s(TIDY_EVERY_S)
        longest_s, every_ns = min(IDLE_POLL_MS / 1000, every_s), int(1e9 * every_s)
        while not self._stopping.is_set():
            data.serve(loop.tick_all, time.monotonic_ns, longest_s)
            loop.tapped = data.tapped
            self._mailbox.run_waiting()
            if events:
                data.announce(events.take())
            now = time.monotonic_ns()
            if now > next_tidy:
                next_tidy = now + every_ns
                data.look_everywhere()
                config = self._services.config
                self._registry.follow_clock(int(time.time()), now)
                self._registry.tidy(now, config.idle_after_s, config.forget_after_s)
                self._logs.tidy()
                self._supervision.report()

    def _drain(self) -> None:
        """Answer observations that were sent before the stop, within a bound."""
        data, now = self._data, time.monotonic()
        deadline, quiet_from = now + DRAIN_S, now + QUIET_S

        def tick_all(frames: Sequence[bytes], received_ns: int, way: str) -> list[TickResult]:
            nonlocal quiet_from
            results = self._loop.tick_all(frames, received_ns, way)
            quiet_from = time.monotonic() + QUIET_S
            return results

        while now < deadline and (now < quiet_from or data.waiting):
            data.look_everywhere()
            data.serve(tick_all, time.monotonic_ns, QUIET_S / 4)
            self._mailbox.run_waiting()
            data.announce(self._logs.events.take())
            now = time.monotonic()

    def _close(self, control: threading.Thread) -> None:
        self._learning.stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        helpers = (control, self._learning.thread)
        while any(t.is_alive() for t in helpers) and time.monotonic() < deadline:
            self._mailbox.run_waiting()  # a request or a lesson under way may still need the loop
            time.sleep(0.005)
        self._data.close()
        late = [t.name for t in helpers if t.is_alive()]
        if late:  # in the middle of something slow; it ends with the process
            log.warning("abandonment", under_way=late)
        if not control.is_alive():
            if self._access is not None:
                self._access.close()
            self._context.destroy(linger=200)
        if self.config.durable:
            self._notifier.extend(SYNC_TIMEOUT_S)
            self._services.state.sync()
        if self._lock is not None:
            os.close(self._lock)
        log.info("shutdown", sessions=len(self._registry))

    def _serve_control(self) -> None:
        while not self._stopping.is_set():
            self._control_plane.serve(self._control.answer, IDLE_POLL_MS)
            self._quarantine.save()
            self._services.counters.note(None)  # what could not be written before
            if self._reload_asked.is_set():
                self._reload_asked.clear()
                self._carry_out_reload()
        deadline = time.monotonic() + REQUESTS_S
        while self._control_plane.serve(self._control.answer, int(1000 * QUIET_S)):
            if time.monotonic() > deadline:
                break
        self._data.wake()
        self._control_plane.close()

    def _carry_out_reload(self) -> None:
        self._notifier.reloading()
        self._supervision.trouble = self._reload()
        self._notifier.ready(self._in_loop(self._supervision.sentence))  # it may wait, not the loop

    def _sync(self) -> None:
        while not self._stopping.wait(SYNC_EVERY_S):
            try:
                self._services.state.sync()
            except OSError as error:
                log.warning("sync_failure", reason=error.strerror)

    def _note_failed_swap(self, session: Session, policy: str, reason: str) -> None:
        log.warning("rollback", **session.about, old=policy, reason=reason)
        self._quarantine.strike(policy, reason)

    def _default_policy(self) -> Policy | None:
        """A version in memory of the policy of sessions that name none."""
        name = (self._services.default_policy or "").partition("@")[0]
        loaded = list(self._services.store.loaded.items())
        return next((p for label, p in loaded if label.partition("@")[0] == name), None)

    def _dropped(self) -> int:
        return self._data.dropped + self._control_plane.dropped

    def _stop(self) -> None:
        self._stopping.set()
        self._wake()

    def _wake(self) -> None:
        """Make both threads look up."""
        self._data.wake()
        self._control_plane.wake()

    def _in_loop(self, function: Callable[[], Any]) -> Any:
        future = self._mailbox.post(function)
        self._data.wake()
        return future.result()


def _resume_probations(
    registry: Registry, load: Callable[[str], Policy], state: StateFolder
) -> None:
    """Sessions that were left while their policy was on probation get their incumbent back."""
    for session_id in [i for i, s in registry.asleep.items() if s.head().probation]:
        session = registry.find(session_id)
        assert session is not None
        try:
            bring_incumbent(session, state.serve(load(session.previous)))
        except AdaptdError as error:
            log.warning("incumbent_loss", **session.about, reason=str(error))
            session.end_probation()
            session.amend()
