"""What the daemon tells: nouns that are documented, bursts counted, the tap told too."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import structlog

from runtime.daemon_process import DaemonProcess
from runtime.logs import Logging, RateLimit, SessionEvents
from runtime.onlooker import Onlooker

ROOT = Path(__file__).parents[1]
ONE = np.array([1.0, 0.0], np.float32)


def documented():
    """The events of docs/events.md."""
    return set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/events.md").read_text(), re.MULTILINE))


def told():
    """The events that the runtime's code tells."""
    pattern = (
        r'(?:log|get_logger\(\))\.(?:info|warning|error|exception)\(\s*"(\w+)"|report\("(\w+)"'
    )
    found = set()
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        found |= {a or b for a, b in re.findall(pattern, path.read_text())}
    return found


def test_every_event_is_documented_and_there_are_no_others():
    assert told() == documented()


def lines(daemon):
    return [json.loads(line) for line in daemon.log.read_text().splitlines()]


def about(events, session):
    return [e for e in events if e.get("session") == session.id]


def test_what_happens_to_a_session_is_in_the_log_and_on_the_tap(daemon, client):
    with Onlooker(daemon.endpoint, status_every_s=0.05) as looking:
        time.sleep(0.5)  # until the subscription has reached the daemon
        session = client.open("counter@1")
        for _ in range(3):
            session.step(ONE)
        client.request("freeze", session=session.id)
        client.request("freeze", session=session.id, frozen=False)
        client.request("swap", policy="counter@2", session=session.id)
        session.step(ONE)
        client.request("reset", session=session.id)
        client.request("close", session=session.id)
        deadline = time.monotonic() + 5
        while not looking.tap.events or looking.tap.events[-1]["event"] != "closing":
            looking.ticks(0.1)
            assert time.monotonic() < deadline
    seen = list(looking.tap.events)
    expected = ["opening", "switch", "switch", "swap", "reset", "closing"]
    assert [e["event"] for e in seen] == expected
    assert [e["event"] for e in about(lines(daemon), session)] == expected
    assert [e["seq"] for e in seen] == [0, 3, 3, 3, 4, 4]
    assert [e["generation"] for e in seen] == [1, 1, 1, 2, 2, 2]
    assert [e["policy"] for e in seen] == ["counter@1"] * 4 + ["counter@2"] * 2
    assert seen[3]["new"] == "counter@2" and seen[3]["carry"] == "kept"


def test_the_tap_is_told_what_the_log_leaves_out(models):
    with DaemonProcess(models, log_level="error") as daemon, daemon.client() as client:
        tap = client.tap()
        time.sleep(0.2)
        client.open("counter@1")
        assert not tap.ticks(2.0) and [e["event"] for e in tap.events] == ["opening"]
        assert not lines(daemon)


@pytest.fixture
def clock(monkeypatch):
    """The limit's clock, set by hand."""
    now = [100.0]
    monkeypatch.setattr("runtime.logs.time.monotonic", lambda: now[0])
    return now


def passes(limit, event, method="warning", **facts):
    """The event as it comes out of the limit; None if it is dropped."""
    try:
        return limit(None, method, {"event": event, **facts})
    except structlog.DropEvent:
        return None


def test_a_burst_is_limited_and_counted(clock):
    limit = RateLimit(burst=5, period_s=10)
    assert [bool(passes(limit, "fault", session=1)) for _ in range(8)] == [True] * 5 + [False] * 3
    assert passes(limit, "fault", session=2) and passes(limit, "other", session=1)
    clock[0] += 10
    assert passes(limit, "fault", session=1)["suppressed"] == 3
    assert "suppressed" not in passes(limit, "fault", session=1)


def test_a_burst_that_ends_is_told_once(clock):
    limit = RateLimit(burst=2, period_s=10)
    for _ in range(7):
        passes(limit, "fault", session=3)
    assert limit.overdue(clock[0] + 5) == []
    assert limit.overdue(clock[0] + 11) == [{"of": "fault", "suppressed": 5, "session": 3}]
    assert limit.overdue(clock[0] + 12) == []


def test_what_an_operator_did_is_never_dropped(clock):
    limit = RateLimit(burst=1)
    assert all(passes(limit, "reset", method="info", session=1) for _ in range(20))


def test_events_wait_in_their_order_and_the_newest_are_kept():
    events = SessionEvents()
    for n in range(5000):
        events(None, "info", {"event": "reset", "session": n})
    events(None, "info", {"event": "startup"})
    found = events.take()
    assert [n for n, _ in found] == list(range(5000 - 4096, 5000)) and not events
    assert json.loads(found[0][1])["event"] == "reset"


def test_a_level_that_is_not_known():
    with pytest.raises(KeyError):
        Logging("loud")
