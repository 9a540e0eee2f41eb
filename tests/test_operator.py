"""What an operator types, and what the daemon and the terminal then say."""

import json
import re

import numpy as np
import pytest

from runtime.cli import main as adaptd
from runtime.daemon_process import DaemonProcess
from tests.bundles import write_bundle
from tests.odd_bundles import write_boosted

ONE, FAR = np.array([1.0, 0.0]), np.array([500.0, 0.0])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "counter", 1)
    write_bundle(models, "counter", 2, gain=0.5)
    write_bundle(models, "other", carry_size=3)
    write_bundle(models, "loud", gain=1e36)
    write_boosted(models)
    with DaemonProcess(models) as process:
        yield process


@pytest.fixture
def client(daemon):
    """A connection; the sessions of a test end with it."""
    with daemon.client() as connection:
        yield connection
        for row in connection.request("status")["sessions"]:
            connection.request("close", session=row["session"])


@pytest.fixture
def session(client):
    """One that has seen ONE three times."""
    opened = client.open("counter@1", session=7)
    for _ in range(3):
        opened.step(ONE)
    return opened


@pytest.fixture
def said(daemon, capsys):
    """Runs a command and gives what it printed, its spaces and lines joined."""

    def run(*arguments, status=0):
        capsys.readouterr()
        assert adaptd([*arguments, "--endpoint", daemon.endpoint]) == status
        out, err = capsys.readouterr()
        return " ".join((err if status else out).split())

    return run


def test_a_candidate_is_shadowed_looked_at_and_promoted(said, session):
    assert said("shadow", "counter@2") == "session 7: counter@2 runs along, after 3 steps"
    session.step(ONE)  # 4 is sent, and 2 in the shadow
    looked = said("status")
    assert "7 counter@1" in looked
    assert "counter@2 in the shadow agrees in 0 % of 1 ticks" in looked
    assert said("promote", "--session", "7", "--blend", "0") == (
        "session 7: counter@1 -> counter@2 from seq 4, memory kept"
    )
    assert session.step(ONE).action[0] == 2.5
    looked = said("status")
    assert "7 counter@2 adapted 5 on probation for 99 ticks" in looked and "1 swaps" in looked
    assert said("rollback") == "session 7: counter@2 -> counter@1 from seq 5, memory kept"
    assert session.step(ONE).action[0] == 6


def test_a_shadow_is_ended(said, session, client):
    said("shadow", "other")
    assert said("shadow") == "nothing runs along"
    assert client.request("status")["sessions"][0]["candidate"] is None
    complaint = said("promote", "--session", "7", status=2)
    assert complaint == "adaptd: session 7 has no candidate in the shadow [NO_CANDIDATE]"
    assert "no session has a candidate" in said("promote", status=2)


def test_a_session_is_frozen_and_thawed(said, session):
    assert said("freeze", "--session", "7") == "session 7 is frozen"
    assert "frozen" in said("status")
    assert [session.step(ONE).action[0] for _ in range(2)] == [4, 4]
    assert said("thaw") == "session 7 is adapting again"
    assert [session.step(ONE).action[0] for _ in range(2)] == [4, 5]


def test_a_session_is_stopped_and_armed_again(said, session):
    assert said("stop") == "session 7 is stopped"
    assert session.step(ONE).action.tolist() == [0, 0.5]
    looked = said("status")
    assert "7 counter@1 adapted 3 stopped" in looked and "1 stale" in looked
    assert said("rearm", "--session", "7") == "session 7 is armed"
    assert session.step(ONE).action[0] == 4


def test_without_sessions_a_switch_says_so(said, client):
    for command in ("freeze", "thaw", "stop", "rearm"):
        assert said(command) == "no session is open"


def test_an_adaptation_goes_to_a_file_and_back(said, session, tmp_path):
    file = tmp_path / "adapted"
    printed = said("snapshot", str(file), "--session", "7")
    assert printed == f"{file}: counter@1 as adapted at seq 3, {file.stat().st_size} bytes"
    assert said("reset", "--session", "7") == "session 7 starts from the prior at seq 3"
    assert session.step(ONE).action[0] == 1
    printed = said("restore", str(file), "--session", "7")
    assert re.fullmatch(r"session 7 goes on (un)?adapt\w+ at seq 4", printed)
    assert session.step(ONE).action[0] == 4


def test_a_file_that_cannot_be_used_is_a_sentence(said, session, tmp_path):
    nowhere = str(tmp_path / "nowhere" / "file")
    assert said("snapshot", nowhere, "--session", "7", status=2) == (
        f"adaptd: {nowhere} cannot be written: No such file or directory"
    )
    assert said("restore", nowhere, "--session", "7", status=2) == (
        f"adaptd: {nowhere} cannot be read: No such file or directory"
    )
    (tmp_path / "empty").write_bytes(b"")
    complaint = said("restore", str(tmp_path / "empty"), "--session", "7", status=2)
    assert complaint.startswith("adaptd: the snapshot cannot be restored: it is no snapshot")
    complaint = said("restore", "--session", "7", status=2)
    assert complaint == "adaptd: give either a snapshot or last_good [INVALID_REQUEST]"


def test_the_last_good_memory_is_asked_for(said, session):
    complaint = said("restore", "--session", "7", "--last-good", status=2)
    assert "has not been adapted for long enough" in complaint and "NOTHING_GOOD" in complaint
    for _ in range(97):
        session.step(ONE)
    for _ in range(5):
        session.step(-ONE)
    printed = said("restore", "--session", "7", "--last-good")
    assert printed == "session 7 goes on adapted at seq 105"
    assert session.step(ONE).requested[0] == 101


def test_options_are_set(said, client):
    opened = client.open("boosted", session=8)
    assert said("options", "--session", "8", "--set", "boost=2.5") == "boost = 2.5"
    assert opened.step(ONE).action[0] == 3.5
    complaint = said("options", "--session", "8", "--set", "boost=9", status=2)
    assert complaint == "adaptd: option 'boost' is 9, allowed -1 to 5 [UNKNOWN_OPTION]"
    complaint = said("options", "--session", "8", "--set", "boots=1", status=2)
    assert "boosted has no option 'boots'" in complaint
    complaint = said("options", "--session", "8", "--set", "boost", status=2)
    assert complaint == "adaptd: 'boost': expected name=number ..."


def test_a_quarantine_is_shown_and_ended(said, session):
    for _ in range(2):
        assert "memory replayed" in said("swap", "loud", "--session", "7")
        session.step(ONE)
        session.step(FAR)
        session.step(-FAR)
    reason = "its output is not finite or its step failed"
    assert f"in quarantine: loud@1, {reason}" in said("status")
    assert re.search(r"loud@1 hand-made 0 in quarantine", said("policies"))
    for command in ("swap", "shadow", "load"):
        assert "loud@1 is in quarantine, it was sent back twice" in said(command, "loud", status=2)
    complaint = said("release", "counter@1", status=2)
    assert "there is no policy in quarantine 'counter@1'" in complaint
    assert said("release", "loud@1") == "loud@1 may be used again"
    assert "quarantine" not in said("status")
    assert said("load", "loud") == "loud@1 is in memory"


def test_a_session_is_closed(said, session, client):
    assert said("close", "--session", "7") == "session 7 is closed"
    assert client.request("status")["sessions"] == []
    assert said("close", "--session", "7", status=2) == (
        "adaptd: there is no session 7 [UNKNOWN_SESSION]"
    )


def test_the_status_tells_of_room_and_refusals(said, session, client, daemon):
    looked = said("status")
    size = client.request("status")["state_bytes_per_session"]["counter@1"]
    assert f"state of one session of counter@1: {size // 1024} KiB" in looked
    assert "frames refused: none" in looked and "in memory: " in looked
    assert json.loads(daemon.log.read_text().splitlines()[0])["event"] == "startup"


@pytest.mark.parametrize("command", ["reset", "snapshot", "restore", "options", "close"])
def test_a_command_about_one_session_needs_its_number(command, capsys):
    with pytest.raises(SystemExit):
        adaptd([command])
    assert "--session" in capsys.readouterr().err
