"""The daemon as a process, over real sockets: what a robot and an operator see."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
import zmq

from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig, ProtocolError
from runtime.messages import ActionFlag, Adaptation, Code, Header, Kind, planes, unpack
from runtime.store import Store
from tests.bundles import write_bundle

ONE = np.array([1.0, 0.0])


def raw(endpoint, plane=0, kind=zmq.DEALER):
    """A bare socket on one of the daemon's planes."""
    bare = zmq.Context.instance().socket(kind)
    bare.setsockopt(zmq.LINGER, 0)
    bare.connect(planes(endpoint)[plane])
    return bare


def receive(bare, timeout_ms=5000):
    assert bare.poll(timeout_ms), "no reply"
    return bare.recv_multipart()


def test_a_session_steps_resumes_and_ends(client):
    session = client.open("counter@1")
    assert not session.resumed and session.next_seq == 0
    assert [e["unit"] for e in session.facts["action"]] == ["N", "rad"]
    assert [session.step(ONE).action[0] for _ in range(3)] == [1, 2, 3]
    again = client.open(session=session.id)
    assert again.resumed and again.next_seq == 3
    assert again.step(ONE).action[0] == 4
    with pytest.raises(ProtocolError, match="adapts from prev_reward"):
        client.open(session=session.id, sends_reward=False)
    session.close()
    with pytest.raises(ProtocolError, match="there is no session"):
        again.step(ONE)


def test_an_operator_swaps_mid_episode_and_rolls_back(client):
    session = client.open("counter@1")
    for _ in range(4):
        session.step(ONE)
    (report,) = client.request("swap", policy="other")["swaps"]
    assert (report["carry"], report["replayed_steps"], report["from_seq"]) == ("replayed", 4, 4)
    answer = session.step(ONE)
    assert answer.action[0] == 5 and answer.generation == 2
    assert answer.flags & ActionFlag.SWAPPED
    (report,) = client.request("rollback", session=session.id)["swaps"]
    assert report["new"] == "counter@1"
    answer = session.step(ONE)
    assert answer.action[0] == 6 and answer.generation == 3


def test_a_rollback_before_the_next_tick_takes_the_swap_back(client):
    session = client.open("counter@1")
    session.step(ONE)
    client.request("swap", policy="other")
    (report,) = client.request("rollback", session=session.id)["swaps"]
    assert (report["old"], report["new"], report["carry"]) == ("other@1", "counter@1", "kept")
    answer = session.step(ONE)
    assert answer.action[0] == 2 and answer.generation == 1


def test_a_robot_at_control_rate_misses_nothing_while_policies_are_loaded_and_swapped(models):
    """Ticks are in flight throughout; each policy sums all observations, whoever saw them."""
    for version in range(2, 8):
        write_bundle(models, "other", version, carry_size=version)
    swapping = threading.Event()
    swaps = []

    def operate():
        with Client(daemon.endpoint, timeout_s=60) as operator:
            for version in range(2, 8):
                swaps.extend(operator.request("swap", policy=f"other@{version}")["swaps"])
        swapping.set()

    # All ticks fit into the ring, and their sum into the action's bounds.
    with DaemonProcess(models, ring_size="16384") as daemon, daemon.client() as client:
        session = client.open("counter@1")
        operator = threading.Thread(target=operate)
        small, answers = np.array([1e-5, 0.0]), []
        while len(answers) < 50 or not swapping.is_set() or len(answers) <= swaps[-1]["from_seq"]:
            if len(answers) == 20:
                operator.start()
            answers.append(session.step(small))
            time.sleep(0.001)
        operator.join()
    assert [s["carry"] for s in swaps] == ["replayed"] * 6
    assert {a.generation for a in answers} == set(range(1, 8))
    assert not any(a.silent or a.flags & ActionFlag.GAP for a in answers)
    sums = [a.action[0] for a in answers]
    np.testing.assert_allclose(sums, 1e-5 * np.arange(1, len(sums) + 1), rtol=1e-3)


@pytest.mark.fault(
    "a robot's driver is killed", "Its session goes on where it was when it comes back."
)
def test_the_killed_clients_session_goes_on_where_it_was(daemon):
    script = (
        "import sys, time, numpy as np\n"
        "from runtime.client import Client\n"
        "session = Client(sys.argv[1]).open('counter@1')\n"
        "for _ in range(5): session.step(np.array([1.0, 0.0]))\n"
        "print(session.id, flush=True)\n"
        "time.sleep(60)\n"
    )
    robot = subprocess.Popen(
        [sys.executable, "-c", script, daemon.endpoint], stdout=subprocess.PIPE, text=True
    )
    session_id = int(robot.stdout.readline())
    robot.kill()
    robot.wait()
    with daemon.client() as client:
        session = client.open(session=session_id)
        assert session.resumed and session.next_seq == 5
        assert session.step(ONE).action[0] == 6


def test_the_tap_shows_every_tick_to_whoever_looks(daemon, client):
    session, other = client.open("counter@1"), client.open("counter@1")
    with daemon.client() as onlooker:
        tap = onlooker.tap(session.id)
        time.sleep(0.5)  # until the subscription has reached the daemon
        for _ in range(3):
            session.step(ONE)
            other.step(ONE)
        seen = []
        while len(seen) < 3:
            found = tap.ticks(timeout_s=2)
            assert found
            seen += found
    assert [tick.seq for tick in seen] == [0, 1, 2]
    assert {tick.session for tick in seen} == {session.id}
    assert [tick.answer.action[0] for tick in seen] == [1, 2, 3]
    np.testing.assert_allclose([tick.belief.item() for tick in seen], [1 / 2, 1 / 5, 1 / 10])
    assert seen[0].observation.tolist() == [1, 0]


def test_reset_goes_back_to_the_prior(client):
    session = client.open("counter@1")
    session.step(ONE)
    client.request("reset", session=session.id)
    assert session.step(ONE).action[0] == 1


@pytest.mark.fault(
    "a client sends noise", "It is answered by an error or counted; nothing changes."
)
def test_garbage_on_the_data_socket_is_answered_or_counted(daemon, client):
    session = client.open("counter@1")
    session.step(ONE)
    bare = raw(daemon.endpoint)
    expected = {
        b"": Code.MALFORMED,
        b"\xff" * 64: Code.MALFORMED,
        b"x" * 1000: Code.MALFORMED,
        Header(Kind.OBSERVATION, 0, session.id, 1, 0, version=9).pack(): Code.WRONG_VERSION,
        Header(Kind.OBSERVATION, 0, 12345, 1, 0).pack(): Code.UNKNOWN_SESSION,
    }
    for frame, code in expected.items():
        bare.send(frame)
        (reply,) = receive(bare)
        assert unpack(reply).kind == Kind.ERROR and unpack(reply).status == code
        assert b"Traceback" not in reply
    bare.send_multipart([b"too", b"many", b"frames"])  # counted, not answered
    assert not bare.poll(100)
    rng = np.random.default_rng(0)
    for _ in range(500):
        bare.send(rng.bytes(int(rng.integers(0, 300))))
        receive(bare)
    bare.close()
    assert session.step(ONE).action[0] == 2
    facts = client.request("status")
    assert facts["refused_frames"]["MALFORMED"] >= 503 - 2
    assert facts["sessions"][0]["next_seq"] == 2


@pytest.mark.fault(
    "a client sends a frame of 10 MB", "It loses its connection; nobody else notices."
)
def test_an_oversized_frame_costs_its_sender_the_connection_and_nobody_else(daemon, client):
    session = client.open("counter@1")
    bare = raw(daemon.endpoint)
    bare.send(bytes(10_000_000))
    assert not bare.poll(300)
    bare.close()
    assert session.step(ONE).action[0] == 1


BAD_REQUESTS = {
    b"": ("INVALID_REQUEST", "not JSON"),
    b"\xff\xfe": ("INVALID_REQUEST", "not JSON"),
    b"[" * 4000: ("INVALID_REQUEST", "not JSON"),
    b"[" * 100_000: ("INVALID_REQUEST", "has 100001 values"),
    b"[]": ("INVALID_REQUEST", "dictionary"),
    b"{}": ("WRONG_VERSION", "this side speaks 1"),
    b'{"version": 7, "op": "status"}': ("WRONG_VERSION", "version is '7'"),
    b'{"version": 1, "op": "statsu"}': ("INVALID_REQUEST", "Did you mean 'status'?"),
    b'{"version": 1, "op": "swap"}': ("INVALID_REQUEST", "swap.policy: Field required"),
    b'{"version": 1, "op": "open", "polcy": "x"}': ("INVALID_REQUEST", "open.polcy: Extra inputs"),
    b'{"version": 1, "op": "open", "session": -1}': ("INVALID_REQUEST", "open.session"),
    b'{"version": 1, "op": "open", "policy": "nope"}': ("UNKNOWN_POLICY", "Known: counter, other"),
    b'{"version": 1, "op": "open", "policy": "../x"}': ("INVALID_BUNDLE", "is not a policy"),
    b'{"version": 1, "op": "open"}': ("UNKNOWN_POLICY", "name a policy"),
    b'{"version": 1, "op": "close", "session": 5}': ("UNKNOWN_SESSION", "no session 5"),
    b'{"version": 1, "op": "swap", "policy": "other", "session": 5}': ("UNKNOWN_SESSION", "5"),
    b'{"version": 1, "op": "open", "policy": "other", "sends_reward": false}': (
        "NEEDS_REWARD",
        "other@1 adapts from prev_reward",
    ),
}


def test_bad_requests_get_a_code_and_one_sentence(daemon):
    bare = raw(daemon.endpoint, plane=1)
    for request, (code, sentence) in BAD_REQUESTS.items():
        bare.send_multipart([b"tag", request])
        tag, reply = receive(bare)
        content = json.loads(reply)
        assert tag == b"tag" and content["ok"] is False, request
        assert content["error"]["code"] == code, (request, content)
        assert sentence in content["error"]["sentence"], (request, content)
        assert "Traceback" not in content["error"]["sentence"]
    bare.close()


def test_a_request_socket_that_waits_in_turn_works_too(daemon):
    bare = raw(daemon.endpoint, plane=1, kind=zmq.REQ)
    bare.send(b'{"version": 1, "op": "policies"}')
    (reply,) = receive(bare)
    rows = json.loads(reply)["result"]["policies"]
    assert [r["policy"] for r in rows] == ["counter@1", "counter@2", "other@1"]
    bare.close()


@pytest.mark.fault("a truncated bundle is loaded", "It is refused; what was serving goes on.")
def test_a_broken_bundle_is_refused_and_what_was_serving_goes_on(daemon, client, models):
    session = client.open("counter@1")
    session.step(ONE)
    folder = write_bundle(models, "broken")
    (folder / "policy.onnx").write_bytes(b"not a graph")
    for op in ("swap", "load", "open"):
        with pytest.raises(ProtocolError, match="not the file the manifest describes") as refusal:
            client.request(op, policy="broken")
        assert refusal.value.code == "INVALID_BUNDLE"
    answer = session.step(ONE)
    assert answer.action[0] == 2 and answer.generation == 1
    rows = {r["policy"]: r for r in client.request("policies")["policies"]}
    assert not rows["broken@1"]["loaded"]
    (folder / "manifest.json").write_text("{")
    rows = {r["policy"]: r for r in client.request("policies")["policies"]}
    assert "manifest.json" in rows["broken@1"]["broken"]


def test_a_swap_that_fits_some_sessions_only_changes_none(daemon, client, models):
    write_bundle(models, "fast", control_hz=50.0)
    first, second = client.open("counter@1"), client.open("fast")
    with pytest.raises(ProtocolError, match="cannot take over session") as refusal:
        client.request("swap", policy="counter@2")
    assert refusal.value.code == "INCOMPATIBLE"
    assert [s.step(ONE).generation for s in (first, second)] == [1, 1]
    with pytest.raises(ProtocolError, match="has had one policy only"):
        client.request("rollback", session=first.id)


@pytest.mark.fault(
    "the daemon freezes",
    "The robot acts by the fallback; a late answer is not taken for a new one.",
)
def test_a_silent_daemon_means_the_fallback_and_a_late_answer_is_not_taken(daemon, client):
    session = client.open("counter@1")
    assert session.step(ONE).action[0] == 1
    daemon.process.send_signal(signal.SIGSTOP)
    answer = session.step(ONE, timeout_s=0.1)
    assert answer.silent and answer.action.tolist() == [0.0, 0.5]
    daemon.process.send_signal(signal.SIGCONT)
    answer = session.step(ONE)
    assert not answer.silent and answer.seq == 2
    # The daemon heard all three, and that the fallback's first element, 0, was applied, not 2.
    assert answer.action.tolist() == [3, 0]


def test_a_boundary_that_was_never_heard_is_told_again(client, tmp_path):
    session = client.open("counter@1")
    session.step(ONE)
    connected = session._socket
    session._socket = client._connect(zmq.DEALER, f"ipc://{tmp_path}/nobody")
    assert session.step(ONE, new_task=True, timeout_s=0.1).silent  # this one is lost on its way
    session._socket = connected
    answer = session.step(ONE)
    assert answer.flags & ActionFlag.GAP and answer.action[0] == 1


def test_a_boundary_that_was_heard_late_is_not_told_twice(daemon, client):
    session = client.open("counter@1")
    session.step(ONE)
    daemon.process.send_signal(signal.SIGSTOP)
    assert session.step(ONE, new_task=True, timeout_s=0.1).silent
    daemon.process.send_signal(signal.SIGCONT)
    time.sleep(0.3)  # its answer arrives now
    for bad in ([1.0], [np.nan, 0.0]):
        with pytest.raises(ProtocolError):
            session.step(bad)
    assert session.step(ONE).action[0] == 2


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"observation": np.zeros(9000)}, "WRONG_SIZE"),
        ({"observation": [1.0]}, "WRONG_SIZE"),
        ({"observation": ONE, "applied_action": [1.0]}, "WRONG_SIZE"),
        ({"observation": ONE, "reward": 1e60}, "NOT_FINITE"),
        ({"observation": ONE, "reward": float("nan")}, "NOT_FINITE"),
        ({"observation": [np.nan, 0.0]}, "NOT_FINITE"),
    ],
)
def test_the_client_refuses_what_cannot_be_sent_and_goes_on(client, call, code):
    session = client.open("counter@1")
    with pytest.raises(ProtocolError) as refusal:
        session.step(**call)
    assert refusal.value.code == code
    assert session.step(ONE).action[0] == 1


def test_adaptation_status_is_in_every_answer(client):
    session = client.open("counter@1")
    seen = [session.step(np.array([x, 0.0])).adaptation for x in (0.0, 0.5, 20.0)]
    assert seen[-1] == Adaptation.ADAPTED
    (row,) = client.request("status")["sessions"]
    assert row["adaptation"] == "adapted" and row["steps"] == 3


@pytest.mark.parametrize("stop", ["signal", "request"])
def test_it_stops_in_order_and_within_a_bound(daemon, client, stop):
    client.open("counter@1").step(ONE)
    started = time.monotonic()
    if stop == "signal":
        daemon.process.send_signal(signal.SIGTERM)
    else:
        client.request("shutdown")
    assert daemon.process.wait(timeout=5) == 0
    assert time.monotonic() - started < 3
    events = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert [e["event"] for e in events] == ["startup", "opening", "shutdown"]


def test_a_second_daemon_cannot_take_a_served_endpoint(daemon, client, models):
    with pytest.raises(InvalidConfig, match=r"another adaptd serves .* already"):
        DaemonProcess(models, daemon.endpoint)
    assert client.open("counter@1").step(ONE).action[0] == 1


def test_it_serves_on_a_loopback_port(models):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = min(probe.getsockname()[1], 65000)
    with DaemonProcess(models, f"tcp://127.0.0.1:{port}") as daemon, daemon.client() as client:
        assert client.open("other").step(ONE).action[0] == 1


def serve(*arguments, **environment):
    """Run `adaptd serve` where it is expected not to start; its status and its complaint."""
    result = subprocess.run(
        [sys.executable, "-m", "runtime.cli", "serve", *arguments],
        capture_output=True, text=True, timeout=30, env={**os.environ, **environment},
    )  # fmt: skip
    return result.returncode, result.stderr.strip()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--endpoint", "tcp://0.0.0.0:5700"], "is open to other machines"),
        (["--endpoint", "tcp://192.168.1.5:5700"], "is open to other machines"),
        (["--endpoint", "udp://x"], "expected ipc://PATH or tcp://HOST:PORT"),
        (["--endpoint", "ipc:///tmp/" + "x" * 120], "at most 107 fit"),
        (["--models", "/nowhere"], "/nowhere holds no policy bundles"),
        (["--policy", "conter"], "Did you mean 'counter'?"),
        (["--config", "/nowhere.toml"], "/nowhere.toml cannot be read"),
        (["--log-level", "loud"], "Input should be 'debug'"),
    ],
)
def test_it_does_not_start_on_a_bad_configuration(models, arguments, complaint):
    arguments = arguments if "--models" in arguments else [*arguments, "--models", str(models)]
    status, said = serve(*arguments)
    assert status == 2
    assert complaint in said and "\n" not in said


def test_an_unknown_configuration_key_is_refused_with_the_nearest(models, tmp_path):
    path = tmp_path / "adaptd.toml"
    path.write_text('ring_sise = 5\nmodels = "x"\n')
    status, said = serve("--config", str(path))
    assert status == 2 and "no configuration key 'ring_sise'. Did you mean 'ring_size'?" in said
    status, said = serve(ADAPTD_MODLES="x")
    assert status == 2 and "Did you mean 'models'?" in said
    path.write_text("max_sessions = 0\n")
    status, said = serve("--config", str(path))
    assert status == 2 and "'max_sessions': Input should be greater than 0, got 0" in said


def test_flags_go_over_the_environment_and_that_over_the_file(models, tmp_path):
    path = tmp_path / "adaptd.toml"
    path.write_text('models = "/from/file"\n')
    assert "/from/file holds no" in serve("--config", str(path))[1]
    environment = {"ADAPTD_MODELS": "/from/env"}
    assert "/from/env holds no" in serve("--config", str(path), **environment)[1]
    flags = ["--config", str(path), "--models", "/from/flag"]
    assert "/from/flag holds no" in serve(*flags, **environment)[1]


def test_sessions_are_limited(models):
    with DaemonProcess(models, max_sessions="2") as daemon, daemon.client() as client:
        for _ in range(2):
            client.open("other")
        with pytest.raises(ProtocolError, match="2 sessions are open; close one first"):
            client.open("other")


def test_a_carry_served_over_the_wire_is_the_one_computed_offline(client, models):
    """Ticks with rewards, echoes and boundaries give the bits of a plain loop over the policy."""
    rng = np.random.default_rng(0)
    session = client.open("counter@1")
    policy = Store(models).load("counter@1")
    carry, applied, reward = policy.initial_carry(), np.zeros((1, 2), np.float32), 0.0
    for t in range(60):
        obs, start, new = rng.uniform(-1, 1, (1, 2)).astype(np.float32), t % 7 == 3, t % 20 == 19
        if new or t == 0:
            carry, applied, reward, start = policy.initial_carry(), applied * 0, 0.0, False
        inputs = {
            "obs": obs,
            "prev_action": applied,
            "prev_reward": np.full((1, 1), reward, np.float32),
            "prev_done": np.full((1, 1), start, np.float32),
        }
        step = policy.step(inputs, carry)
        answer = session.step(obs[0], reward, applied[0], start, new)
        assert answer.requested.tobytes() == step.action.tobytes()
        carry, reward = step.carry, float(np.float32(rng.normal()))
        applied = rng.uniform(-1, 1, (1, 2)).astype(np.float32)


@pytest.mark.fault("nobody reads the log", "Robots are answered all the same.")
def test_a_log_that_nobody_reads_does_not_stop_it(models):
    command = [sys.executable, "-m", "runtime.cli", "serve", "--models", str(models)]
    with tempfile.TemporaryDirectory(prefix="adaptd-") as folder:
        endpoint = f"ipc://{folder}/a"
        process = subprocess.Popen(
            [*command, "--endpoint", endpoint], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert b"startup" in process.stdout.readline()
            process.stdout.close()
            with Client(endpoint) as client:
                for _ in range(3):
                    session = client.open("other")
                assert session.step(ONE).action[0] == 1
        finally:
            process.kill()
            process.wait()


def test_a_client_without_a_daemon_says_so(tmp_path):
    with (
        Client(f"ipc://{tmp_path}/nobody", timeout_s=0.2) as client,
        pytest.raises(TimeoutError, match=r"is `adaptd serve` running\?"),
    ):
        client.open("counter")
