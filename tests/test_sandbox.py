"""The daemon and the processes beside it under the seccomp filters of their systemd units.

libzmq aborts the process under common hardening: these are the calls that it makes.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig
from tests.bundles import write_bundle
from tests.keyed import KeyedDaemon, events, wait_for
from tests.test_daemon import ONE
from tests.unit_sandbox import UNITS, library, read_unit, system_calls

ROOT = UNITS.parent
TCP, REALTIME = "adaptd.service+adaptd-tcp.conf", "adaptd.service+adaptd-realtime.conf"


@pytest.fixture(autouse=True)
def _systemd():
    if library() is None or not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze and libseccomp (Debian: systemd)")


def under(monkeypatch, unit, of=DaemonProcess):
    """Let daemons run under a unit's filters from now on."""
    monkeypatch.setattr(of, "program", ("tests.unit_sandbox", unit, "runtime.cli"))


def filters_over(pid):
    """How many filters the kernel has over a process."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("Seccomp_filters:")).split()[1])


def test_the_daemon_serves_swaps_reloads_and_stops_under_its_unit(models, monkeypatch):
    under(monkeypatch, "adaptd.service")
    with DaemonProcess(models, durable="true", realtime__spin_us="0") as daemon:
        assert filters_over(daemon.process.pid) >= 8
        with daemon.client() as client:
            session = client.open("counter@1")
            assert [session.step(ONE).action[0] for _ in range(3)] == [1, 2, 3]
            client.request("swap", policy="other")
            assert session.step(ONE).generation == 2
            write_bundle(models, "counter", 3)
            daemon.process.send_signal(signal.SIGHUP)
            wait_for(lambda: events(daemon, "reload"))
            assert session.step(ONE).action[0] == 5
        daemon.kill()
        daemon.start()  # it finds what was left
        with daemon.client() as client:
            assert client.open(session=session.id).step(ONE).action[0] == 6
        assert daemon.stop() == 0


def test_state_that_cannot_be_used_is_put_aside_under_the_unit(models, monkeypatch):
    under(monkeypatch, "adaptd.service")
    with DaemonProcess(models) as daemon:
        with daemon.client() as client:
            client.open("counter@1").step(ONE)
        daemon.kill()
        (slab,) = Path(daemon._environment["ADAPTD_STATE"]).glob("*.slab")
        os.truncate(slab, 5000)
        daemon.start()
        assert events(daemon, "state_loss")


def test_a_daemon_with_keys_serves_over_tcp_under_its_drop_in(models, keys, monkeypatch):
    """It binds to an address, for which libzmq asks the kernel over AF_NETLINK."""
    under(monkeypatch, TCP, KeyedDaemon)
    with KeyedDaemon(models, keys) as daemon, daemon.of("robot") as robot:
        assert robot.open("counter@1").step(ONE).action[0] == 1
        keys.revoke("robot")
        wait_for(lambda: daemon.access()["clients"] == 5)
        assert daemon.stop() == 0


def test_a_daemon_asks_for_priority_core_and_memory_under_its_drop_in(models, monkeypatch):
    """What the filters leave, the kernel may still refuse: here it is not the filters."""
    asked = {"realtime__priority": "7", "realtime__mlock": "true"}
    asked["realtime__affinity"] = f"[{min(os.sched_getaffinity(0))}]"
    with DaemonProcess(models, **asked) as daemon, daemon.client() as client:
        without = client.request("status")["realtime"]
    under(monkeypatch, REALTIME)
    with DaemonProcess(models, **asked) as daemon, daemon.client() as client:
        assert client.request("status")["realtime"] == without
        assert client.open("counter@1").step(ONE).action[0] == 1


def test_priority_is_refused_and_said_without_the_drop_in(models, monkeypatch):
    under(monkeypatch, "adaptd.service")
    with DaemonProcess(models, realtime__priority="7") as daemon, daemon.client() as client:
        answer = client.request("status")["realtime"]["priority"]
        assert answer == "refused: Operation not permitted"
        assert client.open("counter@1").step(ONE).action[0] == 1


@pytest.mark.parametrize(
    ("line", "endpoint"),
    [
        ("SystemCallFilter=~@resources", None),
        ("RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET", "loopback"),
    ],
)
def test_libzmq_aborts_under_what_the_unit_leaves_out(
    models, monkeypatch, tmp_path, line, endpoint
):
    """So these filters are those that count, and the exceptions in the unit are needed."""
    drop_in = tmp_path / "worse.conf"
    drop_in.write_text(f"[Service]\n{line}\n")
    under(monkeypatch, f"adaptd.service+{drop_in}")
    where = None if endpoint is None else "tcp://127.0.0.1:5790"
    with pytest.raises(InvalidConfig, match="did not start") as failure:
        DaemonProcess(models, where)
    assert "Operation not permitted" in str(failure.value) or "not supported" in str(failure.value)


FORBIDDEN = """
import ctypes, mmap, os, socket
def tried(act):
    try:
        act()
    except OSError as error:
        return error.errno
    return 0
libc = ctypes.CDLL(None, use_errno=True)
def unshare():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "")
def personality():
    if libc.personality(0x40000) == -1:
        raise OSError(ctypes.get_errno(), "")
print([tried(act) for act in (
    lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
    unshare,
    personality,
    lambda: os.chmod(".", 0o4755),
    lambda: os.chroot("."),
    lambda: os.setuid(0),
)])
"""


def test_what_a_daemon_that_was_taken_over_would_try_is_refused(tmp_path):
    (tmp_path / "forbidden.py").write_text(FORBIDDEN)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    result = subprocess.run(
        [sys.executable, "-m", "tests.unit_sandbox", "adaptd.service", "forbidden"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert result.stdout.strip() == "[97, 1, 1, 1, 1, 1, 1, 1]", result.stderr


def side(unit, *arguments):
    """A process beside the daemon, under its unit's filters."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit_sandbox", unit, "runtime.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
    )  # fmt: skip


def test_the_exporter_serves_metrics_under_its_unit(daemon, client):
    client.open("counter@1").step(ONE)
    process = side(
        "adaptd-exporter.service", "exporter", "--port", "0", "--endpoint", daemon.endpoint
    )
    try:
        url = process.stdout.readline().split()[0]

        def scraped():
            with urllib.request.urlopen(url, timeout=5) as page:
                return b"adaptd_ticks" in page.read()

        assert wait_for(scraped)
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_the_recorder_writes_and_ends_its_file_under_its_unit(daemon, client, tmp_path):
    session = client.open("counter@1")
    folder = tmp_path / "recordings"
    process = side("adaptd-recorder.service", "record", str(folder), "--endpoint", daemon.endpoint)
    try:
        assert "recording" in process.stdout.readline()
        deadline = time.monotonic() + 20
        while not any(path.stat().st_size for path in folder.glob("*")):
            session.step(ONE)
            time.sleep(0.02)
            assert time.monotonic() < deadline
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and " 0 missed" in said, said


def test_a_unit_is_read_as_systemd_reads_it(tmp_path):
    drop_in = tmp_path / "x.conf"
    drop_in.write_text("[Unit]\nAfter=a\n[Service]\nUser=\nUser=me\nSystemCallFilter=~@resources\n")
    unit = read_unit(UNITS / "adaptd.service", drop_in)
    assert unit["User"] == ["me"] and "After" not in unit
    assert len(unit["SystemCallFilter"]) == 3
    allowed = system_calls(unit)
    assert {"read", "openat", "epoll_wait", "sched_yield"} <= allowed
    assert not {"sched_setscheduler", "mount", "ptrace", "setuid", "keyctl"} & allowed
