"""A list of clients that changes while the daemon runs: revoked, rotated, another role, broken."""

import re
import time

import numpy as np
import pytest

from runtime.cli import main as adaptd
from runtime.client import Client
from runtime.errors import ProtocolError
from tests.keyed import KeyedDaemon, events, wait_for

ONE = np.array([1.0, 0.0])


@pytest.fixture
def daemon(models, keys):
    """A daemon that asks for them."""
    with KeyedDaemon(models, keys) as process:
        yield process


@pytest.mark.parametrize("way", ["by adaptd keys", "in place"])
def test_a_revoked_key_is_refused_at_once_without_a_restart(daemon, keys, way):
    with daemon.of("robot") as robot, daemon.of("other") as other:
        session, untouched = robot.open("counter@1"), other.open("counter@1")
        session.step(ONE)
        untouched.step(ONE)
        if way == "in place":  # as an editor would
            text = keys.list.read_text()
            keys.list.write_text(re.sub(r"\[robot\]\n.*\n.*\n", "", text))
        else:
            assert adaptd(["keys", "revoke", "robot", "--folder", str(keys.folder)]) == 0
        wait_for(lambda: events(daemon, "allowlist"))
        assert session.step(ONE, timeout_s=0.3).silent
        robot.timeout_s = 0.5
        with pytest.raises(TimeoutError, match="refuses the key of 'robot'"):
            robot.request("status", session=session.id)
        assert untouched.step(ONE).action[0] == 2  # on the connection that it had
    wait_for(lambda: daemon.access()["refused_handshakes"].get("revoked_key"))
    told = daemon.access()
    assert told["ended_connections"]["revoked"] >= 2  # its control and its data connection
    assert told["clients"] == 5
    assert events(daemon, "allowlist")[0]["revoked"] == 1


def test_a_revoked_onlooker_sees_nothing_more(daemon, keys):
    with daemon.of("onlooker") as onlooker, daemon.of("operator") as operator:
        seen, kept = onlooker.tap(), operator.tap()
        with daemon.of("robot") as robot:
            session = robot.open("counter@1")

            def both_see() -> bool:
                session.step(ONE)
                return bool(seen.ticks(0.05) and kept.ticks(0.05))

            wait_for(both_see)
            keys.revoke("onlooker")
            wait_for(lambda: events(daemon, "allowlist"))
            seen.ticks(0.1)
            for _ in range(5):
                session.step(ONE)
            assert len(kept.ticks(1.0)) >= 1
            assert not seen.ticks(0.3)


def test_a_list_that_is_broken_changes_nothing_and_is_told_of(daemon, keys):
    whole = keys.list.read_text()
    keys.list.write_text(whole + "[robot\n")
    wait_for(lambda: daemon.access()["trouble"])
    assert "is not TOML" in daemon.access()["trouble"]
    with daemon.of("robot") as robot:
        assert robot.open("counter@1").step(ONE).action[0] == 1
    keys.list.write_text(whole)
    wait_for(lambda: not daemon.access()["trouble"])
    assert len(events(daemon, "allowlist_fault")) == 1


def test_a_client_keeps_its_sessions_when_its_key_is_rotated(daemon, keys):
    with daemon.of("robot") as robot:
        session = robot.open("counter@1")
        session.step(ONE)
        path = keys.rotate("robot")
        wait_for(lambda: len(events(daemon, "allowlist")) == 1)
        with Client(daemon.endpoint, 5.0, path) as renewed:
            again = renewed.open(session=session.id)
            assert again.step(ONE).action[0] == 2
            assert session.step(ONE, timeout_s=5.0).action[0] == 2  # its seq 1 again: both let in
            assert keys.retire("robot") == 1
            wait_for(lambda: len(events(daemon, "allowlist")) == 2)
            assert again.step(ONE).action[0] == 3
            assert session.step(ONE, timeout_s=0.3).silent


def test_one_who_loses_a_role_loses_the_tap_at_once(daemon, keys):
    with daemon.of("driver") as driver:
        session, tap = driver.open("counter@1"), driver.tap()

        def seen() -> bool:
            session.step(ONE)
            return bool(tap.ticks(0.05))

        wait_for(seen)
        text = keys.list.read_text()
        keys.list.write_text(text.replace('roles = ["drive", "observe"]', 'roles = ["drive"]'))
        wait_for(lambda: events(daemon, "allowlist"))

        def refused() -> bool:
            tap.ticks(0.05)  # a subscriber asks again only where it is read
            return "tap" in daemon.access()["refused_messages"]

        wait_for(refused)
        assert session.step(ONE).action[0] > 1 and not tap.ticks(0.3)
    assert daemon.access()["ended_connections"] == {"lost_role": 1}


def test_the_time_to_a_revocation_is_short(daemon, keys):
    """Well within the second that the page promises, however busy the machine is."""
    with daemon.of("robot") as robot:
        session = robot.open("counter@1")
        session.step(ONE)
        keys.revoke("robot")
        started = time.monotonic()
        while not _cut_off(session):
            assert time.monotonic() - started < 10


def _cut_off(session):
    """Whether a step is not answered any more, or refused: it had been sent before the end."""
    try:
        return session.step(ONE, timeout_s=0.05).silent
    except ProtocolError as error:
        assert error.code == "REVOKED"
        return True
