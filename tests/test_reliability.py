"""Faults of the machine around the daemon; and docs/reliability.md, which lists all faults."""

import os
import resource
import socket
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import zmq
from onnx import TensorProto, helper

from docs import reliability
from runtime.benchmark.keys import loopback
from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import ProtocolError
from tests.bundles import make_graph, write_bundle
from tests.keyed import wait_for
from tests.loops import Bench, frame
from tests.odd_bundles import constant, edited
from tests.tcp_tapper import Tapper
from tests.test_access_hostile import data_port, observation
from tests.test_state import found, leave

ONE = np.array([1.0, 0.0])
YEAR_S = 365 * 86400
TCP_S = 90.0
"""A connection that the kernel's queue has no room for is tried again after 1, 3, 7, 15, 31 s."""


def test_the_page_lists_every_fault_that_a_test_causes():
    faults, page = reliability.faults(), reliability.PAGE.read_text()
    assert len(faults) > 25
    seen = reliability.rows(page)
    assert set(seen) == {fault.test for fault in faults}, "run make reliability"
    assert reliability.updated(page, seen) == page, "run make reliability"


@pytest.mark.fault(
    "the date jumps by years, as where a robot without a clock learns it from the network",
    "Nobody is forgotten sooner or later for it, also after a restart.",
)
@pytest.mark.parametrize("jump_s", [56 * YEAR_S, -3 * YEAR_S])
def test_a_jump_of_the_date_forgets_nobody(models, tmp_path, jump_s):
    bench = Bench(models, folder=tmp_path / "state")
    for session in (1, 2):
        bench.open("counter@1", session=session)
    registry, second, month = bench.loop.registry, 10**9, 30 * 86400
    registry.wall_s, registry.now_ns = 4 * YEAR_S, 0
    bench.loop.tick(frame(0, session=1), 0)
    bench.loop.tick(frame(0, session=2), 0)
    registry.live[2].seen_ns = 700 * second
    registry.follow_clock(4 * YEAR_S + 700, 700 * second)
    registry.tidy(700 * second, 600, month)
    assert list(registry.asleep) == [1] and list(registry.live) == [2]
    registry.follow_clock(4 * YEAR_S + 701 + jump_s, 701 * second)
    registry.tidy(701 * second, 600, month)
    assert sorted(registry.ids()) == [1, 2]
    leave(bench.state)
    again = found(models, tmp_path / "state").loop.registry
    again.wall_s = 4 * YEAR_S + 800 + jump_s
    again.tidy(0, 600, month)
    assert sorted(again.ids()) == [1, 2]
    again.wall_s += month + YEAR_S  # and time that really passes counts
    again.tidy(0, 600, month)
    assert not again.ids()


@contextmanager
def room_for_files():
    """This process may open as many files as anybody may."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def files_of(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


@pytest.mark.fault(
    "10,000 connections that say nothing",
    "Robots that are connected are answered, others may come, and the files are given back.",
)
def test_ten_thousand_connections_keep_nobody_out(models, record_property):
    with (
        room_for_files() as most,
        DaemonProcess(models, loopback()) as daemon,
        ExitStack() as stack,
    ):
        count = min(10_000, most - 500)
        client = stack.enter_context(daemon.client())
        session, before = client.open("counter@1"), files_of(daemon)
        crowd = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", data_port(daemon)))
            crowd.append(one)
            if len(crowd) % 50 == 0:  # what the kernel's queue has no room for comes seconds later
                time.sleep(0.005)
        wait_for(lambda: files_of(daemon) > before + count // 2, TCP_S)
        trips = []
        for _ in range(100):
            began = time.perf_counter()
            assert not session.step(ONE, timeout_s=20).silent
            trips.append(time.perf_counter() - began)
        with daemon.client() as newcomer:
            assert newcomer.open("counter@1").step(ONE, timeout_s=20).action[0] == 1
        for one in crowd:
            one.close()
        wait_for(lambda: files_of(daemon) < before + 50, TCP_S)
        slowest = f"{1e3 * max(trips):.0f} ms"
    record_property("seen", f"{count:,} connections; the slowest of 100 answers took {slowest}")


@pytest.mark.fault(
    "more connections than the daemon may open files",
    "Robots that are connected are answered; newcomers once there are files again.",
)
def test_running_out_of_files_costs_newcomers_alone(models):
    with DaemonProcess(models, loopback()) as daemon, ExitStack() as stack:
        client = stack.enter_context(daemon.client())
        session = client.open("counter@1")
        session.step(ONE)
        room = files_of(daemon) + 50
        hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (room, hard))
        crowd = [stack.enter_context(socket.socket()) for _ in range(300)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", data_port(daemon)))
        wait_for(lambda: files_of(daemon) >= room, TCP_S)
        answers = [session.step(ONE, timeout_s=20) for _ in range(20)]
        assert [a.action[0] for a in answers] == [*range(2, 10), *[10.0] * 12]
        for one in crowd:
            one.close()
        with Client(daemon.endpoint, timeout_s=30) as newcomer:
            assert newcomer.open("counter@1").step(ONE, timeout_s=20).action[0] == 1


@pytest.mark.fault(
    "a connection is half open: the other end is gone and has not said so",
    "It costs nobody anything; the session goes on over another connection, at its next seq.",
)
def test_a_half_open_connection_is_no_ones_burden(models):
    with DaemonProcess(models, loopback()) as daemon, daemon.client() as client:
        session, other = client.open("counter@1"), client.open("counter@1")
        with Tapper(data_port(daemon)) as tapper, socket_to(tapper.address) as wire:
            wire.send(observation(session.id, 0))
            assert wire.poll(5000) and wire.recv()
            tapper.pass_at_most = 0  # from here on nothing of it arrives, and nothing ends
            wire.send(observation(session.id, 1))
            assert not wire.poll(200)
            assert other.step(ONE).action[0] == 1
            again = client.open(session=session.id)
            assert again.resumed and again.next_seq == 1
            assert again.step(ONE).action[0] == 2


@contextmanager
def socket_to(address):
    """A client's bare socket."""
    context = zmq.Context()
    bare = context.socket(zmq.DEALER)
    bare.connect(address)
    try:
        yield bare
    finally:
        context.destroy(linger=0)


def hungry_when_told():
    """The usual policy; but where obs[1] is n hundred, its step fills n * 2^50 bytes first."""
    nodes = [
        helper.make_node("Slice", ["obs", "one", "two", "axis"], ["obs_1"]),
        helper.make_node("ReduceMax", ["obs_1"], ["most"], keepdims=0),
        helper.make_node("Div", ["most", "hundred"], ["fraction"]),
        helper.make_node("Cast", ["fraction"], ["hundreds"], to=TensorProto.INT64),
        helper.make_node("Mul", ["hundreds", "floats"], ["count"]),
        helper.make_node("Expand", ["most", "count"], ["field"]),
        helper.make_node("ReduceSum", ["field"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["little"]),
        helper.make_node("Add", ["usual", "little"], ["action"]),
    ]
    initializers = [
        constant("two", [2], np.int64),
        constant("hundred", 100.0),
        constant("floats", [1 << 48], np.int64),
    ]
    return edited(make_graph(), nodes, initializers=initializers)


@pytest.mark.fault(
    "a policy's step asks for memory without end, on an observation that no trial had",
    "The step fails with an error; memory and session as before; others are answered.",
)
def test_a_step_that_allocates_without_end_fails_alone(tmp_path):
    write_bundle(tmp_path, "counter")
    write_bundle(tmp_path, "hungry", model=hungry_when_told())
    with DaemonProcess(tmp_path) as daemon, daemon.client() as client:
        session, other = client.open("hungry"), client.open("counter")
        assert session.step(ONE).action[0] == 1
        with pytest.raises(ProtocolError, match="the step failed; the session is unchanged"):
            session.step([1.0, 100.0])
        assert other.step(ONE).action[0] == 1
        assert session.step(ONE).action[0] == 2
