"""A daemon that asks for keys, and somebody who means harm."""

import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from runtime.access import self_test as testing
from runtime.access.authoriser import DOMAINS, authorise
from runtime.access.connections import MOST_UNFINISHED, Connections
from runtime.access.door import Door
from runtime.access.gate import MOST_TOPICS, Gate
from runtime.access.self_test import self_test
from runtime.benchmark.keys import loopback
from runtime.config import KeysConfig
from runtime.errors import InvalidConfig, ProtocolError
from runtime.keyfile import read_key
from runtime.messages import ActionFlag, Code, Header, Kind, planes, unpack
from runtime.registry import Registry
from runtime.requests import Refusal, parse_request
from runtime.transport import (
    MAX_QUEUED_REQUESTS,
    SUBSCRIPTIONS_AT_ONCE,
    ControlPlane,
    DataPlane,
)
from tests.keyed import KeyedDaemon, bare, wait_for
from tests.tcp_tapper import Tapper

ONE = np.array([1.0, 0.0])


@pytest.fixture
def daemon(models, keys):
    """A daemon that asks for them, and is impatient with who does not show one."""
    with KeyedDaemon(models, keys, keys__handshake_s="0.5") as process:
        yield process


def observation(session: int, seq: int) -> bytes:
    header = Header(Kind.OBSERVATION, 0, session, seq, 0, first=2)
    return header.pack() + np.array([1, 0], np.float32).tobytes()


def data_port(daemon) -> int:
    return int(daemon.endpoint.rpartition(":")[2])


def test_a_replayed_frame_is_refused_and_counted(daemon, keys):
    """Bytes taken from the wire and sent again: on the connection they came by, and on another."""
    key = read_key(keys.folder / "robot.key")
    with daemon.of("robot") as robot, Tapper(data_port(daemon)) as tapper:
        session = robot.open("counter@1")
        with bare(daemon, key, "data", address=tapper.address) as wire:
            wire.send(observation(session.id, 0))
            assert wire.poll(5000) and unpack(wire.recv()).kind == Kind.ACTION
            before = len(tapper.kept)
            wire.send(observation(session.id, 1))
            assert wire.poll(5000) and unpack(wire.recv()).kind == Kind.ACTION
            whole = tapper.kept
            tapper.add(whole[before:])
            wait_for(lambda: daemon.access()["refused_handshakes"].get("replayed") == 1)
        (row,) = robot.request("status", session=session.id)["sessions"]
        assert (row["next_seq"], row["steps"], row["repeated"]) == (2, 2, 0)
        counted = sum(daemon.access()["refused_handshakes"].values())
        with socket.create_connection(("127.0.0.1", data_port(daemon))) as again:
            again.sendall(whole)  # the handshake too, word for word
            wait_for(lambda: sum(daemon.access()["refused_handshakes"].values()) > counted)
        (row,) = robot.request("status", session=session.id)["sessions"]
        assert (row["next_seq"], row["steps"], row["repeated"]) == (2, 2, 0)


def test_a_client_that_sends_a_frame_again_makes_no_second_step(daemon, keys):
    with daemon.of("robot") as robot:
        session = robot.open("counter@1")
        with bare(daemon, read_key(keys.folder / "robot.key"), "data") as wire:
            answers = []
            for seq in (0, 1, 1, 0):
                wire.send(observation(session.id, seq))
                assert wire.poll(5000)
                answers.append(unpack(wire.recv()))
        assert [a.kind for a in answers] == [Kind.ACTION] * 3 + [Kind.ERROR]
        assert answers[2].flags & ActionFlag.REPEATED and answers[3].status == Code.OLD_SEQ
        (row,) = robot.request("status", session=session.id)["sessions"]
        assert (row["steps"], row["repeated"], row["refused"]) == (2, 1, 1)


def test_a_message_of_frames_without_end_costs_its_sender_the_connection(daemon, keys):
    key, frame = read_key(keys.folder / "robot.key"), bytes(30_000)
    with daemon.of("robot") as robot, Tapper(data_port(daemon)) as tapper:
        session = robot.open("counter@1")
        tapper.pass_at_most = MOST_UNFINISHED + (4 << 20)
        with bare(daemon, key, "data", address=tapper.address) as wire:
            wire.send_multipart([frame] * (2 * MOST_UNFINISHED // len(frame)), zmq.NOBLOCK)
            ended = wait_for(lambda: daemon.access()["ended_connections"])
            assert ended == {"endless_message": 1}
        assert session.step(ONE).action[0] == 1  # of the same client, by another connection


def test_messages_of_several_frames_are_dropped_and_counted(daemon, keys):
    with daemon.of("robot") as robot, daemon.of("operator") as operator:
        session = robot.open("counter@1")
        before = operator.request("status")["dropped_messages"]
        key = read_key(keys.folder / "robot.key")
        with bare(daemon, key, "data") as wire, bare(daemon, key, "stream", zmq.PUSH) as stream:
            for socket_ in (wire, stream):
                socket_.send_multipart([observation(session.id, 0), b"more"])
            wait_for(lambda: operator.request("status")["dropped_messages"] == before + 2)
        assert session.step(ONE).seq == 0


def test_the_largest_observation_fits_and_a_larger_one_does_not(daemon, keys):
    """Encryption makes frames longer; what may be sent is as long as without."""
    with bare(daemon, read_key(keys.folder / "robot.key"), "data") as wire:
        header = Header(Kind.OBSERVATION, 4, 1, 0, 0, first=4096, second=4096)
        wire.send(header.pack() + bytes(8 * 4096))
        assert wire.poll(5000) and unpack(wire.recv()).status == Code.UNKNOWN_SESSION
        wire.send(bytes(100_000))
        assert not wire.poll(300)


def test_who_shows_no_key_in_time_is_disconnected(daemon):
    with socket.create_connection(("127.0.0.1", data_port(daemon))) as idle:
        idle.settimeout(10)
        while idle.recv(1000):  # a greeting, and then the end
            pass
    wait_for(lambda: daemon.access()["refused_handshakes"].get("broken_off"))


@pytest.mark.fault(
    "many connections show no key", "They are ended; a client with a key is served meanwhile."
)
def test_many_who_say_nothing_keep_nobody_out(daemon):
    idle = [socket.create_connection(("127.0.0.1", data_port(daemon))) for _ in range(200)]
    with daemon.of("robot") as robot:
        assert robot.open("counter@1").step(ONE).action[0] == 1
    for one in idle:
        one.close()


def test_refusals_do_not_flood_the_log(daemon):
    with daemon.of("robot") as robot:
        for session in range(1, 40):
            with pytest.raises(ProtocolError, match="may not ask for swap"):
                robot.request("swap", policy="other", session=session)
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert sum(line["event"] == "access_refusal" for line in lines) <= 5 + 5  # of two spans at most
    assert daemon.access()["refused_messages"] == {"control": {"NOT_ALLOWED": 39}}


def test_subscriptions_without_end_do_not_hold_robots_up(models, keys):
    with (
        KeyedDaemon(models, keys, keys__messages_per_s="500") as daemon,
        daemon.of("robot") as robot,
        bare(daemon, read_key(keys.folder / "switcher.key"), "tap", zmq.XSUB) as tap,
    ):
        session = robot.open("counter@1")
        tap.setsockopt(zmq.SNDHWM, 0)
        for _ in range(4):
            for topic in range(1000):
                tap.send(b"\x01" + topic.to_bytes(8, "little"))
            assert not session.step(ONE, timeout_s=5).silent
        wait_for(lambda: daemon.access()["refused_messages"].get("tap", {}).get("TOO_FAST"))


def test_the_loop_follows_a_few_subscriptions_at_a_time(tmp_path):
    context, addresses = zmq.Context(), planes(f"ipc://{tmp_path}/adaptd")
    plane, many = DataPlane(context, addresses), context.socket(zmq.XSUB)
    many.connect(addresses.tap)
    for topic in range(5 * SUBSCRIPTIONS_AT_ONCE):
        many.send(b"\x01" + topic.to_bytes(8, "little"))
    seen = [0]
    while seen[-1] < 5 * SUBSCRIPTIONS_AT_ONCE:
        plane.serve(lambda *_: [], time.monotonic_ns, 5.0)
        seen.append(len(plane._subscribed))
        assert seen[-1] - seen[-2] <= SUBSCRIPTIONS_AT_ONCE
    many.close(linger=0)
    plane.close()


def test_a_connection_sees_so_many_sessions_one_by_one(keys):
    gate = Gate(KeysConfig(folder=keys.folder), Registry(), time.monotonic_ns)
    gate.put(keys.clients())
    (key,) = keys.clients()["onlooker"].keys
    topic = bytes(8)
    assert gate.subscription(key, topic, MOST_TOPICS - 1)
    assert not gate.subscription(key, topic, MOST_TOPICS)
    assert gate.refused == {("tap", "TOO_MANY_SESSIONS"): 1}


class Behind:
    """Sockets as the daemon has them, behind a door."""

    def __init__(self, folder: Path, host: str = "127.0.0.1"):
        context, limits = zmq.Context(), KeysConfig(folder=folder)
        self.gate = Gate(limits, Registry(), time.monotonic_ns)
        self.door = Door(context, limits, self.gate, time.monotonic_ns)
        self.addresses = planes(loopback().replace("127.0.0.1", host))
        kinds = {"data": zmq.ROUTER, "control": zmq.ROUTER, "tap": zmq.XPUB, "stream": zmq.PULL}
        self.sockets = {plane: context.socket(kind) for plane, kind in kinds.items()}
        for plane, found in self.sockets.items():
            found.setsockopt(zmq.IPV6, int(":" in host))
            self.door.secure(found, plane)
            found.bind(getattr(self.addresses, plane))

    def close(self) -> None:
        for found in self.sockets.values():
            found.disable_monitor()
            found.close(linger=0)
        self.door.stop()


@pytest.fixture
def behind(keys):
    """A door without a daemon."""
    found = Behind(keys.folder)
    yield found
    found.close()


def test_a_door_that_is_sound_passes_its_self_test(behind):
    behind.door.start()
    self_test(behind.door, behind.addresses)
    assert not behind.door.refused


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="needs IPv6")
@pytest.mark.parametrize("where", ["[::1]", "[::]"])
def test_the_self_test_knocks_on_ipv6_too(keys, where):
    found = Behind(keys.folder, where)
    found.door.start()
    self_test(found.door, found.addresses)
    found.close()


def test_the_self_test_finds_a_door_that_lets_anybody_in(behind):
    behind.gate.why_not = lambda key: ""
    behind.door.start()
    with pytest.raises(InvalidConfig, match=r"the data plane at .* let a random key in"):
        self_test(behind.door, behind.addresses)


def test_the_self_test_finds_a_door_that_does_not_answer(behind, monkeypatch):
    """Which lets nobody in: libzmq waits for its answer."""
    monkeypatch.setattr(testing, "TIMEOUT_S", 0.5)
    with pytest.raises(InvalidConfig, match=r"did not refuse a random key within 0\.5 s"):
        self_test(behind.door, behind.addresses)
    behind.door.start()


def test_large_requests_take_more_of_a_clients_share(keys):
    now = [0]
    gate = Gate(KeysConfig(folder=keys.folder, requests_per_s=100), Registry(), lambda: now[0])
    gate.put(keys.clients())
    (key,) = keys.clients()["onlooker"].keys
    small = b'{"version": 1, "op": "policies"}'

    def let_in(request: bytes) -> int:
        """How many in a row."""
        for count in range(1000):
            try:
                gate.admit(key, request, lambda function: function())
            except Refusal as refusal:
                assert refusal.record["code"] == "TOO_FAST"
                return count
        raise AssertionError

    for size, count in ((0, 100), (9 << 16, 10), (16 << 20, 1)):  # the last has more than there are
        assert let_in(small + b" " * (size - len(small))) == count
        now[0] += 1_000_000_000


def test_a_list_that_is_broken_is_told_of_until_it_is_whole(behind, keys):
    """A reload, which brings other limits, does not make it so."""
    text = keys.list.read_text()
    keys.list.unlink()
    behind.door.reread()
    behind.door.limit(KeysConfig(folder=keys.folder, sessions=1))
    behind.door.reread()
    assert "cannot be read" in behind.door.trouble
    keys.list.write_text(text)
    behind.door.reread()
    assert behind.door.trouble == ""
    behind.door.start()


def test_who_loses_sessions_to_another_client_loses_their_tap(keys):
    """A former key that is another client's now."""
    gate, clients = (
        Gate(KeysConfig(folder=keys.folder), Registry(), time.monotonic_ns),
        keys.clients(),
    )
    (mine,), former = clients["robot"].keys, "f" * 40
    before = clients | {"robot": clients["robot"].model_copy(update={"former": (former,)})}
    gate.put(before)
    assert gate.put(before) == (set(), set())
    assert gate.put(clients) == (set(), {mine})


KEY = b"k" * 32
QUESTION = [b"1.0", b"1", b"adaptd-data", b"10.0.0.7", b"", b"CURVE", KEY]


def test_a_question_and_its_answers_by_hand():
    """As in rfc.zeromq.org/spec/27: version, request id, status, its text, user id, metadata."""
    text = z85.encode(KEY).decode()
    let_in = authorise(QUESTION, lambda key: "" if key == text else "unknown_key")
    assert let_in.reply == (b"1.0", b"1", b"200", b"", text.encode(), b"") and not let_in.refused
    refused = authorise(QUESTION, lambda key: "unknown_key")
    assert refused.reply == (b"1.0", b"1", b"400", b"", b"", b"")
    assert refused[1:] == ("unknown_key", "data", "10.0.0.7", text)


@given(st.data())
def test_only_whole_questions_of_known_planes_are_answered_by_yes(data):
    """Any frame may be anything, and there may be more or fewer of them."""
    question = list(QUESTION)
    at = data.draw(st.integers(0, len(question) - 1))
    question[at] = data.draw(st.binary(max_size=40))
    if data.draw(st.booleans()):
        question = question[: data.draw(st.integers(0, len(question)))]
    verdict = authorise(question, lambda key: "")
    whole = len(question) == 7 and question[0] == b"1.0" and question[2] in DOMAINS
    sound = whole and question[5] == b"CURVE" and len(question[6]) == 32
    assert (verdict.reply[2] == b"200") == sound == (not verdict.refused)
    assert len(verdict.reply) == 6


def test_a_descriptor_that_was_given_away_again_is_not_shut_down():
    """The connection is told by its other end's address, not by its number alone."""
    now, connections = [0], Connections(10, lambda: now[0])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
        connections.accepted("data", near.fileno())
        held = connections.of_message(near.fileno(), "a key")
        second = socket.create_connection(listener.getsockname())
        later, _ = listener.accept()
        os.dup2(later.fileno(), near.fileno())
        assert held is not None
        assert not connections.end(held, "revoked") and not connections.ended
        later.sendall(b"still there")
        assert second.recv(100) == b"still there"
        for found in (first, near, second, later):
            found.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_is_not_forgotten_for_one_that_had_its_descriptor_before(host):
    """Somebody connects to another plane and goes; the planes are heard one after the other."""
    connections = Connections(10, lambda: 0)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        far = socket.create_connection(listener.getsockname()[:2])
        near, _ = listener.accept()
        connections.accepted("data", near.fileno())
        connections.accepted("control", near.fileno())  # which was before that
        connections.closed("control", near.fileno())
        found = connections.of_message(near.fileno(), "a key")
        assert found is not None and found.plane == "data"
        assert connections.end(found, "revoked") and far.recv(1) == b""
        far.close()
        near.close()


def test_more_connections_than_there_may_be_are_ended():
    connections = Connections(2, lambda: 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pairs = []
        for _ in range(3):
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
            connections.accepted("data", near.fileno())
            pairs += [far, near]
        assert connections.ended == {"too_many": 1} and pairs[4].recv(1) == b""
        for found in pairs:
            found.close()


def test_the_keys_are_for_their_owners_alone(keys: object, tmp_path: Path):
    for path in (tmp_path / "keys").glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_request_that_would_take_long_to_read_is_refused_unread():
    """Reading one holds up the control loop: these took seconds."""
    unknown = ",".join(f'"k{k}":0' for k in range(100_000))
    for text in (f'{{"version":1,"op":"open",{unknown}}}', "[" * 100_000, "[" + "[]," * 100_000):
        with pytest.raises(Refusal, match=r"has \d+ values, at most 4096 may be"):
            parse_request(text.encode())
    values = ",".join(f'"{k}":0' for k in range(1000))
    whole = f'{{"version":1,"op":"options","session":1,"values":{{{values}}}}}'
    assert len(parse_request(whole.encode()).values) == 1000


def test_a_policys_name_without_end_is_not_told_in_the_log():
    for op in ("open", "load", "swap", "shadow", "manifest", "release"):
        request = json.dumps({"version": 1, "op": op, "policy": "a" * 100_000})
        with pytest.raises(Refusal, match="policy: String should have at most 120") as refused:
            parse_request(request.encode())
        assert len(json.dumps(refused.value.record)) < 300


def test_large_requests_that_are_not_looked_at_yet_wait_at_their_sender(tmp_path):
    """A client could otherwise fill the daemon's memory while it is busy: 4096 of 16 MiB."""
    context, addresses = zmq.Context(), planes(f"ipc://{tmp_path}/adaptd")
    plane, client = ControlPlane(context, addresses), context.socket(zmq.DEALER)
    client.setsockopt(zmq.SNDHWM, 1)
    client.connect(addresses.control)
    sent = 0
    while client.poll(200, zmq.POLLOUT) and sent < 2 * MAX_QUEUED_REQUESTS:
        client.send(bytes(1 << 20))
        sent += 1
    assert MAX_QUEUED_REQUESTS <= sent < 2 * MAX_QUEUED_REQUESTS
    for _ in range(sent):
        assert plane.serve(lambda request: b"", 5000)
    client.close(linger=0)
    plane.close()
