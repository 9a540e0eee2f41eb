"""Many sessions over one socket, against a real daemon: what a simulator host sees."""

import signal
import time

import numpy as np
import pytest
import zmq

from runtime.benchmark.bad_network import BadNetwork
from runtime.client import Client
from runtime.errors import ProtocolError
from runtime.fleet import Fleet
from runtime.messages import ActionFlag, Adaptation, Limit

N = 5


@pytest.fixture
def fleet(client):
    return client.fleet("counter@1", N)


def rows(first, second=0.0):
    """Observations whose first elements are given."""
    first = np.broadcast_to(np.asarray(first, float), N)
    return np.stack([first, np.full(N, second)], axis=1)


def test_each_session_has_its_own_memory(fleet):
    speeds = np.arange(N) / 10
    for t in range(1, 4):
        answer = fleet.step(rows(speeds), rewards=np.full(N, 0.01))
        expected = t * speeds + 0.01 * (t - 1)  # no reward before the first observation
        np.testing.assert_allclose(answer.actions[:, 0], expected, rtol=1e-6)
    assert answer.actions.shape == answer.requested.shape == (N, 2)
    assert answer.actions.dtype == np.float32
    assert fleet.next_seq.tolist() == [3] * N and not answer.silent.any()
    assert answer.generation.tolist() == [1] * N and (answer.inference_ns > 0).all()
    assert set(answer.adaptation.tolist()) <= set(Adaptation)


def test_the_same_bits_as_sessions_stepped_alone(client):
    rng = np.random.default_rng(0)
    together, alone = client.fleet("counter@1", N), [client.open("counter@1") for _ in range(N)]
    for t in range(20):
        observations = rng.uniform(-2, 2, (N, 2)).astype(np.float32)
        rewards, applied = rng.normal(size=N), rng.uniform(-1, 1, (N, 2))
        start, new = rng.random(N) < 0.2, rng.random(N) < 0.1
        told = applied if t % 2 else None
        many = fleet_step(together, observations, rewards, told, start, new)
        for i, session in enumerate(alone):
            own = None if told is None else told[i]
            one = session.step(observations[i], rewards[i], own, start[i], new[i])
            assert many.actions[i].tobytes() == one.action.tobytes()
            assert many.requested[i].tobytes() == one.requested.tobytes()
            assert (many.limits[i], many.flags[i]) == (one.limits, one.flags)
            assert (many.adaptation[i], many.generation[i]) == (one.adaptation, one.generation)


def fleet_step(fleet, observations, rewards, applied, start, new):
    return fleet.step(observations, rewards, applied, start, new, timeout_s=5)


def test_where_a_limit_acts_the_request_is_told_beside_the_action(fleet):
    answer = fleet.step(rows([1, 30, 2, 40, 3]))
    assert answer.actions[:, 0].tolist() == [1, 10, 2, 10, 3]
    assert answer.requested[:, 0].tolist() == [1, 30, 2, 40, 3]
    assert answer.limits.tolist() == [0, Limit.BOUNDS, 0, Limit.BOUNDS, 0]


def test_boundaries_are_told_to_the_sessions_that_have_them(fleet):
    fleet.step(rows(1))
    answer = fleet.step(rows(1), new_task=np.arange(N) == 2)
    assert answer.actions[:, 0].tolist() == [2, 2, 1, 2, 2]
    answer = fleet.step(rows(0), applied_actions=np.zeros((N, 2)), episode_start=np.arange(N) == 0)
    assert answer.actions[:, 1].tolist() == [1, 0, 0, 0, 0]


def test_it_comes_back_to_sessions_by_their_ids(client, fleet):
    fleet.step(rows(1))
    again = client.fleet(sessions=fleet.ids.tolist()[::-1])
    assert again.resumed.all() and again.next_seq.tolist() == [1] * N
    assert again.step(rows(np.arange(N))).actions[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_a_silent_daemon_means_fallbacks_and_late_answers_are_not_taken(daemon, fleet):
    fleet.step(rows(1))
    daemon.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    answer = fleet.step(rows(1), timeout_s=0.1)
    assert 0.09 < time.monotonic() - started < 0.5
    assert answer.silent.all() and answer.actions.tolist() == [[0, 0.5]] * N
    daemon.process.send_signal(signal.SIGCONT)
    answer = fleet.step(rows(1))
    assert not answer.silent.any() and fleet.next_seq.tolist() == [3] * N
    # The daemon heard all three, and that the fallback's first element, 0, was applied, not 2.
    assert answer.actions.tolist() == [[3, 0]] * N


def test_noise_on_the_way_is_an_answer_that_was_lost(daemon):
    with BadNetwork(daemon.endpoint) as network, Client(network.endpoint) as client:
        fleet = client.fleet("counter@1", N)
        fleet.step(rows(1))
        network.word = "garbage"
        answer = fleet.step(rows(1), timeout_s=0.3)
        assert answer.silent.all() and answer.actions.tolist() == [[0, 0.5]] * N
        network.word = None
        assert fleet.step(rows(1)).actions[:, 0].tolist() == [2] * N
        assert fleet.next_seq.tolist() == [3] * N


def test_boundaries_that_were_never_heard_are_told_again(client, fleet, tmp_path):
    fleet.step(rows(1))
    connected = fleet._socket
    fleet._socket = client._connect(zmq.DEALER, f"ipc://{tmp_path}/nobody")
    lost = fleet.step(rows(1), new_task=np.arange(N) < 2, timeout_s=0.05)
    fleet._socket = connected
    assert lost.silent.all()
    answer = fleet.step(rows(1))
    assert (answer.flags & ActionFlag.GAP).all()
    assert answer.actions[:, 0].tolist() == [1, 1, 2, 2, 2]
    assert fleet.step(rows(1)).actions[:, 0].tolist() == [2, 2, 3, 3, 3]  # once is enough


def test_boundaries_that_were_heard_late_are_not_told_twice(daemon, fleet):
    fleet.step(rows(1))
    daemon.process.send_signal(signal.SIGSTOP)
    assert fleet.step(rows(1), new_task=True, timeout_s=0.1).silent.all()
    daemon.process.send_signal(signal.SIGCONT)
    time.sleep(0.3)  # the answers arrive now
    with pytest.raises(ProtocolError, match="shape"):
        fleet.step(np.ones((N, 3)))
    assert fleet.step(rows(1)).actions[:, 0].tolist() == [2] * N


def test_one_refused_session_costs_the_others_nothing(fleet):
    fleet.step(rows(1))
    answer = fleet.step(rows([1, 1, np.nan, 1, 1]), new_task=np.arange(N) == 2)
    assert {row: error.code for row, error in answer.refused.items()} == {2: "NOT_FINITE"}
    assert answer.actions[:, 0].tolist() == [2, 2, 0, 2, 2] and not answer.silent.any()
    assert fleet.next_seq.tolist() == [2, 2, 1, 2, 2]
    answer = fleet.step(rows(1))  # the boundary that the refusal swallowed is told now
    assert answer.actions[:, 0].tolist() == [3, 3, 1, 3, 3] and not answer.refused


def test_a_session_that_is_gone_is_refused_with_the_daemons_sentence(client, fleet):
    client.request("close", session=int(fleet.ids[1]))
    answer = fleet.step(rows(1))
    assert list(answer.refused) == [1] and "there is no session" in str(answer.refused[1])


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"observations": np.ones((N, 3))}, "WRONG_SIZE"),
        ({"observations": np.ones(2)}, "WRONG_SIZE"),
        ({"observations": rows(1), "rewards": np.ones(N + 1)}, "WRONG_SIZE"),
        ({"observations": rows(1), "applied_actions": np.ones((N, 1))}, "WRONG_SIZE"),
        ({"observations": rows(1), "rewards": np.full(N, np.nan)}, "NOT_FINITE"),
        ({"observations": rows(1), "rewards": np.full(N, 1e60)}, "NOT_FINITE"),
    ],
)
def test_it_refuses_what_cannot_be_sent_and_sends_nothing(fleet, call, code):
    with pytest.raises(ProtocolError) as refusal:
        fleet.step(**call)
    assert refusal.value.code == code
    assert fleet.step(rows(1)).actions[:, 0].tolist() == [1] * N


def test_policies_of_different_shapes_do_not_make_a_fleet(client):
    facts = [client.open("counter@1").facts for _ in range(2)]
    facts[1] = facts[1] | {"action": facts[1]["action"][:1], "fallback_action": [0.0, 0.0]}
    with pytest.raises(ProtocolError, match="differ in size"):
        Fleet(client._connect(zmq.DEALER, "inproc://nobody"), facts, print)


def test_closing_ends_all_sessions(client, fleet):
    assert len(client.request("status")["sessions"]) == N
    fleet.close()
    assert client.request("status")["sessions"] == []


def test_a_thousand_sessions(client):
    fleet = client.fleet("other", 1000)
    sums = np.arange(1000) / 1000
    for t in range(1, 4):
        answer = fleet.step(np.stack([sums, sums], 1), timeout_s=10)
        np.testing.assert_allclose(answer.actions[:, 0], t * sums, rtol=1e-5)
    assert not answer.silent.any()
