"""SIGTERM: what was sent before is answered, what is answered is kept, and it ends soon."""

import json
import signal
import struct
import threading
import time

import numpy as np
import zmq

from runtime.messages import Header, Kind, planes, unpack
from tests.keyed import KeyedDaemon, events, wait_for
from tests.test_daemon import ONE, raw

SMALL = np.array([1 / 1024, 0.0])
"""The policy's action is the sum of what it saw, exact in float32, and within its bounds."""
OBSERVATION = struct.pack("<2f", 1, 0)
BOUND_S = 3.5
"""Longest stop: the drain, what is under way, and what is queued for slow peers."""


def observation(session, seq):
    """A frame of one observation, as a driver sends it."""
    header = Header(Kind.OBSERVATION, 0, session, seq, 0, first=2)
    return header.pack() + OBSERVATION


def stop(daemon):
    """Stop it in order; how long that took [s]."""
    started = time.monotonic()
    assert daemon.stop() == 0
    return time.monotonic() - started


def test_a_burst_that_was_sent_before_the_stop_is_answered_in_order(daemon, client):
    session = client.open("counter@1")
    bare, count = raw(daemon.endpoint), 400
    bare.setsockopt(zmq.RCVHWM, 10_000)
    bare.send(observation(session.id, 0))
    assert bare.poll(5000)
    daemon.process.send_signal(signal.SIGSTOP)
    for seq in range(1, count):
        bare.send(observation(session.id, seq))
    time.sleep(0.3)  # they are in the daemon's queues
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGCONT)
    seqs = [unpack(bare.recv()).seq for _ in range(count) if bare.poll(5000)]
    assert seqs == list(range(count))
    assert daemon.process.wait(BOUND_S) == 0
    bare.close()
    daemon.start()
    assert client.open(session=session.id).next_seq == count


def test_streamed_observations_that_were_sent_are_stepped(daemon, client):
    session = client.open("counter@1")
    bare = zmq.Context.instance().socket(zmq.PUSH)
    bare.connect(planes(daemon.endpoint).stream)
    bare.send(observation(session.id, 0))
    wait_for(lambda: client.request("status")["sessions"][0]["next_seq"] == 1)
    daemon.process.send_signal(signal.SIGSTOP)
    for seq in range(1, 200):
        bare.send(observation(session.id, seq))
    time.sleep(0.3)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGCONT)
    assert daemon.process.wait(BOUND_S) == 0
    bare.close(linger=0)
    daemon.start()
    assert client.open(session=session.id).next_seq == 200


def test_every_answer_that_a_robot_got_is_kept_whatever_moment_it_stops(daemon):
    """A robot that never pauses: its last answered tick is the last one, or the one before."""
    with daemon.client() as client:
        session = client.open("counter@1")
        answered, stopping = [session.step(SMALL)], threading.Event()

        def drive():
            while not stopping.is_set():
                answer = session.step(SMALL, timeout_s=0.5)
                if answer.silent:
                    return
                answered.append(answer)

        robot = threading.Thread(target=drive)
        robot.start()
        time.sleep(0.3)
        assert stop(daemon) < BOUND_S
        stopping.set()
        robot.join()
    daemon.start()
    with daemon.client() as client:
        again = client.open(session=session.id)
        assert again.next_seq >= answered[-1].seq + 1
        assert again.step(SMALL).action[0] == again.next_seq / 1024  # none lost, none twice


def test_requests_that_were_made_before_the_stop_are_answered(daemon, client):
    bare = raw(daemon.endpoint, plane=1)
    bare.send_multipart([b"first", b'{"version": 1, "op": "policies"}'])
    assert bare.poll(5000) and bare.recv_multipart()[0] == b"first"
    daemon.process.send_signal(signal.SIGSTOP)
    for k in range(20):
        bare.send_multipart([str(k).encode(), b'{"version": 1, "op": "open", "policy": "other"}'])
    time.sleep(0.2)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGCONT)
    replies = [bare.recv_multipart() for _ in range(20) if bare.poll(5000)]
    assert [int(tag) for tag, _ in replies] == list(range(20))
    assert all(json.loads(reply)["ok"] for _, reply in replies)
    assert daemon.process.wait(BOUND_S) == 0
    assert events(daemon, "shutdown")[0]["sessions"] == 20
    bare.close()


def test_robots_that_never_stop_sending_do_not_hold_it_up(daemon):
    quiet = threading.Event()

    def flood():
        with daemon.client() as client:
            session = client.open("counter@1")
            while not quiet.is_set() and not session.step(ONE, timeout_s=0.5).silent:
                pass

    robots = [threading.Thread(target=flood) for _ in range(4)]
    for robot in robots:
        robot.start()
    time.sleep(0.5)
    assert stop(daemon) < BOUND_S
    quiet.set()
    for robot in robots:
        robot.join()


def test_a_daemon_with_keys_drains_too(models, keys):
    with KeyedDaemon(models, keys) as daemon, daemon.of("robot") as robot:
        session = robot.open("counter@1")
        for k in range(5):
            assert session.step(ONE).action[0] == k + 1
        assert stop(daemon) < BOUND_S
        daemon.start()
        assert robot.open(session=session.id).next_seq == 5
