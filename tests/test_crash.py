"""A kill at every point of everything that writes a session's record.

Each scenario is run once to list the lines that it reaches, then once per line in a child
process that is killed there. What a restart makes of the folder is then what it was
before, or what it would be without the kill, to the last bit.
"""

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from zlib import crc32

import pytest
import zmq

from runtime.daemon_process import DaemonProcess
from runtime.loop import Loop
from runtime.memory import Memory
from runtime.messages import HEADER_SIZE, VERSION, ActionFlag, planes, unpack
from runtime.registry import Registry
from runtime.sessions import Session
from runtime.snapshot import take
from runtime.state import StateFolder
from runtime.store import Store
from tests.crash_scenarios import (
    OTHER_ID,
    RING,
    SCENARIOS,
    TICKS,
    observation,
    offer,
    play,
    session_of,
    switch,
    write_bundles,
)
from tests.crashing import WRITERS, Point, dies, distinct, lines_of, points_of
from tests.loops import ID, Bench

FOLLOWING = 6
"""Ticks after the kill: the one that may be resent, and five more."""
CAPACITY = 8


@dataclass
class Reopened:
    """A daemon's sessions after a restart."""

    state: StateFolder
    loop: Loop

    @property
    def registry(self):
        return self.loop.registry


@contextmanager
def reopened(folder, store):
    """Another daemon finds a state folder."""
    state = StateFolder(folder, RING, CAPACITY)
    state.take()
    try:
        yield Reopened(state, Loop(lambda: 0, Registry(asleep=state.recover(store.load))))
    finally:
        os.close(state._lock)
        for served in state._served.values():
            served.slab.close()


def plain(reply):
    """An answer without what a crash may change: when it was made, and that it is repeated."""
    header = unpack(reply)
    flags = header.flags & ~ActionFlag.REPEATED
    header = header._replace(flags=flags, time_ns=0, queue_ns=0, inference_ns=0)
    return header, reply[HEADER_SIZE:]


def outcome(loop, first_seqs):
    """All that a robot and an operator can find out about the sessions."""
    found = []
    for session_id, first in first_seqs.items():
        if loop.registry.find(session_id) is None:
            found.append((session_id, "gone"))
            continue
        frames = [observation(first + i, session_id) for i in range(FOLLOWING)]
        replies = [plain(loop.tick(each, 0).reply) for each in frames]
        session = loop.registry.find(session_id)
        taken = take(session)
        history = [x.tobytes() for x in (taken.history.seqs, taken.history.rows)]
        facts = (session.previous, session.counters.steps, session.counters.swaps, session.flags())
        found.append((session_id, replies, taken.about, taken.carry, history, facts))
    return found


def content(folder):
    """What lies in a state folder's slabs."""
    return tuple(crc32(path.read_bytes()) for path in sorted(folder.glob("*.slab")))


class Forge:
    """Runs of the scenarios, each in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        write_bundles(folder / "models")
        self.store = Store(folder / "models")
        for reference in self.store.references():
            self.store.load(reference)

    def fresh_folder(self):
        self.count += 1
        return self.folder / f"state-{self.count}"

    def bench(self, scenario, folder):
        """The run up to the instant, and the sequence number of each session's next tick."""
        bench = Bench(
            self.folder / "models", RING, folder=folder, store=self.store, capacity=CAPACITY
        )
        bench.open(scenario.policy)
        play(bench, scenario.ticks)
        scenario.before(bench)
        found = {i: bench.loop.registry.find(i) for i in (ID, OTHER_ID)}
        return bench, {i: session.next_seq if session else 0 for i, session in found.items()}

    def ends(self, scenario):
        """What may be left after a kill: nothing of the act, all of it, or a half."""
        for run in (lambda bench: None, scenario.act, *scenario.halves):
            bench, seqs = self.bench(scenario, self.fresh_folder())
            run(bench)
            yield outcome(bench.loop, seqs)

    def points(self, scenario):
        """The instants of the act, and the sequence numbers before it."""
        folder = self.fresh_folder()
        bench, seqs = self.bench(scenario, folder)
        return points_of(lambda: scenario.act(bench), lambda: content(folder)), seqs

    def killed(self, scenario, point):
        """The folder of a run that was killed."""
        folder = self.fresh_folder()

        def prepare():
            bench, _ = self.bench(scenario, folder)
            return lambda: scenario.act(bench)

        assert dies(point, prepare), point
        return folder


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    return Forge(tmp_path_factory.mktemp("crash"))


ALWAYS = {"swap by replay", "swap on probation"}
"""The others are for `make test-long`."""


@pytest.mark.parametrize(
    "name", [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.long) for n in SCENARIOS]
)
@pytest.mark.fault(
    "`kill -9` at each line that writes state", "The state before or the one after, to the bit."
)
def test_a_kill_at_any_line_leaves_the_state_before_or_the_one_after(forge, name):
    scenario = SCENARIOS[name]
    ends = list(forge.ends(scenario))
    points, seqs = forge.points(scenario)
    assert points
    for point in distinct(points):
        folder = forge.killed(scenario, point)
        with reopened(folder, forge.store) as daemon:
            for session_id in daemon.registry.ids():
                assert len(records_of(daemon, session_id)) == 1, (name, point)
            assert outcome(daemon.loop, seqs) in ends, (name, point)
            assert all(len(records_of(daemon, i)) <= 1 for i in seqs), (name, point)
        shutil.rmtree(folder)


def records_of(daemon, session_id):
    """The records that a further restart would take for a session's."""
    return [
        (served.policy.label, i)
        for served in daemon.state._served.values()
        for i in range(served.slab.capacity)
        if (memory := served.slab.record(i)).session == session_id and memory.commits
    ]


def test_the_kills_leave_out_no_line(forge):
    reached = {(p.function, p.line) for s in SCENARIOS.values() for p in forge.points(s)[0]}
    missed = {(f.__qualname__, line) for f in WRITERS for line in lines_of(f)} - reached
    assert not missed


class CrashingDaemon(DaemonProcess):
    """A daemon that kills itself at an instant; `start` again starts a sound one.

    Its death ends every wait, so that no time-out is needed, however busy the machine is.
    """

    def __init__(self, models, point):
        self.program, self.starts = ("tests.crashing_daemon", *map(str, point)), 0
        super().__init__(models)

    def start(self):
        super().start()
        self.program, self.starts = DaemonProcess.program, self.starts + 1

    def until_done(self, attempt):
        """What an attempt gives; after a crash, what a second one gives."""
        found = attempt()
        if found is None:
            self.start()
            found = attempt()
        return found

    def request(self, **fields):
        """The reply to a control request; None if the daemon died over it."""
        content = json.dumps({"version": VERSION, **fields}).encode()
        reply = self._ask(planes(self.endpoint).control, [b"tag", content])
        return reply and json.loads(reply[1])["result"]

    def answer(self, frame):
        """The answer to an observation; None if the daemon died over it."""
        reply = self._ask(planes(self.endpoint).data, [frame])
        return reply and reply[0]

    def _ask(self, address, message):
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        socket.send_multipart(message)
        while not socket.poll(20) and self.process.poll() is None:
            pass
        reply = socket.recv_multipart() if socket.poll(0) else None
        socket.close()
        return reply


REAL = {
    "a tick's transition": (Memory._write_entry, 3, 5, "freeze"),
    "a tick's slot": (Memory.commit, 10, 6, "freeze"),
    "before a tick counts": (Memory.commit, -3, 6, "freeze"),
    "after a tick counts": (Memory.commit, -2, 6, "freeze"),
    "the new record of a swap": (Memory.claim, -1, 2, "swap"),
    "the old record of a swap": (Session._retire, 0, 1, "swap"),
    "a reset": (Memory.commit, -1, 7, "reset"),
}
"""Function, its line, the call that is killed, and what an operator asks for after tick 5."""
DEEDS = {
    "freeze": ({"frozen": True}, partial(switch, frozen=True)),
    "swap": ({"policy": "other"}, partial(offer, reference="other")),
    "reset": ({}, lambda bench: session_of(bench).reset()),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.fault(
    "`kill -9` while a robot is answered",
    "It sends its observation again, and notices nothing but the wait.",
)
def test_a_robot_notices_nothing_of_a_kill_but_the_wait(tmp_path, name):
    function, line, call, op = REAL[name]
    write_bundles(tmp_path)
    fields, deed = DEEDS[op]
    bench = Bench(tmp_path)
    bench.open("counter@1")
    point = Point(function.__qualname__, sorted(lines_of(function))[line], call)
    with CrashingDaemon(tmp_path, point) as daemon:
        daemon.request(op="open", policy="counter@1", session=ID)
        for seq in range(TICKS):
            if seq == TICKS // 2:
                assert daemon.until_done(partial(daemon.request, op=op, session=ID, **fields))
                deed(bench)
            reply = daemon.until_done(partial(daemon.answer, observation(seq)))
            assert plain(reply) == plain(bench.loop.tick(observation(seq), 0).reply), seq
        assert daemon.starts == 2
