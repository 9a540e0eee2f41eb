"""What the operating system grants and refuses is reported, and nothing is skipped silently."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.config import RealtimeConfig, load_config
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig, UnknownName
from tests.keyed import wait_for
from tests.test_daemon import ONE


def log_of(daemon):
    """What the daemon said of each real-time setting."""
    events = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    return {e["setting"]: (e["level"], e["answer"]) for e in events if e["event"] == "realtime"}


def test_settings_that_are_granted_are_reported_and_real(models):
    core = min(os.sched_getaffinity(0))
    settings = {"realtime__affinity": f"[{core}]", "realtime__collect_garbage": "false"}
    with DaemonProcess(models, **settings) as daemon, daemon.client() as client:
        answers = client.request("status")["realtime"]
        assert answers == {"affinity": "granted", "collect_garbage": "granted"}
        assert log_of(daemon) == dict.fromkeys(answers, ("info", "granted"))
        assert os.sched_getaffinity(daemon.process.pid) == {core}


@pytest.mark.parametrize("core", [4096, 2**40])
def test_a_core_that_does_not_exist_is_refused_and_said(models, core):
    settings = {"realtime__affinity": f"[{core}]"}
    with DaemonProcess(models, **settings) as daemon, daemon.client() as client:
        answer = client.request("status")["realtime"]["affinity"]
        assert answer.startswith("refused: ")
        assert log_of(daemon) == {"affinity": ("warning", answer)}
        assert client.open("counter@1").step(ONE).action[0] == 1


PROBE = """
import json, os, resource, sys
from runtime import realtime
from runtime.config import RealtimeConfig
for limit in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_RTPRIO):
    resource.setrlimit(limit, (0, 0))
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(json.dumps(realtime.apply(RealtimeConfig(priority=50, mlock=True))))
"""
"""As a user who may lock no memory and has no priority to give."""


def test_what_an_ordinary_user_may_not_have_is_refused_by_name():
    result = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout.splitlines()[-1])
    assert answers["priority"] == "refused: Operation not permitted"
    assert answers["mlock"].startswith("refused: ")
    assert result.stdout.count("[warning") == 2  # and said


def test_a_daemon_with_locked_memory_can_put_sessions_to_sleep(models):
    """Pages that are locked cannot be given back; that is no reason to stop."""
    settings = {"realtime__mlock": "true", "idle_after_s": "0.2"}
    with DaemonProcess(models, **settings) as daemon, daemon.client() as client:
        session = client.open("counter@1")
        session.step(ONE)
        wait_for(lambda: client.request("status")["sessions"][0]["asleep"])
        assert session.step(ONE).action[0] == 2
        answer = client.request("status")["realtime"]["mlock"]
        assert answer == "granted" or answer.startswith("refused: ")


def test_locked_memory_does_not_grow_with_sessions_that_nobody_opened(models):
    """Each could have 400 KiB: 1024 of them would not fit into what is allowed here."""
    with DaemonProcess(models, realtime__mlock="true", ring_size="10000") as daemon:
        with daemon.client() as client:
            assert client.open("counter@1").step(ONE).action[0] == 1
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        assert int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) < 350_000


def test_nothing_is_asked_for_unless_configured(daemon, client):
    assert client.request("status")["realtime"] == {}
    assert os.sched_getscheduler(daemon.process.pid) == os.SCHED_OTHER
    assert not log_of(daemon)


def test_a_priority_is_real_where_it_is_granted(models):
    with DaemonProcess(models, realtime__priority="7") as daemon, daemon.client() as client:
        answer = client.request("status")["realtime"]["priority"]
        policy = os.sched_getscheduler(daemon.process.pid)
        granted = answer == "granted"
        assert granted or answer == "refused: Operation not permitted"
        assert policy == (os.SCHED_FIFO if granted else os.SCHED_OTHER)
        if granted:
            assert os.sched_getparam(daemon.process.pid).sched_priority == 7


def test_an_unknown_realtime_key_is_refused_with_the_nearest(tmp_path):
    path = tmp_path / "adaptd.toml"
    path.write_text("[realtime]\npriorty = 5\n")
    with pytest.raises(UnknownName, match=r"no key in \[realtime\] 'priorty'. Did you mean 'pr"):
        load_config(path)


@pytest.mark.parametrize("priority", [0, 100])
def test_a_priority_out_of_range_is_refused(tmp_path, priority):
    path = tmp_path / "adaptd.toml"
    path.write_text(f"[realtime]\npriority = {priority}\n")
    with pytest.raises(InvalidConfig, match=r"'realtime\.priority': Input should be"):
        load_config(path)


def test_a_section_comes_from_the_environment_key_by_key(tmp_path, monkeypatch):
    path = tmp_path / "adaptd.toml"
    path.write_text("[guard]\nmax_age_s = 9.0\nstuck_ticks = 4\n[realtime]\naffinity = [0]\n")
    monkeypatch.setenv("ADAPTD_GUARD__MAX_AGE_S", "0.25")
    config = load_config(path)
    assert (config.guard.max_age_s, config.guard.stuck_ticks) == (0.25, 4)
    assert config.realtime == RealtimeConfig(affinity=[0])
    monkeypatch.setenv("ADAPTD_GUARD__MAX_AGES", "1")
    with pytest.raises(UnknownName, match=r"key in \[guard\] 'max_ages'. Did you mean 'max_age_s'"):
        load_config(path)


def test_the_daemon_heeds_a_nested_variable(models):
    """No observation gets here within a microsecond."""
    with DaemonProcess(models, guard__max_age_s="0.000001") as daemon, daemon.client() as client:
        session = client.open("counter@1")
        assert session.step(ONE).limits.name == "STALE"
        assert session.step(ONE).requested[0] == 2  # it is remembered
