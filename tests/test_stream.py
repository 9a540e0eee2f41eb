"""Sessions driven by the stream: observations go out, actions come on the tap."""

import signal
import time

import numpy as np
import pytest

from runtime.errors import ProtocolError
from runtime.messages import ActionFlag
from tests.bundles import write_bundle
from tests.keyed import wait_for
from tests.test_daemon import ONE


@pytest.fixture
def streamed(client):
    """A session of counter@1 whose tap is connected."""
    stream = client.stream("counter@1")
    time.sleep(0.5)  # until the subscription has reached the daemon
    return stream


def answers(stream, count, timeout_s=5.0):
    """So many answers."""
    found, deadline = [], time.monotonic() + timeout_s
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} answers"
        found += stream.answers(timeout_s=0.1)
    return found


def row(client, session_id):
    (found,) = client.request("status", session=session_id)["sessions"]
    return found


def traffic(count):
    rng = np.random.default_rng(0)
    for k in range(count):
        yield {
            "observation": rng.uniform(-1, 1, 2),
            "reward": rng.normal(),
            "applied_action": rng.uniform(-1, 1, 2) if k % 3 else None,
            "episode_start": k % 7 == 6,
            "new_task": k % 11 == 10,
            "invalid": k % 13 == 12,
        }


def test_actions_on_the_tap_are_those_of_requests(client, streamed):
    asked = client.open("counter@1")
    for seq, told in enumerate(traffic(40)):
        assert streamed.send(**told) == seq
        (ours,), theirs = answers(streamed, 1), asked.step(**told)
        assert (ours.seq, ours.limits, ours.flags) == (seq, theirs.limits, theirs.flags)
        np.testing.assert_array_equal(ours.action, theirs.action)
        np.testing.assert_array_equal(ours.requested, theirs.requested)
        assert ours.adaptation == theirs.adaptation
    assert row(client, streamed.id)["way"] == "stream"
    assert row(client, asked.id)["way"] == "request"


def test_late_observations_are_all_stepped_in_their_order(daemon, client, streamed):
    streamed.send(ONE)
    answers(streamed, 1)
    daemon.process.send_signal(signal.SIGSTOP)
    for _ in range(6):
        streamed.send(ONE)
    time.sleep(0.1)
    daemon.process.send_signal(signal.SIGCONT)
    found = answers(streamed, 6)
    assert [a.seq for a in found] == list(range(1, 7))
    assert [a.action[0] for a in found] == list(range(2, 8))
    assert not found[-1].flags & ActionFlag.SUPERSEDED
    assert any(a.flags & ActionFlag.SUPERSEDED for a in found[:-1])
    facts = row(client, streamed.id)
    assert (facts["steps"], facts["gaps"], facts["repeated"]) == (7, 0, 0)


def test_a_streamed_session_cannot_be_asked_too(client, streamed):
    streamed.send(ONE)
    answers(streamed, 1)
    asked = client.open(session=streamed.id)
    with pytest.raises(ProtocolError, match="is driven by stream already: it cannot") as refusal:
        asked.step(ONE)
    assert refusal.value.code == "TWO_WAYS"
    streamed.send(ONE)
    assert answers(streamed, 1)[0].action[0] == 2  # nothing had changed


def test_a_session_that_is_asked_cannot_be_streamed_too(client, streamed):
    asked = client.open(session=streamed.id)
    asked.step(ONE)
    streamed.next_seq = 1
    streamed.send(ONE)
    wait_for(lambda: not streamed.answers(0.05) and streamed.tap.refused == 1)
    sentence = "is driven by request already: it cannot be driven by stream at once"
    assert sentence in streamed.tap.last_refusal
    assert asked.step(ONE).action[0] == 2
    assert client.request("status")["refused_frames"] == {"TWO_WAYS": 1}
    assert row(client, streamed.id)["refused"] == 1


def test_a_session_may_change_its_way_after_a_second_of_quiet(client, streamed):
    asked = client.open(session=streamed.id)
    asked.step(ONE)
    time.sleep(1.05)
    streamed.next_seq = 1
    streamed.send(ONE)
    assert 2 in [a.action[0] for a in answers(streamed, 2)]  # the first was tapped too
    assert row(client, streamed.id)["way"] == "stream"


def test_what_is_refused_on_the_stream_is_counted_with_its_reason(client, streamed):
    streamed.send([np.nan, 0.0])
    wait_for(lambda: not streamed.answers(0.05) and streamed.tap.refused == 1)
    assert streamed.tap.last_refusal == "the observation 'x' is nan"
    streamed.send(ONE)  # a gap, since the one before was refused
    (answer,) = answers(streamed, 1)
    assert answer.flags & ActionFlag.GAP and answer.action[0] == 1
    assert row(client, streamed.id)["refused"] == 1
    assert client.request("status")["refused_frames"] == {"NOT_FINITE": 1}


def test_an_observation_of_the_wrong_size_is_not_even_sent(streamed):
    with pytest.raises(ProtocolError, match="an observation of 3 numbers: counter@1 takes 2"):
        streamed.send([1.0, 2.0, 3.0])
    assert streamed.send(ONE) == 0


def test_a_stream_comes_back_to_a_session_after_a_restart(daemon, client, streamed):
    streamed.send(ONE)
    answers(streamed, 1)
    daemon.kill()
    daemon.start()
    again = client.stream(session=streamed.id)
    assert again.next_seq == 1
    time.sleep(0.5)
    again.send(ONE)
    assert answers(again, 1)[0].action[0] == 2


def test_a_swap_reaches_a_streamed_session(client, streamed, models):
    write_bundle(models, "late", carry_size=5)
    for _ in range(3):
        streamed.send(ONE)
    answers(streamed, 3)
    (report,) = client.request("swap", policy="late", session=streamed.id)["swaps"]
    assert report["replayed_steps"] == 3
    streamed.send(ONE)
    (answer,) = answers(streamed, 1)
    assert answer.action[0] == 4 and answer.flags & ActionFlag.SWAPPED and answer.generation == 2


def test_a_daemon_that_does_not_read_is_an_error_to_the_sender(daemon, client, streamed):
    def send_many():
        for _ in range(200_000):
            streamed.send(ONE)

    daemon.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(BlockingIOError, match="does not take observations"):
            send_many()
        refused = streamed.next_seq
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    wait_for(lambda: row(client, streamed.id)["next_seq"] == refused)  # none of those sent is lost
    assert row(client, streamed.id)["gaps"] == 0
