"""Who may do what at a daemon that asks for keys: real sockets, real processes."""

import re
from pathlib import Path

import numpy as np
import pytest
import zmq

from runtime.access.key_folder import make_pair
from runtime.access.roles import FRAMES, REQUESTS, TAP
from runtime.cli import main as adaptd
from runtime.client import Client
from runtime.errors import InvalidConfig, ProtocolError
from runtime.keyfile import read_key
from runtime.messages import Code, Header, Kind, unpack
from tests.keyed import KeyedDaemon, bare, events, wait_for

ONE = np.array([1.0, 0.0])
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def daemon(models, keys):
    """A daemon that asks for them."""
    with KeyedDaemon(models, keys) as process:
        yield process


def test_a_client_with_a_key_drives_and_an_operator_operates(daemon):
    with daemon.of("robot") as robot, daemon.of("operator") as operator:
        session = robot.open("counter@1")
        assert [session.step(ONE).action[0] for _ in range(3)] == [1, 2, 3]
        (report,) = operator.request("swap", policy="other", session=session.id)["swaps"]
        assert report["carry"] == "replayed" and session.step(ONE).action[0] == 4
        session.close()
    told = daemon.access()
    assert told["clients"] == 6 and told["connections"] >= 1 and told["trouble"] == ""
    # Who knocked before the door was open has given up.
    assert set(told["refused_handshakes"]) <= {"broken_off"} and told["refused_messages"] == {}


def test_an_unknown_key_is_refused_and_counted(daemon, keys):
    stranger = make_pair("stranger", read_key(keys.folder / "server.key").public)
    with (
        Client(daemon.endpoint, 0.5, stranger) as client,
        pytest.raises(TimeoutError, match="refuses the key of 'stranger'"),
    ):
        client.request("status")
    wait_for(lambda: daemon.access()["refused_handshakes"].get("unknown_key"))
    told = events(daemon, "handshake_refusal")[0]
    assert (told["plane"], told["reason"]) == ("control", "unknown_key")
    assert told["key"] == f"{stranger.public[:8]}..." and told["address"] == "127.0.0.1"


def test_nobody_without_a_key_is_let_in(daemon):
    with (
        Client(daemon.endpoint, 0.5) as client,
        pytest.raises(TimeoutError, match="it asks for a key: give one by --key"),
    ):
        client.request("status")
    wait_for(lambda: daemon.access()["refused_handshakes"].get("no_key"))


def test_a_client_of_another_daemon_is_not_let_in(daemon, keys):
    """It encrypts for another public key: nothing that it says can be read."""
    key = read_key(keys.folder / "robot.key")._replace(server=make_pair("another").public)
    with (
        Client(daemon.endpoint, 0.5, key) as client,
        pytest.raises(TimeoutError, match="the handshake failed"),
    ):
        client.request("status")
    wait_for(lambda: daemon.access()["refused_handshakes"].get("not_decrypted"))


@pytest.mark.parametrize(
    ("name", "op", "fields"),
    [
        ("onlooker", "open", {"policy": "counter@1"}),
        ("operator", "open", {"policy": "counter@1"}),
        ("onlooker", "swap", {"policy": "other"}),
        ("robot", "swap", {"policy": "other"}),
        ("robot", "rearm", {}),
        ("robot", "shutdown", {}),
        ("onlooker", "shutdown", {}),
        ("robot", "reset", {"session": 7}),
        ("robot", "freeze", {}),
        ("robot", "status", {}),
    ],
)
def test_a_known_key_in_the_wrong_role_is_refused_and_counted(daemon, name, op, fields):
    with daemon.of("other") as other:
        theirs = other.open("counter@1", session=7)
        with daemon.of(name) as client, pytest.raises(ProtocolError) as refused:
            client.request(op, **fields)
        expected = "NOT_YOURS" if "session" in fields else "NOT_ALLOWED"
        assert refused.value.code == expected
        told = daemon.access()["refused_messages"]
        assert told == {"control": {expected: 1}}
        assert theirs.step(ONE).action[0] == 1 and daemon.process.poll() is None
    assert events(daemon, "access_refusal")[0]["client"] == name


def test_a_known_key_in_the_wrong_role_sends_no_observations(daemon, keys):
    with daemon.of("robot") as robot:
        session = robot.open("counter@1")
        header = Header(Kind.OBSERVATION, 0, session.id, 0, 0, first=2)
        frame = header.pack() + np.array([1, 0], np.float32).tobytes()
        with bare(daemon, read_key(keys.folder / "onlooker.key"), "data") as data:
            data.send(frame)
            assert data.poll(5000)
            reply = unpack(data.recv())
        assert (reply.kind, reply.status) == (Kind.ERROR, Code.NOT_ALLOWED)
        with bare(daemon, read_key(keys.folder / "onlooker.key"), "stream", zmq.PUSH) as stream:
            stream.send(frame)
            wait_for(lambda: "stream" in daemon.access()["refused_messages"])
        assert session.step(ONE).action[0] == 1
    told = daemon.access()["refused_messages"]
    assert told == {"data": {"NOT_ALLOWED": 1}, "stream": {"NOT_ALLOWED": 1}}


def test_a_session_of_another_client_is_refused_on_every_plane_and_counted(daemon, keys):
    key = read_key(keys.folder / "other.key")
    with daemon.of("robot") as robot, daemon.of("other") as other:
        session = robot.open("counter@1")
        session.step(ONE)
        for op in ("open", "close", "reset", "snapshot", "stop", "status"):
            with pytest.raises(ProtocolError) as refused:
                other.request(op, session=session.id)
            assert refused.value.code == "NOT_YOURS"
        header = Header(Kind.OBSERVATION, 0, session.id, 1, 0, first=2)
        frame = header.pack() + np.array([1, 0], np.float32).tobytes()
        with bare(daemon, key, "data") as data:
            data.send(frame)
            assert data.poll(5000)
            reply = unpack(data.recv())
            assert (reply.status, reply.session, reply.seq) == (Code.NOT_YOURS, session.id, 1)
        with bare(daemon, key, "stream", zmq.PUSH) as stream:
            stream.send(frame)
            wait_for(lambda: "stream" in daemon.access()["refused_messages"])
        tap = other.tap(session.id)
        wait_for(lambda: "tap" in daemon.access()["refused_messages"])
        answer = session.step(ONE)
        assert answer.action[0] == 2 and answer.seq == 1  # nothing of the others' counted
        assert not tap.ticks(0.2)
    assert daemon.access()["refused_messages"] == {
        "control": {"NOT_YOURS": 6},
        "data": {"NOT_YOURS": 1},
        "stream": {"NOT_YOURS": 1},
        "tap": {"NOT_YOURS": 1},
    }


def test_sessions_belong_to_their_key_after_a_crash_a_swap_and_a_restore(daemon):
    with daemon.of("robot") as robot, daemon.of("operator") as operator:
        session = robot.open("counter@1")
        session.step(ONE)
        operator.request("swap", policy="other", session=session.id)
        session.step(ONE)
        kept = robot.request("snapshot", session=session.id)["snapshot"]
        robot.request("restore", session=session.id, snapshot=kept)
        assert session.step(ONE).action[0] == 3
    daemon.kill()
    daemon.start()
    with daemon.of("other") as other, daemon.of("robot") as robot:
        with pytest.raises(ProtocolError, match="was not opened by other"):
            other.open(session=session.id)
        again = robot.open(session=session.id)
        assert again.resumed and again.step(ONE).action[0] == 4


def test_one_who_drives_sees_its_own_sessions_on_the_tap(daemon):
    with daemon.of("robot") as robot:
        stream = robot.stream("counter@1")

        def answered() -> bool:
            stream.send(ONE)
            return bool(stream.answers(timeout_s=0.2))

        wait_for(answered)
        everything = robot.tap()
        wait_for(lambda: "tap" in daemon.access()["refused_messages"])
        stream.send(ONE)
        assert not everything.ticks(0.3)
    assert daemon.access()["refused_messages"] == {"tap": {"NOT_YOURS": 1}}


def test_a_client_has_a_share_of_sessions_messages_and_requests(models, keys):
    limits = {"sessions": "2", "messages_per_s": "20", "requests_per_s": "10"}
    settings = {f"keys__{name}": value for name, value in limits.items()}
    with KeyedDaemon(models, keys, **settings) as daemon:
        with daemon.of("robot") as robot, daemon.of("other") as other:
            session = robot.open("counter@1")
            robot.open("counter@1")
            with pytest.raises(ProtocolError, match="has 2 sessions open") as refused:
                robot.open("counter@1")
            assert refused.value.code == "TOO_MANY_SESSIONS"
            patient = other.open("counter@1")
            refusal = until_refused(lambda: session.step(ONE))
            assert "more than 20 observations a second" in refusal.sentence
            assert patient.step(ONE).action[0] == 1  # others have their own share
            refusal = until_refused(lambda: robot.request("status", session=session.id))
            assert "more than 10 requests a second" in refusal.sentence
            before = session.next_seq
            wait_for(lambda: unless_refused(lambda: session.step(ONE)))
            assert session.next_seq == before + 1
        told = wait_for(lambda: unless_refused(daemon.access))["refused_messages"]
    assert told["control"]["TOO_MANY_SESSIONS"] == 1 and told["control"]["TOO_FAST"] >= 1
    assert told["data"]["TOO_FAST"] >= 1


def until_refused(ask) -> ProtocolError:
    """Ask over and over; how that is refused at last."""
    for _ in range(1000):
        try:
            ask()
        except ProtocolError as error:
            return error
    raise AssertionError("it was never refused")


def unless_refused(ask):
    """The answer; None where it is refused."""
    try:
        return ask()
    except ProtocolError:
        return None


def test_it_does_not_start_without_what_it_needs(models, keys, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    keys.list.rename(tmp_path / "clients.toml")
    with pytest.raises(InvalidConfig, match=r"the allow-list .* cannot be read"):
        KeyedDaemon(models, keys)
    (tmp_path / "clients.toml").rename(keys.list)
    with pytest.raises(InvalidConfig, match="make them by `adaptd keygen"):
        _serve(models, "tcp://0.0.0.0:5700")
    with pytest.raises(InvalidConfig, match=r"there is no .*server.key: `adaptd keygen"):
        _serve(models, "tcp://127.0.0.1:5700", keys__folder=str(elsewhere))
    with pytest.raises(InvalidConfig, match=r"\[keys\] are for tcp"):
        _serve(models, None, keys__folder=str(keys.folder))


def _serve(models, endpoint, **settings):
    from runtime.daemon_process import DaemonProcess

    with DaemonProcess(models, endpoint, **settings):
        pass


def test_the_page_has_the_roles_that_count():
    page = (DOCS / "keys.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", page, re.MULTILINE))
    for request, roles in REQUESTS.items():
        op = request.model_fields["op"].annotation.__args__[0]
        assert told.pop(op) == ", ".join(r for r in ("drive", "operate", "observe") if r in roles)
    assert told.pop("observation") == ", ".join(FRAMES)
    assert told.pop("subscription") == ", ".join(sorted(TAP))


def test_an_id_that_is_anothers_now_is_not_shown_to_who_had_it_before(daemon):
    with daemon.of("robot") as robot, daemon.of("other") as other:
        stream = robot.stream("counter@1", session=7)

        def answered() -> bool:
            stream.send(ONE)
            return bool(stream.answers(timeout_s=0.2))

        wait_for(answered)
        robot.request("close", session=7)
        theirs = other.open("counter@1", session=7)

        def refused() -> bool:
            stream.answers(0.05)
            return "tap" in daemon.access()["refused_messages"]

        wait_for(refused)
        stream.answers()
        assert theirs.step(ONE).action[0] == 1 and not stream.answers(0.3)
    assert daemon.access()["ended_connections"] == {"session_gone": 1}


def test_commands_take_a_key(daemon, keys, capsys):
    where = ["--endpoint", daemon.endpoint, "--key", str(keys.folder / "operator.key")]
    assert adaptd(["status", *where]) == 0
    assert "keys: 6 clients" in capsys.readouterr().out
    assert adaptd(["freeze", *where[:3], str(keys.folder / "onlooker.key")]) == 2
    assert "takes the role drive or operate [NOT_ALLOWED]" in capsys.readouterr().err
