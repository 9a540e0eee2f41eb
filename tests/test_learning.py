"""Learning between episodes: a gradient step that the daemon runs off the control path."""

import base64
import json
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load

from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidBundle
from runtime.history import History
from runtime.learner import Learner
from runtime.messages import ActionFlag
from runtime.store import Store
from tests.gradient_bundle import adapt_graph, by_hand, slowed, write_linear
from tests.keyed import wait_for
from tests.odd_bundles import constant

ROUNDS = 700_000
"""Of the slow graph: half a second or so."""
CUES = np.eye(2)


def small_graph(node, constants, width=2):
    """An adapt.onnx of one node, from carry.w to next.w (1, 2, width)."""
    w = [
        helper.make_tensor_value_info("carry.w", TensorProto.FLOAT, [1, 2, 2]),
        helper.make_tensor_value_info("next.w", TensorProto.FLOAT, [1, 2, width]),
    ]
    graph = helper.make_graph([node], "small", w[:1], w[1:], constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def not_finite():
    """It divides zero by zero."""
    node = helper.make_node("Div", ["carry.w", "zero"], ["next.w"])
    return small_graph(node, [constant("zero", [0.0])])


def reshaped():
    """Its carry would be (1, 2, 3)."""
    node = helper.make_node("Concat", ["carry.w", "column"], ["next.w"], axis=2)
    return small_graph(node, [constant("column", np.zeros((1, 2, 1)))], width=3)


@pytest.fixture(scope="module")
def adapt():
    return adapt_graph()


@pytest.fixture(scope="module")
def folder(adapt, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_linear(models, "linear", adapt)
    write_linear(models, "slow", slowed(adapt, ROUNDS))
    write_linear(models, "slow", slowed(adapt, ROUNDS), version=2)
    write_linear(models, "spoilt", not_finite())
    return models


@pytest.fixture(scope="module")
def daemon(folder):
    with DaemonProcess(folder, max_sessions="64") as process:
        with Client(process.endpoint, timeout_s=60) as client:  # it is run in the trial, too
            client.request("load", policy="slow@1")
            client.request("load", policy="slow@2")
        yield process


@pytest.fixture
def client(daemon):
    with daemon.client() as connection:
        yield connection


def episode(seed, steps=7):
    """Observations (T, 2), actions as applied (T, 2), rewards (T, 1)."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, (steps, n)).astype(np.float32) for n in (2, 2, 1)]


def play(session, seen, first=None, **boundary):
    """Live through an episode; `first` is the action and reward before it."""
    told = first
    for obs, action, reward in zip(*seen, strict=True):
        named = {} if told is None else {"applied_action": told[0], "reward": told[1]}
        session.step(obs, **named, **boundary)
        told, boundary = (action, float(reward[0])), {}
    return told


def end(session, told, **named):
    """The next episode begins: the one before it is learnt from."""
    return session.step(CUES[0], told[1], told[0], episode_start=True, **named)


def weights(client, session):
    """W (2, 2) of a session."""
    taken = client.request("snapshot", session=session.id)["snapshot"]
    return load(base64.b64decode(taken))["carry.w"]


def events(daemon, session):
    """What the daemon logged of a session."""
    lines = map(json.loads, daemon.log.read_text().splitlines())
    return [e["event"] for e in lines if e.get("session") == session.id]


def learnt_once(daemon, session, times=1):
    wait_for(lambda: events(daemon, session).count("lesson") == times)


def test_the_graph_takes_the_step_worked_out_by_hand(folder, adapt):
    """Two steps, W = 0: reward * obs^T action is 2 * (1, 0)^T (3, 4) - 1 * (0, 1)^T (5, 6)."""
    learner = Learner(Store(folder).load("linear").manifest, adapt)
    rows = np.array(
        [[1, 0, 9, 9, 9, 0], [0, 1, 3, 4, 2, 0], [7, 7, 5, 6, -1, 1]], np.float32
    )  # obs, the action and reward before it, prev_done
    seen = History(np.arange(3, dtype=np.uint64), np.zeros(3, np.uint32), rows, 2)
    changed = learner.learn(seen, {"w": np.zeros((1, 2, 2), np.float32)})
    assert changed["w"].tolist() == [[[0.75, 1.0], [-0.625, -0.75]]]


def test_a_session_learns_from_each_episode_and_from_nothing_else(daemon, client):
    session = client.open("linear")
    first, second = episode(1), episode(2, steps=12)
    told = play(session, first)
    assert not weights(client, session).any()  # not within an episode
    expected = by_hand(np.zeros((2, 2)), *first)
    told = play(session, second, told, episode_start=True)
    learnt_once(daemon, session)
    found = weights(client, session)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    end(session, told)
    learnt_once(daemon, session, times=2)
    np.testing.assert_allclose(weights(client, session), by_hand(expected, *second), atol=1e-6)
    np.testing.assert_array_equal(session.step(CUES[1]).action, weights(client, session)[1])


def test_a_lesson_that_is_under_way_at_a_stop_is_kept(adapt, tmp_path):
    """It takes longer than the way from the tick that begins it to the stop, but not long."""
    write_linear(tmp_path, "brief", slowed(adapt, ROUNDS // 10))
    seen = episode(8)
    with DaemonProcess(tmp_path) as daemon:
        with daemon.client() as client:
            session = client.open("brief")
            end(session, play(session, seen))
            assert daemon.stop() == 0
        assert events(daemon, session) == ["opening", "lesson"]
        daemon.start()
        with daemon.client() as client:
            expected = by_hand(np.zeros((2, 2)), *seen)
            np.testing.assert_allclose(weights(client, session), expected, atol=1e-6)


def test_what_was_learnt_survives_a_restart(daemon, client):
    session = client.open("linear")
    end(session, play(session, episode(3)))
    learnt_once(daemon, session)
    before = weights(client, session)
    daemon.kill()
    daemon.start()
    np.testing.assert_array_equal(weights(client, session), before)
    answer = session.step(CUES[0])
    np.testing.assert_array_equal(answer.action, before[0])
    assert answer.flags == ActionFlag(0)


def test_a_session_goes_on_with_its_present_memory_while_it_learns(daemon, client):
    session = client.open("slow@1")
    told = play(session, episode(4))
    end(session, told)
    answers = []
    while "lesson" not in events(daemon, session):
        answers.append(session.step(CUES[0], timeout_s=0.2))
        time.sleep(0.01)
    assert len(answers) > 5 and not any(a.silent for a in answers)
    assert not answers[0].action.any() and not answers[len(answers) // 2].action.any()
    expected = by_hand(np.zeros((2, 2)), *episode(4))
    np.testing.assert_allclose(session.step(CUES[0]).action, expected[0], atol=1e-6)
    assert {a.generation for a in answers} == {1}


def reset(client, session):
    client.request("reset", session=session.id)


def new_task(client, session):
    session.step(CUES[0], new_task=True)


def swap(client, session):
    client.request("swap", policy="slow@2", session=session.id)
    session.step(CUES[0])


def freeze(client, session):
    client.request("freeze", session=session.id)


def restore(client, session):
    other = client.open("slow@1")
    other.step(CUES[0])
    taken = client.request("snapshot", session=other.id)["snapshot"]
    client.request("restore", session=session.id, snapshot=taken)


def close_and_open(client, session):
    client.request("close", session=session.id)
    client.open("slow@1", session=session.id)
    session.next_seq = 0


@pytest.mark.parametrize(
    "between", [reset, new_task, swap, freeze, restore, close_and_open], ids=lambda f: f.__name__
)
def test_what_was_learnt_is_dropped_if_the_memory_is_another_by_then(daemon, client, between):
    session = client.open("slow@1")
    end(session, play(session, episode(5)))
    between(client, session)
    wait_for(lambda: "lesson_loss" in events(daemon, session))
    assert not weights(client, session).any() and "lesson" not in events(daemon, session)
    assert not session.step(CUES[0]).action.any()
    daemon_rows = client.request("status", session=session.id)["sessions"]
    assert daemon_rows[0]["next_seq"] == session.next_seq


def test_a_frozen_session_does_not_learn(daemon, client):
    session, other = client.open("linear"), client.open("linear")
    told = play(session, episode(6))
    client.request("freeze", session=session.id)
    end(session, told)
    end(other, play(other, episode(6)))
    learnt_once(daemon, other)  # the jobs are done in their order
    assert not {"lesson", "lesson_loss"} & set(events(daemon, session))
    assert not weights(client, session).any()


def test_a_new_task_leaves_no_episode_to_learn_from(daemon, client):
    session, other = client.open("linear"), client.open("linear")
    end(session, play(session, episode(7)), new_task=True)
    end(other, play(other, episode(7)))
    learnt_once(daemon, other)
    assert not {"lesson", "lesson_loss"} & set(events(daemon, session))


@pytest.mark.fault("adapt.onnx gives NaN", "The lesson is dropped; the memory stays.")
def test_what_is_not_finite_is_not_learnt(daemon, client):
    session = client.open("spoilt")
    end(session, play(session, episode(8)))
    wait_for(lambda: "lesson_fault" in events(daemon, session))
    assert not weights(client, session).any() and not session.step(CUES[0]).limits


def renamed(adapt, before, after):
    proto = onnx.load_from_string(adapt)
    for node in proto.graph.node:
        node.input[:] = [after if name == before else name for name in node.input]
    for value in proto.graph.input:
        value.name = after if value.name == before else value.name
    return proto.SerializeToString()


BROKEN = {
    "with an unknown input": (
        lambda adapt: renamed(adapt, "episode.obs", "episode.state"),
        "adapt.onnx: 'episode.state' is unknown. Known: ",
    ),
    "of another shape": (
        lambda adapt: reshaped(),
        r"'next.w' is tensor\(float\) \[1, 2, 3\], expected",
    ),
    "that is none": (lambda adapt: b"garbage", "adapt.onnx: the graph cannot be loaded"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_learning_graph_is_refused_at_load(adapt, tmp_path, kind):
    spoil, sentence = BROKEN[kind]
    write_linear(tmp_path, "linear", spoil(adapt))
    with pytest.raises(InvalidBundle, match=sentence):
        Store(tmp_path).load("linear")


def test_a_learning_graph_needs_to_be_told_when(adapt, tmp_path):
    folder = write_linear(tmp_path, "linear", adapt)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["boundaries"]["adapt"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundle, match=r"where boundaries\.adapt says when it is run"):
        Store(tmp_path).load("linear")


def test_a_learning_graph_that_is_not_the_one_listed_is_refused(adapt, tmp_path):
    folder = write_linear(tmp_path, "linear", adapt)
    (folder / "adapt.onnx").write_bytes(adapt[:-1])
    with pytest.raises(InvalidBundle, match=r"adapt\.onnx is not the file the manifest describes"):
        Store(tmp_path).load("linear")


def patient(adapt):
    """The same graph, but it counts first: 10^12 times for each unit that an episode's first
    observation has, so that a trial on zeros shows nothing of it."""
    proto = onnx.load_from_string(slowed(adapt, 0))
    (rounds,) = (t for t in proto.graph.initializer if t.name == "rounds")
    proto.graph.initializer.remove(rounds)
    proto.graph.initializer.append(constant("tera", 1e12))
    nodes = [
        helper.make_node("ReduceMax", ["episode.obs"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "tera"], ["many"]),
        helper.make_node("Cast", ["many"], ["rounds"], to=TensorProto.INT64),
    ]
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)
    return proto.SerializeToString()


@pytest.mark.fault(
    "adapt.onnx loops for ever on an episode that no trial had",
    "The lesson is stopped and counted; the session acts meanwhile, and others learn.",
)
def test_a_lesson_that_loops_for_ever_is_stopped_and_others_go_on(adapt, tmp_path):
    write_linear(tmp_path, "linear", adapt)
    write_linear(tmp_path, "patient", patient(adapt))
    with (
        DaemonProcess(tmp_path, bundles__lesson_s="0.3") as daemon,
        Client(daemon.endpoint, timeout_s=60) as client,
    ):
        session, other = client.open("patient"), client.open("linear")
        told = play(session, episode(4))
        end(session, told)
        end(other, play(other, episode(6)))
        while "lesson_overrun" not in events(daemon, session):  # it acts meanwhile
            assert not session.step(CUES[0]).silent
        learnt_once(daemon, other)
        assert not weights(client, session).any() and not session.step(CUES[0]).limits
        assert client.request("status")["lost_lessons"]["overrun"] == 1
        for _ in range(8):  # it lives faster than it learns
            told = play(session, episode(4, steps=2), told, episode_start=True)
        wait_for(lambda: "lesson_backlog" in events(daemon, session))
        assert client.request("status")["lost_lessons"]["backlog"] >= 1
