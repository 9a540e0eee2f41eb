"""clients/cpp/adaptd.hpp, built by a compiler that forgives nothing, on a real daemon."""

import json
import os
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
import zmq

from docs.vectors import VECTORS
from runtime.benchmark.bad_network import BadNetwork
from runtime.benchmark.keys import loopback
from runtime.daemon_process import DaemonProcess
from runtime.messages import (
    HEADER_SIZE,
    ActionFlag,
    Adaptation,
    Code,
    Kind,
    Limit,
    ObservationFlag,
    error_frame,
    planes,
    unpack,
)
from tests.cpp_robot import Driver, LossyWire, build
from tests.keyed import KeyedDaemon

ROOT = Path(__file__).parents[1]
HEADER = (ROOT / "clients" / "cpp" / "adaptd.hpp").read_text()
FALLBACK = [0.0, 0.5]


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    """tests/cpp_driver.cpp, built."""
    return build(ROOT / "tests" / "cpp_driver.cpp", tmp_path_factory.mktemp("cpp"))


@pytest.fixture
def robot(program, daemon):
    """A C++ robot on `daemon`."""
    driver = Driver(program, daemon.endpoint)
    yield driver
    driver.close()


@pytest.fixture
def bench(program, tmp_path):
    """A C++ program that no daemon is there for."""
    driver = Driver(program, f"ipc://{tmp_path}/nobody", timeout_s=0.2)
    yield driver
    driver.close()


@pytest.mark.parametrize(
    "members", [Kind, ObservationFlag, ActionFlag, Limit, Adaptation], ids=lambda m: m.__name__
)
def test_the_header_has_every_flag_and_limit_by_its_number(members):
    (body,) = re.findall(rf"enum class {members.__name__} [^{{]*{{([^}}]*)}}", HEADER)
    found = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)", body)}
    assert found == {member.name.lower(): member.value for member in members}


def test_the_header_has_every_code_by_its_number():
    found = {name: int(value) for value, name in re.findall(r'{(\d+), "([A-Z_]+)"}', HEADER)}
    assert found == {code.name: code.value for code in Code}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.sentence[:30])
def test_it_packs_and_parses_the_documented_vectors(bench, vector):
    fields = [*vector.header[:-1]]  # without the version
    payload = vector.payload
    words = payload if isinstance(payload, str) else ",".join(map(str, payload))
    plain = [float(f) if isinstance(f, float) else int(f) for f in fields]
    assert bench.say(f"pack {' '.join(map(str, plain))} | {words}") == vector.frame().hex()
    assert bench.say(f"unpack {vector.frame().hex()}") == plain


def test_it_refuses_what_is_no_message(bench):
    frame = VECTORS[0].frame()
    bad = {
        b"": "MALFORMED",
        b"\xff" * HEADER_SIZE: "MALFORMED",
        frame[:4] + b"\x09" + frame[5:]: "WRONG_VERSION",
        frame[:-1]: "WRONG_SIZE",
        frame + b"\0": "WRONG_SIZE",
    }
    for found, code in bad.items():
        assert bench.say(f"unpack {found.hex()}")["error"] == code


def test_an_endpoint_is_four_addresses(bench):
    for endpoint in ("ipc:///run/a", "tcp://127.0.0.1:5700", "tcp://[::1]:65532"):
        assert bench.say(f"addresses {endpoint}") == list(planes(endpoint))
    for bad in ("ipc://", "tcp://host", "tcp://:1", "http://a:1", "tcp://a:65535", "tcp://a:+1"):
        said = bench.say(f"addresses {bad}")["sentence"]
        assert "expected ipc://PATH or tcp://HOST:PORT" in said, bad


@pytest.mark.parametrize(
    "text",
    [
        "null", "[]", "{}", "-0.125", "1e3", "9007199254740991", '"a\\"b\\\\/\\n\\u0001"',
        '"\\u00e9 \\ud83d\\ude00"', '"é😀"', ' [ 1 , [true, false] , {"a" : {"b": null}} ] ',
        "[" * 60 + "]" * 60,
    ],
)  # fmt: skip
def test_it_reads_json(bench, text):
    assert bench.say(f"json {text}") == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "]", "[1,]", "[1 2]", '{"a"}', '{"a":1,}', "{1:2}", "tru", "truex", "+1", "1.2.3",
        "--1", '"', '"\\', '"\\x"', '"\\u12g4"', "[1]]", "[" * 100, '{"a":' * 10_000,
    ],
)  # fmt: skip
def test_it_refuses_what_is_not_json(bench, text):
    refusal = bench.say(f"json {text}")
    assert refusal["error"] == "MALFORMED" and "not JSON" in refusal["sentence"]


def test_it_writes_strings_that_json_readers_take(bench):
    text = 'a"b\\c\n\x01 é'
    assert bench.say(f"quote {text.encode().hex()}") == text


def test_nobody_there_is_said(bench):
    refusal = bench.say('request {"version": 1, "op": "status"}')
    assert refusal["error"] == "TIMEOUT" and "is `adaptd serve` running?" in refusal["sentence"]


def test_a_session_steps_resumes_and_ends(program, daemon, robot):
    facts = robot.say("open counter@1 0 true")
    assert (facts["resumed"], facts["next_seq"], facts["policy"]) == (False, 0, "counter@1")
    answers = [robot.step() for _ in range(3)]
    # The second element of the action is the first of the one applied before.
    assert [a["action"] for a in answers] == [[1, 0], [2, 1], [3, 1]]
    assert [a["seq"] for a in answers] == [0, 1, 2]
    assert answers[2]["limits"] == Limit.BOUNDS and answers[2]["requested"] == [3, 2]
    assert answers[0]["limits"] == 0 and answers[0]["generation"] == 1
    assert all(a["inference_ns"] > 0 and not a["silent"] for a in answers)
    again = Driver(program, daemon.endpoint)
    facts = again.say(f"open - {facts['session']} true")
    assert facts["resumed"] and facts["next_seq"] == 3
    assert again.step("reward=0.5")["action"] == [4.5, 1]
    assert again.say("close") is None
    assert again.step()["error"] == "UNKNOWN_SESSION"
    again.close()


def test_boundaries_and_the_applied_action_are_told(robot):
    robot.say("open counter@1 0 true")
    robot.step()
    assert robot.step("applied=0.25,0")["action"] == [2, 0.25]
    assert robot.step("episode", "applied=-0.5,0")["action"] == [3, 0.5]  # prev_done is 1
    assert robot.step("task", "reward=5")["action"] == [1, 0]
    assert robot.step()["action"] == [2, 1]


REFUSED = {
    "step 5 obs=1": ("WRONG_SIZE", "an observation of 1 numbers: counter@1 takes 2"),
    "step 5 obs=1,0 applied=1": ("WRONG_SIZE", "an applied action of 1 numbers: counter@1 takes 2"),
    "step 5 obs=1,0 reward=1e60": ("NOT_FINITE", "reward is not finite"),
    "step 5 obs=nan,0": ("NOT_FINITE", "observation 'x' is nan"),
    "open nope 0 true": ("UNKNOWN_POLICY", "there is no policy 'nope'"),
    'open no"pe 0 true': ("INVALID_BUNDLE", "is not a policy"),
    "open counter@1 0 false": ("NEEDS_REWARD", "adapts from prev_reward"),
    "request {": ("INVALID_REQUEST", "not JSON"),
    'request {"version": 1, "op": "statsu"}': ("INVALID_REQUEST", "Did you mean 'status'?"),
}


def test_a_refusal_has_a_code_and_a_sentence_and_changes_nothing(robot):
    robot.say("open counter@1 0 true")
    robot.step()
    for line, (code, sentence) in REFUSED.items():
        refusal = robot.say(line)
        assert refusal["error"] == code, (line, refusal)
        assert sentence in refusal["sentence"], (line, refusal)
    assert robot.step()["action"] == [2, 1]


def test_any_request_can_be_made(robot):
    facts = robot.say("open counter@1 0 true")
    robot.step()
    swap = robot.say('request {"version": 1, "op": "swap", "policy": "other"}')
    assert swap["result"]["swaps"][0]["session"] == facts["session"]
    answer = robot.step()
    assert answer["generation"] == 2 and answer["flags"] & ActionFlag.SWAPPED


def test_a_silent_daemon_means_the_fallback_and_a_late_answer_is_not_taken(daemon, robot):
    robot.say("open counter@1 0 true")
    robot.step()
    daemon.process.send_signal(signal.SIGSTOP)
    answer = robot.step(timeout_s=0.1)
    assert answer["silent"] and answer["action"] == answer["requested"] == FALLBACK
    assert answer["seq"] == 1
    daemon.process.send_signal(signal.SIGCONT)
    answer = robot.step()
    assert not answer["silent"] and answer["seq"] == 2
    # The daemon heard all three, and that the fallback's first element, 0, was applied, not 2.
    assert answer["action"] == [3, 0]
    assert robot.step()["action"] == [4, 1]  # from here on the last answer's, 3, bounded


@pytest.mark.parametrize("refused", [[], ["step 5 obs=1", "step 5 obs=nan,0"]])
def test_a_boundary_that_was_heard_late_is_not_told_twice(daemon, robot, refused):
    robot.say("open counter@1 0 true")
    robot.step()
    daemon.process.send_signal(signal.SIGSTOP)
    assert robot.step("task", timeout_s=0.1)["silent"]
    daemon.process.send_signal(signal.SIGCONT)
    time.sleep(0.3)  # its answer arrives now
    for bad in refused:
        assert "error" in robot.say(bad)
    assert robot.step()["action"][0] == 2


def test_noise_on_the_way_is_an_answer_that_was_lost(program, daemon):
    with BadNetwork(daemon.endpoint) as network:
        robot = Driver(program, network.endpoint)
        robot.say("open counter@1 0 true")
        assert robot.step()["action"] == [1, 0]
        network.word = "garbage"
        found = robot.step(timeout_s=0.3)
        assert found["silent"] and found["action"] == FALLBACK
        network.word = None
        found = robot.step()
        assert found["seq"] == 2 and found["action"] == [2, 0] and not found["silent"]
        robot.close()


@pytest.fixture
def wire(daemon, tmp_path):
    between = LossyWire(daemon, f"ipc://{tmp_path}/w")
    yield between
    between.close()


def test_a_boundary_that_was_never_heard_is_told_again(program, wire, tmp_path):
    robot = Driver(program, f"ipc://{tmp_path}/w")
    robot.say("open counter@1 0 true")
    assert [robot.step()["action"][0] for _ in range(2)] == [1, 2]
    wire.deaf = True
    assert robot.step("task", timeout_s=0.05)["silent"]
    assert robot.step("episode", timeout_s=0.05)["silent"]
    wire.deaf = False
    assert wire.lost == 2
    answer = robot.step()
    assert answer["flags"] & ActionFlag.GAP and answer["seq"] == 4
    assert answer["action"] == [1, 0]  # from the prior: the task boundary was told
    wire.deaf = True
    assert robot.step("episode", timeout_s=0.05)["silent"]
    wire.deaf = False
    assert robot.step()["action"] == [2, 1]  # the fallback's 0, and prev_done
    assert robot.step()["action"] == [3, 1]  # told once: the action before, 2, bounded
    robot.close()


def test_a_late_answer_that_comes_during_the_next_tick_is_not_taken(program, wire, tmp_path):
    robot = Driver(program, f"ipc://{tmp_path}/w")
    robot.say("open counter@1 0 true")
    robot.step()
    wire.slow = True
    assert robot.step("task", timeout_s=0.1)["silent"]
    answer = robot.step()  # the answers to both come now
    assert (answer["seq"], answer["silent"]) == (2, False)
    assert answer["action"] == [1, 0]  # nothing was heard when this was sent: a new task again
    wire.slow = False
    assert robot.step()["action"] == [2, 1]
    robot.close()


def test_the_tap_shows_every_tick(robot, client):
    session = robot.say("open counter@1 0 true")["session"]
    other = client.open("counter@1")
    robot.say(f"tap {session}")
    time.sleep(0.5)  # until the subscription has reached the daemon
    for _ in range(3):
        robot.step()
        other.step([1.0, 0.0])
    seen = robot.ticks(3)
    assert [tick["seq"] for tick in seen] == [0, 1, 2]
    assert {tick["session"] for tick in seen} == {session}
    assert [tick["answer"]["action"] for tick in seen] == [[1, 0], [2, 1], [3, 1]]
    assert [tick["belief"] for tick in seen] == [[0.5], [0.2], [0.1]]
    assert seen[0]["observation"] == [1, 0] and not seen[0]["refused"]
    assert robot.say("ticks 0") == []


def bound(context: zmq.Context, kind: int, address: str) -> zmq.Socket:
    own = context.socket(kind)
    own.bind(address)
    return own


def test_a_stream_frame_is_the_observation_and_its_error_is_seen_on_the_tap(
    program, wire, tmp_path
):
    """Held against bare sockets, whatever the daemon behind them does."""
    endpoint = f"ipc://{tmp_path}/w"
    robot = Driver(program, endpoint)
    session = robot.say("open counter@1 0 true")["session"]
    with zmq.Context() as context:
        stream = bound(context, zmq.PULL, planes(endpoint).stream)
        tap = bound(context, zmq.PUB, planes(endpoint).tap)
        robot.say(f"tap {session}")
        time.sleep(0.3)
        sent = [robot.say(f"send obs=1,{i} {word}") for i, word in enumerate(("task", "invalid"))]
        assert sent == [True, True]
        frames = [stream.recv() for _ in sent]
        headers = [unpack(frame) for frame in frames]
        assert [h.flags for h in headers] == [ObservationFlag.NEW_TASK, ObservationFlag.INVALID]
        assert [(h.session, h.seq, h.first) for h in headers] == [(session, 0, 2), (session, 1, 2)]
        assert struct.unpack("<2f", frames[1][HEADER_SIZE:]) == (1, 1)
        error = error_frame(Code.TWO_WAYS, "the other way", session, 1)
        tap.send_multipart([session.to_bytes(8, "little"), b"anything", error, b""])
        (tick,) = robot.ticks(1)
        assert (tick["session"], tick["seq"], tick["refused"]) == (session, 1, "TWO_WAYS")
        stream.close(linger=0)
        tap.close(linger=0)
    robot.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_it_serves_on_a_loopback_port_too(program, models, host):
    with DaemonProcess(models, loopback().replace("127.0.0.1", host)) as daemon:
        robot = Driver(program, daemon.endpoint)
        robot.say("open other 0 true")
        assert robot.step()["action"] == [1, 0]
        robot.close()


def test_it_shows_its_key_to_a_daemon_that_asks(program, models, keys):
    with KeyedDaemon(models, keys) as daemon:
        robot = Driver(program, daemon.endpoint, key=keys.folder / "driver.key")
        session = robot.say("open other 0 true")["session"]
        assert robot.step()["action"] == [1, 0]
        refused = robot.say('request {"version":1,"op":"shutdown"}')
        assert refused["error"] == "NOT_ALLOWED"
        robot.say(f"tap {session}")
        time.sleep(0.5)
        assert robot.step()["action"][0] == 2
        (tick,) = robot.ticks(1)
        assert tick["seq"] == 1
        robot.close()
        stranger = Driver(program, daemon.endpoint, timeout_s=0.5)
        assert stranger.say("open other 0 true")["error"] == "TIMEOUT"
        stranger.close()


def test_the_example_drives_a_robot(tmp_path, daemon):
    example = build(ROOT / "clients" / "cpp" / "example.cpp", tmp_path)
    result = subprocess.run(
        [example, "counter@1", "0.35"], capture_output=True, text=True, timeout=20,
        env={**os.environ, "ADAPTD_ENDPOINT": daemon.endpoint},
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "3 ticks by counter@1\n"), result.stderr


def test_an_invalid_observation_makes_no_step(robot):
    robot.say("open counter@1 0 true")
    robot.step()
    answer = robot.step("invalid")
    assert answer["limits"] == Limit.INVALID and answer["action"] == FALLBACK
    assert (answer["seq"], answer["silent"]) == (1, False)
    answer = robot.step()
    assert answer["action"][0] == 2 and not answer["flags"] & ActionFlag.GAP


def test_a_step_from_the_prior_says_so(robot):
    robot.say("open counter@1 0 true")
    flags = [robot.step(*words)["flags"] for words in ([], [], ["task"], ["episode"])]
    assert [bool(f & ActionFlag.FRESH) for f in flags] == [True, False, True, False]


def test_a_session_goes_on_after_the_daemon_was_killed(daemon, robot):
    robot.say("open counter@1 0 true")
    assert [robot.step()["action"][0] for _ in range(2)] == [1, 2]
    daemon.kill()
    time.sleep(0.1)  # until the robot's socket knows
    assert robot.step(timeout_s=0.05)["silent"]
    daemon.start()
    answer = robot.step()  # the frame sent to nobody waits in the socket and is heard first
    assert not answer["silent"] and answer["seq"] == 3
    assert answer["requested"] == [4, 0]


def test_a_streamed_session_is_answered_on_the_tap(robot, client):
    session = robot.say("open counter@1 0 true")["session"]
    robot.say(f"tap {session}")
    sent = 0
    while sent == 0 or not robot.say("ticks 0.2"):  # until the daemon has heard of the tap
        assert robot.say("send obs=1,0") is True
        sent += 1
    for _ in range(3):
        assert robot.say("send obs=1,0") is True
    seen = robot.ticks(3)
    assert [tick["answer"]["action"] for tick in seen] == [[sent + k, 1] for k in (1, 2, 3)]
    assert [tick["seq"] for tick in seen] == [sent, sent + 1, sent + 2]
    (row,) = client.request("status", session=session)["sessions"]
    assert row["way"] == "stream" and row["next_seq"] == sent + 3
    refusal = robot.step()
    assert refusal["error"] == "TWO_WAYS"
    robot.say("send obs=nan,0")
    (tick,) = robot.ticks(1)
    assert tick["refused"] == "NOT_FINITE"
