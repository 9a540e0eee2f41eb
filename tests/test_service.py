"""What a service manager hears, over a real datagram socket: sd_notify(3) as systemd speaks it."""

import os
import signal
import socket
import time

import numpy as np
import pytest

from runtime.daemon import DRAIN_S, QUIET_S
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig
from runtime.notify import PATIENCE_S, Notifier
from runtime.registry import Registry
from runtime.store import Store
from runtime.supervision import Canary, Supervision, summary
from runtime.vetting.vet import PATIENCE, Limits
from tests.keyed import events
from tests.loops import frame
from tests.odd_bundles import FRAGILE_FROM, write_endless, write_fragile
from tests.service_manager import ServiceManager
from tests.test_daemon import ONE, raw

STUCK = np.array([0.0, FRAGILE_FROM])


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """A service manager that daemons started here know of."""
    found = ServiceManager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", found.address)
    yield found
    found.close()


def test_a_daemon_says_ready_status_alive_and_stopping(manager, models):
    with DaemonProcess(models, policy="counter") as daemon:
        (asked_us,) = manager.next().values()  # for one bundle
        assert int(asked_us) > 1e6 * PATIENCE * Limits().cpu_s  # the longest that its trial takes
        ready = manager.next()
        assert ready == {"READY": "1", "STATUS": "0 sessions at work, 0 asleep"}
        with daemon.client() as client:
            for policy in ("counter@1", "counter@1", "other@1"):
                client.open(policy)
            said = manager.until("STATUS", "3 sessions")["STATUS"]
        assert said == "3 sessions at work, 0 asleep (counter@1: 2, other@1: 1)"
        assert daemon.stop() == 0
        assert manager.until("STOPPING")["STOPPING"] == "1"


def test_ready_is_not_said_before_requests_are_answered(manager, models):
    """The self-test of keys and the recovery of sessions are before it, too."""
    with DaemonProcess(models) as daemon, daemon.client() as client:
        client.open("counter@1").step(ONE)
        daemon.kill()
        manager.forget()
        daemon.start()
        assert "EXTEND_TIMEOUT_USEC" in manager.next()  # for the policy of the session
        assert manager.next()["STATUS"] == "0 sessions at work, 1 asleep (counter@1: 1)"


def test_a_daemon_that_does_not_start_never_says_ready(manager, models):
    with pytest.raises(Exception, match="did not start"):
        DaemonProcess(models, policy="counter@9")
    assert manager.silent("READY", 0.1)


class Interrupted(DaemonProcess):
    """A daemon that is sent a signal while it tries its first bundle."""

    manager: ServiceManager
    number: signal.Signals
    seen: DaemonProcess | None = None

    def _serves(self):
        if Interrupted.seen is not self:
            Interrupted.seen = self
            assert "EXTEND_TIMEOUT_USEC" in self.manager.next()
            self.process.send_signal(self.number)
        return super()._serves()


def test_a_reload_that_is_asked_for_during_the_start_waits_for_its_end(
    manager, models, monkeypatch
):
    """The signal's own action would end the process, and systemd take that for an orderly end."""
    monkeypatch.setattr(Interrupted, "manager", manager, raising=False)
    monkeypatch.setattr(Interrupted, "number", signal.SIGHUP, raising=False)
    with Interrupted(models, policy="counter") as daemon:
        assert "READY" in manager.next()
        assert "RELOADING" in manager.until("RELOADING")
        manager.until("READY")
        assert len(events(daemon, "reload")) == 1


def test_a_stop_that_is_asked_for_during_the_start_ends_it_at_once(manager, models, monkeypatch):
    monkeypatch.setattr(Interrupted, "manager", manager, raising=False)
    monkeypatch.setattr(Interrupted, "number", signal.SIGTERM, raising=False)
    with pytest.raises(InvalidConfig, match=r"did not start: $"):
        Interrupted(models, policy="counter")
    assert Interrupted.seen.process.returncode == 0
    assert manager.silent("READY", 0.1)


def test_a_robot_that_goes_on_sending_is_answered_for_as_long_as_a_stop_may_take(daemon, client):
    """Each observation is answered as it comes, so that none waits whenever one looks."""

    def answered_for_s(session):
        """From the signal to the last answer."""
        wire = raw(daemon.endpoint)
        asked = last = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        for seq in range(45):
            wire.send(frame(seq, session=session.id))
            last = time.monotonic() if wire.poll(10) and wire.recv() else last
            time.sleep(QUIET_S / 3)
        wire.close()
        return last - asked

    for _ in range(3):  # on a busy machine the robot itself may pause for too long
        found_s = answered_for_s(client.open("counter@1"))
        assert daemon.process.wait(5) == 0
        if found_s > 4 * QUIET_S:
            break
        daemon.start()
    assert 4 * QUIET_S < found_s < DRAIN_S + 0.2


def test_signs_of_life_come_at_least_twice_within_the_watchdogs_time(manager, models, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    with DaemonProcess(models, policy="counter") as daemon:
        manager.until("READY")
        manager.until("WATCHDOG")
        came_s = []
        for _ in range(4):
            assert manager.until("WATCHDOG")["WATCHDOG"] == "1"
            came_s.append(time.monotonic())
        assert (came_s[-1] - came_s[0]) / 3 < 1.5
        assert daemon.process.poll() is None


def test_a_stuck_loop_stops_the_watchdog_while_other_threads_go_on(manager, models, monkeypatch):
    """The graph of one session never ends: requests that need no tick are answered still."""
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    write_endless(models)
    with DaemonProcess(models) as daemon, daemon.client() as client:
        session = client.open("endless")
        session.step(ONE)
        manager.until("WATCHDOG")
        assert session.step(STUCK, timeout_s=0.1).silent
        assert client.request("policies")["policies"]
        manager.forget()
        assert manager.silent("WATCHDOG", 2.0)
        daemon.kill()  # as the manager would


def test_without_a_watchdog_no_sign_of_life_is_sent(manager, models):
    with DaemonProcess(models, policy="counter"):
        manager.until("READY")
        assert manager.silent("WATCHDOG", 1.5)


@pytest.mark.parametrize(
    ("interval", "pid", "expected_s"),
    [
        ("5000000", None, 5.0),
        ("5000000", "own", 5.0),
        ("5000000", "1", None),  # another process's
        ("0", None, None),
        ("-1", None, None),
        ("soon", None, None),
        ("", None, None),
    ],
)
def test_the_watchdogs_interval_is_taken_where_it_is_this_process_s(interval, pid, expected_s):
    pid = str(os.getpid()) if pid == "own" else pid
    environment = {"WATCHDOG_USEC": interval} | ({"WATCHDOG_PID": pid} if pid else {})
    assert Notifier(environment).watchdog_s == expected_s
    assert not environment  # a child does not speak in the daemon's name


def test_nobody_is_told_where_nobody_asked():
    notifier = Notifier({})
    assert not notifier
    notifier.ready("anything")
    notifier.alive()
    notifier.close()


def test_an_abstract_address_is_one():
    name = f"adaptd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + name)
        heard.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name})
        notifier.extend(1.5)
        assert heard.recv(100) == b"EXTEND_TIMEOUT_USEC=1500000"
        notifier.close()


def test_what_is_told_is_one_line_and_only_told_when_it_is_news(tmp_path):
    manager = ServiceManager(tmp_path)
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    notifier.ready("one\nWATCHDOG=1")
    assert manager.next() == {"READY": "1", "STATUS": "one WATCHDOG=1"}
    for sentence in ("two", "two", "three"):
        notifier.status(sentence)
    assert [manager.next()["STATUS"] for _ in range(2)] == ["two", "three"]
    notifier.close()
    manager.close()


def test_a_manager_that_is_gone_or_does_not_listen_stops_nothing(tmp_path):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notifier.ready("it serves")
    notifier.close()
    manager = ServiceManager(tmp_path)
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    for k in range(5000):  # more than its queue holds; the loop may not wait
        notifier.status(str(k))
    started = time.monotonic()
    notifier.alive()
    assert time.monotonic() - started < 0.5
    notifier.close()
    manager.close()


def test_a_reload_is_announced_with_its_time_and_ends_with_ready(manager, models):
    with DaemonProcess(models) as daemon:
        manager.until("READY")
        before_us = time.monotonic_ns() // 1000
        daemon.process.send_signal(signal.SIGHUP)
        reloading = manager.until("RELOADING")
        assert before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert manager.until("READY")["STATUS"] == "0 sessions at work, 0 asleep"
        assert len(events(daemon, "reload")) == 1


def test_a_manager_that_does_not_listen_to_a_reload_holds_up_no_tick(manager, models):
    with DaemonProcess(models) as daemon, daemon.client() as client:
        session = client.open("counter@1")
        manager.fill()
        daemon.process.send_signal(signal.SIGHUP)
        slowest, reloaded = 0.0, time.monotonic() + 20
        while time.monotonic() < reloaded:  # and for a while after
            began = time.monotonic()
            assert not session.step(ONE, timeout_s=5).silent
            slowest = max(slowest, time.monotonic() - began)
            if events(daemon, "reload"):
                reloaded = min(reloaded, time.monotonic() + PATIENCE_S / 2)
        assert slowest < PATIENCE_S / 2


def test_a_canary_of_a_policy_that_fails_is_no_sign_of_life(tmp_path, models):
    class Broken:
        """A policy whose graph has gone wrong since it was loaded."""

        label, manifest = "counter@1", Store(models).load("counter@1").manifest
        initial_carry = Store(models).load("counter@1").initial_carry

        def step(self, inputs, carry):
            raise RuntimeError("out of memory")

    manager = ServiceManager(tmp_path)
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
    served = [Broken()]
    supervision = Supervision(Notifier(environment), Registry(), lambda: served[0])
    supervision.report()
    assert "WATCHDOG" not in manager.next() and manager.silent("WATCHDOG", 0.1)
    served[0] = Store(models).load("counter@1")
    supervision.report()
    assert manager.next() == {"WATCHDOG": "1"}
    manager.close()


@pytest.mark.parametrize("write", [write_fragile, write_endless])
def test_a_canary_ends_for_policies_that_fail_on_some_observations_only(models, write):
    write(models, "odd")
    assert Canary().run(Store(models).load("odd"))


def test_the_status_names_the_policies_with_most_sessions():
    registry = Registry()

    class Held:
        def __init__(self, label):
            self.policy = type("Named", (), {"label": label})

    labels = ["a@1"] * 4 + ["b@1"] * 3 + ["c@1"] * 2 + ["d@1", "e@1"]
    registry.live = dict(enumerate(map(Held, labels)))
    expected = "11 sessions at work, 0 asleep (a@1: 4, b@1: 3, c@1: 2, 2 other policies)"
    assert summary(registry) == expected
