"""Looking on: ticks with their meaning, gaps counted, questions asked on the side."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import zmq

from runtime.benchmark.keys import loopback
from runtime.errors import ProtocolError
from runtime.messages import ActionFlag, planes
from runtime.onlooker import Onlooker
from runtime.tap import Continuity
from runtime.transport import SUBSCRIPTIONS_AT_ONCE, DataPlane, new_context

ONE = np.array([1.0, 0.0], np.float32)


def until(condition, timeout_s=5.0):
    """Wait for something, and give it."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
    return found


@pytest.fixture
def onlooker(daemon):
    with Onlooker(daemon.endpoint, status_every_s=0.05) as looking:
        until(lambda: looking.status)
        time.sleep(0.5)  # until the subscription has reached the daemon
        yield looking


def test_an_onlooker_knows_which_policy_made_a_tick(onlooker, client):
    session = client.open("counter@2")
    answer = session.step(ONE, reward=0.5, applied_action=[0.25, 0.5])
    (tick,) = onlooker.ticks(timeout_s=2)
    assert tick.session == session.id and tick.answer.action.tolist() == answer.action.tolist()
    assert tick.reward == 0.5 and tick.echo.tolist() == [0.25, 0.5]
    assert 0 < tick.sent_ns <= tick.received_ns
    manifest = until(lambda: onlooker.manifest(session.id, tick.answer.generation))
    assert (manifest.name, manifest.version) == ("counter", 2)
    until(lambda: onlooker.sessions[session.id]["steps"] == 1)


def test_an_onlooker_asks_on_the_side(onlooker, client):
    session = client.open("counter@1")
    found = onlooker.ask("snapshot", session=session.id).result(timeout=5)
    assert found["policy"] == "counter@1"
    with pytest.raises(ProtocolError, match="no session 77"):
        onlooker.ask("snapshot", session=77).result(timeout=5)


def test_a_manifest_that_does_not_exist(client):
    with pytest.raises(ProtocolError, match="Did you mean 'counter'"):
        client.request("manifest", policy="countre")


def test_an_onlooker_of_one_session_may_come_before_it(daemon, client):
    with Onlooker(daemon.endpoint, 77, status_every_s=0.05) as looking:
        until(lambda: looking.status)
        time.sleep(0.2)
        client.open("counter@1")
        client.open("counter@1", session=77).step(ONE)
        assert [tick.session for tick in looking.ticks(2.0)] == [77]
        until(lambda: set(looking.sessions) == {77})


def test_without_a_daemon_an_onlooker_says_so(tmp_path):
    with Onlooker(f"ipc://{tmp_path}/nobody") as looking:
        assert looking.ticks(0.0) == []
        assert looking.trouble and not looking.status


@pytest.mark.fault(
    "a slow subscriber on the tap",
    "It misses ticks, and counts them; the control path does not wait.",
)
def test_an_onlooker_that_does_not_read_misses_ticks_and_counts_them(daemon, client):
    session = client.open("counter@1")
    with daemon.client() as slow:
        tap = slow.tap(session.id, queued=10)
        time.sleep(0.2)
        for _ in range(6000):  # more than its queue and the daemon's together
            session.step(ONE)
        time.sleep(0.2)
        seen = tap.ticks(1.0)
        while more := tap.ticks(0.2):
            seen += more
        session.step(ONE)
        seen += tap.ticks(2.0)
    assert len(seen) < 6001 and len(seen) + tap.missed == 6001


def test_robots_do_not_wait_for_all_who_come_to_look_at_once():
    """One who subscribes without end held up every tick for as long."""
    addresses, topics = planes(loopback()), [k.to_bytes(8, "little") for k in range(900)]
    context = new_context()
    plane, crowd = DataPlane(context, addresses), context.socket(zmq.XSUB)
    try:
        crowd.connect(addresses.tap)
        for topic in topics:
            crowd.send(b"\1" + topic)
        time.sleep(0.3)  # until most have come
        plane.serve(lambda *_: [], time.monotonic_ns, 5.0)
        assert 0 < len(plane._subscribed) <= SUBSCRIPTIONS_AT_ONCE

        def all_counted():
            plane.serve(lambda *_: [], time.monotonic_ns, 0.1)
            return plane._subscribed == set(topics)

        until(all_counted)
    finally:
        plane.close()
        context.destroy(linger=0)


def test_what_was_missed_is_counted_by_hand():
    continuity = Continuity()
    assert [continuity.note(1, seq, 0) for seq in (5, 6, 9, 10)] == [0, 0, 2, 0]
    assert continuity.note(1, 20, int(ActionFlag.GAP)) == 0  # the robot left them out
    assert continuity.note(1, 0, 0) == 0  # the same id, opened again
    assert continuity.note(2, 7, 0) == 0
    assert continuity.missed == {1: 2}


def test_an_event_that_comes_alone_does_not_end_the_wait_for_a_tick(daemon, client):
    with closing(client.tap()) as tap:
        time.sleep(0.5)  # until the subscription has reached the daemon
        session = client.open("counter@1")
        client.request("freeze", session=session.id)
        later = threading.Timer(0.3, session.step, (ONE,))
        later.start()
        assert [tick.session for tick in tap.ticks(5.0)] == [session.id]
        later.join()
        assert tap.events
