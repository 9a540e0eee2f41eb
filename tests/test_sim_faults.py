"""A simulated robot with faults, in PX4's words, and a network that misbehaves."""

import time
from itertools import product

import numpy as np
import pytest

from runtime.benchmark.bad_network import APART_S, LATER_S, WORDS, BadNetwork, Direction
from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig, ProtocolError, UnknownName
from runtime.messages import ActionFlag, Limit
from sim.faults import LAG, SIGNALS, Fault, FaultySession, Signal
from tests.conftest import SHIPPED
from tests.test_commands import run

FALLBACK = [0.0, 0.5]
"""Of the hand-made policy."""


def test_a_fault_is_read_from_a_word():
    assert Fault.parse("observation:stuck@100-200") == Fault("observation", "stuck", 100, 200)
    assert Fault.parse("network:off") == Fault("network", "off", 0, None)
    fault = Fault("reward", "wrong", 3, 4)
    assert [fault.at(step) for step in (2, 3, 4, 5)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "kind", "complaint"),
    [
        ("observation", InvalidConfig, r"expected SIGNAL:WORD\[@FROM-TO\]"),
        ("observation:stuck@7-3", InvalidConfig, "ends before it begins"),
        ("observatoin:stuck", UnknownName, "Did you mean 'observation'"),
        ("reward:stuk", UnknownName, "Did you mean 'stuck'"),
    ],
)
def test_what_is_no_fault_gets_one_sentence(text, kind, complaint):
    with pytest.raises(kind, match=complaint):
        Fault.parse(text)


def values(word, count=12, sound=3):
    """What arrives of the signal (1, 2), (2, 4), (3, 6) ..., which breaks after `sound`."""
    signal = Signal(0)
    told = [np.array([k, 2 * k], np.float32) for k in range(1, count + 1)]
    return [signal.next(v, None if k < sound else word) for k, v in enumerate(told)]


def test_signals_by_hand():
    assert values("off")[3:] == [None] * 9
    assert all(v.tolist() == [3, 6] for v in values("stuck")[3:])
    assert values("wrong")[3].tolist() == [-8, -4]
    assert values("delayed")[6].tolist() == [7 - LAG, 2 * (7 - LAG)]
    assert [v[0] for v in values("slow")] == [1, 2, 3, 3, 5, 5, 5, 5, 5, 10, 10, 10]
    arrived = [v is not None for v in values("intermittent", 203)[3:]]
    assert 60 < sum(arrived) < 140
    garbage = values("garbage", 203)[3:]
    assert np.isfinite(garbage).all() and len({v.tobytes() for v in garbage}) == 200


def test_a_network_by_hand():
    way = Direction()
    assert way.carry([b"tag", b"a"], None, 0.0) == [(0.0, [b"tag", b"a"])]
    assert way.carry([b"tag", b"b"], "off", 1.0) == []
    assert way.carry([b"tag", b"b"], "stuck", 2.0) == [(2.0, [b"tag", b"a"])]
    ((_, (tag, noise)),) = way.carry([b"tag", bytes(64)], "garbage", 3.0)
    assert tag == b"tag" and len(noise) == 64 and noise != bytes(64)
    assert way.carry([b"c"], "wrong", 4.0) == []
    assert way.carry([b"d"], "wrong", 5.0) == [(5.0, [b"c"])]
    assert way.carry([b"e"], "delayed", 6.0) == [(6.0 + LATER_S, [b"e"])]
    due = [way.carry([b"f"], "slow", 7.0)[0][0] for _ in range(3)]
    np.testing.assert_allclose(due, [7.0 + k * APART_S for k in (0, 1, 2)])
    lost = sum(not way.carry([b"g"], "intermittent", 8.0) for _ in range(1000))
    assert 250 < lost < 350


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A daemon that knows a stuck sensor, and stops nobody."""
    from tests.bundles import write_bundle

    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "counter")
    settings = {"guard__stuck_ticks": "3", "guard__stop_after": "1000"}
    with DaemonProcess(models, **settings) as process:
        yield process


def lived(served, fault, steps=24, network=None):
    """Answers to a robot whose first element is 0.1 higher at each step; the daemon's last row."""
    endpoint = network.endpoint if network else served.endpoint
    with Client(endpoint) as client:
        real = client.open("counter")
        session = FaultySession(real, (Fault.parse(fault),), network)
        answers = [session.step([0.1 * k, 1.0], 0.0) for k in range(steps)]
        if network is not None:
            network.word = None
        with served.client() as own:
            (row,) = own.request("status", session=real.id)["sessions"]
        real.close()
    return answers, row


@pytest.mark.fault("observation: off", "No step; the fallback action.")
def test_an_observation_that_does_not_come_is_answered_by_the_fallback(served):
    answers, row = lived(served, "observation:off@4-9")
    assert all(a.limits & Limit.INVALID and a.action.tolist() == FALLBACK for a in answers[4:10])
    assert not answers[10].limits & Limit.INVALID and row["steps"] == 24 - 6


@pytest.mark.fault("observation: stuck", "After `stuck_ticks` no step; the fallback action.")
def test_a_stuck_observation_is_found_out_and_left(served):
    answers, row = lived(served, "observation:stuck@4-13")
    assert [bool(a.limits & Limit.STUCK) for a in answers[4:15]] == [False, False] + [True] * 8 + [
        False
    ]
    assert row["steps"] == 24 - 8


FAULTY = ["garbage", "wrong", "slow", "delayed", "intermittent"]


@pytest.mark.parametrize(
    ("signal", "word"),
    [*product(["observation", "reward"], FAULTY), ("reward", "off"), ("reward", "stuck")],
)
@pytest.mark.fault(
    "observation or reward: garbage, wrong, slow, delayed, intermittent; reward: off, stuck",
    "Every action is finite and within bounds.",
)
def test_whatever_a_sensor_says_every_action_is_finite_and_within_bounds(served, signal, word):
    answers, row = lived(served, f"{signal}:{word}@4-20")
    assert row["next_seq"] == 24 and not any(a.silent for a in answers)
    actions = np.array([a.action for a in answers])
    assert np.isfinite(actions).all() and (np.abs(actions) <= [10, 1]).all()


@pytest.mark.fault("action: off", "The policy's next input is what was really done.")
def test_an_actuator_that_does_nothing_is_told_to_the_policy(served):
    """`prev_action` is what was really done: the policy's second action follows it."""
    with served.client() as client:
        real = client.open("counter")
        session = FaultySession(real, (Fault("action", "off", 1),))
        first = session.step([1.0, 0.0])
        second = session.step([1.0, 0.0], 0.0, first.action)
        assert first.action.tolist() == [1, 0] and second.action.tolist() == [0, 0]
        third = session.step([2.0, 0.0], 0.0, second.action)
        assert third.requested.tolist() == [4.0, 0.0] and third.action.tolist() == [0, 0]
        real.close()


@pytest.mark.parametrize("word", ["stuck", *FAULTY])
@pytest.mark.fault(
    "action: stuck, garbage, wrong, slow, delayed, intermittent",
    "The policy's next input is what was really done; its memory is of what it saw.",
)
def test_what_an_actuator_did_instead_is_told_to_the_policy(served, word):
    with served.client() as client:
        real = client.open("counter")
        session = FaultySession(real, (Fault("action", word, 4, 15),))
        answers = [session.step([0.1, 0.0])]
        for k in range(1, 24):
            answers.append(session.step([0.1, k], 0.0, answers[-1].action))
        real.close()
    requested = np.array([a.requested for a in answers])
    np.testing.assert_allclose(requested[:, 0], 0.1 * np.arange(1, 25), rtol=1e-5)
    done = [a.action[0] for a in answers]
    np.testing.assert_array_equal(requested[1:, 1], done[:-1])
    assert done[4:16] != list(requested[4:16, 0])


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.fault(
    "network: off, stuck, garbage, wrong, slow, delayed, intermittent",
    "Every action taken is the one of the observation just sent; else the fallback.",
)
def test_no_answer_over_a_bad_network_is_of_an_older_observation(served, word):
    """Each action that a robot takes is the one its own observation got; the rest is silence."""
    with BadNetwork(served.endpoint) as network:
        answers, row = lived(served, f"network:{word}@4-15", network=network)
    assert not any(a.flags & ActionFlag.REPEATED for a in answers)
    assert not any(a.silent for a in answers[:4])
    assert all(a.action.tolist() == FALLBACK for a in answers if a.silent)
    total = 0.0  # the policy's memory is the sum of what it was told, each once
    assert row["steps"] + row["missed"] == row["next_seq"] <= 24
    assert row["steps"] >= 24 - 12 - 2
    for k, answer in enumerate(answers):
        if word in ("delayed", "slow") and not answer.silent:
            total = 0.1 * k * (k + 1) / 2
            assert answer.requested[0] == pytest.approx(total, rel=1e-4)


def test_a_bad_network_does_not_outlive_its_fault(served):
    with BadNetwork(served.endpoint) as network, Client(network.endpoint) as client:
        session = client.open("counter")
        network.word = "off"
        assert session.step([1.0, 0.0], timeout_s=0.05).silent
        network.word = None
        deadline = time.monotonic() + 10
        while session.step([1.0, 0.0], timeout_s=0.2).silent:
            assert time.monotonic() < deadline
        session.close()


def test_a_refusal_on_a_good_network_is_not_swallowed(served):
    with served.client() as client:
        real = client.open("counter")
        client.request("close", session=real.id)
        with pytest.raises(ProtocolError, match="open one first"):
            FaultySession(real, (Fault("observation", "stuck", 5),)).step([0.0, 0.0])


def test_a_run_tells_what_its_faults_did():
    names = [f"{signal}:intermittent" for signal in SIGNALS]
    windows = [f"{60 + 20 * k}-{79 + 20 * k}" for k in range(len(names))]
    faults = [f"{name}@{window}" for name, window in zip(names, windows, strict=True)]
    with DaemonProcess(SHIPPED) as process:
        status, output, complaint = run(
            "sim", "run", "halfcheetah-vel", "--policy", "halfcheetah-vel-rl2-gru", "--episodes",
            "1", *(word for fault in faults for word in ("--fault", fault)),
            "--endpoint", process.endpoint,
        )  # fmt: skip
    assert status == 0, complaint
    assert all(word in output for word in (*names, *windows))
