"""A real daemon, robots that talk to it over raw sockets, and a reference beside each."""

import json
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zmq

from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import ProtocolError
from runtime.messages import (
    HEADER_SIZE,
    ActionFlag,
    Adaptation,
    Code,
    Kind,
    Limit,
    planes,
    unpack,
)
from runtime.store import Store
from tests import reference_requests as reference
from tests.bundles import write_bundle
from tests.reference import Reference
from tests.reference_guard import Limits
from tests.reference_mind import Mind
from tests.reference_wire import Told, frame, parsed, unmarked

LIMITS = Limits(
    max_age_ns=250_000_000, stuck_ticks=4, stop_after=5, probation_ticks=25, ring_size=12
)
SETTINGS = {
    "guard__max_age_s": "0.25",
    "guard__stuck_ticks": "4",
    "guard__stop_after": "5",
    "swap__probation_ticks": "25",
    "ring_size": "12",
}
PATIENCE_MS = 60_000
STRIKES = 2
RATED = [
    {"name": "push", "unit": "N", "low": -10.0, "high": 10.0, "max_rate": 10.0},
    {"name": "turn", "unit": "rad", "low": -1.0, "high": 1.0, "max_rate": None},
]


def write_bundles(models):
    """Policies of all kinds; `foreign` is for another robot, `torn` is broken."""
    by_episode = {"episode": "prior", "task": "prior", "gap": "keep"}
    by_gap = {"episode": "keep", "task": "prior", "gap": "prior"}
    write_bundle(models, "counter", 1)
    write_bundle(models, "counter", 2, gain=0.5)
    write_bundle(models, "other", carry_size=3)
    write_bundle(models, "episodic", boundaries=by_episode)
    write_bundle(models, "strict", boundaries=by_gap)
    write_bundle(models, "rated", action=RATED)
    write_bundle(models, "noisy", noisy=True)
    write_bundle(models, "loud", gain=1e38)  # not finite at once
    write_bundle(models, "brittle", gain=6e37)  # not finite a little later
    write_bundle(models, "hard", gain=100.0)  # out of bounds all the time
    write_bundle(models, "foreign", control_hz=50.0)
    (write_bundle(models, "torn") / "policy.onnx").write_bytes(b"not a graph")


@dataclass
class Robot:
    """One session as its driver sees it, and the reference of it."""

    reference: Reference
    clock_shift_ns: int = 0
    """The driver's clock minus this machine's."""
    last: tuple[bytes, bytes] | None = None
    """The last frame and its answer."""
    seen: dict[int, bytes] = field(default_factory=dict)
    """Answers by sequence number, without marks of how they came."""

    @property
    def id(self) -> int:
        return self.reference.id

    def tell(self, skip=0, obs=(0.0, 0.0), reward=0.0, flags=0, applied=None) -> Told:
        """The next observation, stamped now."""
        now = time.monotonic_ns() + self.clock_shift_ns
        applied = None if applied is None else np.array(applied, np.float32)
        obs = np.array(obs, np.float32)
        return Told(self.reference.next_seq + skip, obs, reward, flags, applied, now)


class World:
    """A daemon process and everybody around it."""

    def __init__(self, models):
        self.store = Store(models)
        self.daemon = DaemonProcess(models, **SETTINGS)
        self.robots: list[Robot] = []
        self.strikes: Counter[str] = Counter()
        self.snapshots: list[tuple[reference.Taken, str]] = []
        self.ids = 0
        self.ticks = 0
        """Since the last crash."""
        self._connect()

    def _connect(self) -> None:
        self.reachable = True
        self.client = Client(self.daemon.endpoint, timeout_s=PATIENCE_MS / 1000)
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(planes(self.daemon.endpoint).data)

    def _disconnect(self) -> None:
        self.reachable = False
        self.client.close()
        self._socket.close()

    def close(self) -> None:
        """End all of it."""
        if self.reachable:
            self._disconnect()
        self.daemon.__exit__(None, None, None)

    def request(self, op: str, **fields):
        """The result of a request."""
        return self.client.request(op, **fields)

    def refusal(self, op: str, **fields) -> str:
        """The code by which a request is refused."""
        try:
            result = self.request(op, **fields)
        except ProtocolError as error:
            return error.code
        raise AssertionError(f"{op} {fields} was granted: {result}")

    def both(self, op: str, act, **fields):
        """A request to the daemon, and what it does to the reference; both grant it, or neither.

        Returns:
            The daemon's result and the reference's; None where it was refused.
        """
        try:
            expected = act()
        except reference.Refused as refused:
            assert self.refusal(op, **fields) == str(refused)
            return None
        return self.request(op, **fields), expected

    def quarantined(self, label: str) -> bool:
        """Whether a policy was sent back too often."""
        return self.strikes[label] >= STRIKES

    def add(self, policy: str) -> None:
        """Open a session."""
        self.ids += 1
        facts = self.request("open", policy=policy, session=self.ids)
        assert not facts["resumed"] and facts["next_seq"] == 0
        loaded = self.store.load(policy)
        self.robots.append(Robot(Reference(self.ids, LIMITS, Mind(loaded, loaded.initial_carry()))))

    def send(self, *frames: bytes) -> None:
        """Observations, together."""
        for each in frames:
            self._socket.send(each)

    def receive(self, count: int) -> list[bytes]:
        """So many answers."""
        replies = []
        while len(replies) < count:
            assert self._socket.poll(PATIENCE_MS), f"{count - len(replies)} answers are missing"
            replies.append(self._socket.recv())
        return replies

    def exchange(self, tellings: Iterable[tuple[Robot, Told]], stall_s: float = 0.0) -> None:
        """Send observations together, and hold every answer against the reference's.

        Args:
            tellings: several of one robot are in their order.
            stall_s: for so long the daemon does not run.
        """
        tellings = list(tellings)
        if stall_s:
            self.daemon.process.send_signal(signal.SIGSTOP)
        frames = [frame(robot.id, told) for robot, told in tellings]
        self.send(*frames)
        if stall_s:
            time.sleep(stall_s)
            self.daemon.process.send_signal(signal.SIGCONT)
        replies = {(h.session, h.seq): r for r in self.receive(len(frames)) for h in [unpack(r)]}
        for (robot, told), sent in zip(tellings, frames, strict=True):
            self.check(robot, told, sent, replies[robot.id, told.seq])
        for robot, told in {robot.id: (robot, told) for robot, told in tellings}.values():
            assert not unpack(replies[robot.id, told.seq]).flags & ActionFlag.SUPERSEDED

    def check(self, robot: Robot, told: Told, sent: bytes, reply: bytes, alive=True) -> None:
        """Hold the answer to a robot's next observation against the reference's.

        Args:
            robot, told, sent, reply: as they are.
            alive: the daemon that gave it is; else what came after the answer is unknown.
        """
        header, ref = unpack(reply), robot.reference
        assert header.kind == Kind.ACTION, reply[HEADER_SIZE:]
        found, heard = parsed(reply)
        expected = ref.tick(told, heard)
        assert found == expected, f"{told} under {ref.mind.label}:\n{found}, expected\n{expected}"
        assert np.isfinite(np.frombuffer(found.action, np.float32)).all()
        if found.limits & Limit.STALE and ref.mind.label != "rated@1":
            fallback = ref.mind.policy.manifest.fallback_action
            assert found.action == np.array(fallback, np.float32).tobytes()
        assert told.seq not in robot.seen
        self.ticks += 1
        robot.last, robot.seen[told.seq] = (sent, reply), unmarked(reply)
        if alive:
            ref.settle(found, heard)
            self.strikes.update(ref.failed)
            ref.failed.clear()

    def repeat(self, robot: Robot, sent: bytes) -> None:
        """The last observation once more: the same answer."""
        assert robot.last is not None
        self.send(sent)
        (reply,) = self.receive(1)
        assert unpack(reply).flags & ActionFlag.REPEATED
        assert unmarked(reply) == unmarked(robot.last[1])

    def error(self, sent: bytes) -> Code:
        """The code that a frame is refused with."""
        self.send(sent)
        (reply,) = self.receive(1)
        assert unpack(reply).kind == Kind.ERROR
        return Code(unpack(reply).status)

    def crash(self) -> None:
        """`kill -9`, and a new start."""
        self.ticks = 0
        self.daemon.kill()
        self._disconnect()
        self.daemon.start()
        self._connect()
        path = Path(self.daemon._environment["ADAPTD_STATE"]) / "quarantine.json"
        saved = json.loads(path.read_text()) if path.exists() else {}
        self.strikes = Counter({label: len(reasons) for label, reasons in saved.items()})

    def crash_in_flight(self, tellings: list[tuple[Robot, Told]], wait_s: float) -> None:
        """A kill while observations are answered; they are sent again afterwards."""
        frames = [frame(robot.id, told) for robot, told in tellings]
        self.send(*frames)
        time.sleep(wait_s)
        self.crash()
        rows = {row["session"]: row for row in self.request("status")["sessions"]}
        for (robot, told), sent in zip(tellings, frames, strict=True):
            self.send(sent)
            (reply,) = self.receive(1)
            if unpack(reply).flags & ActionFlag.REPEATED:
                self.check(robot, told, sent, reply, alive=False)
                generation = robot.reference.generation
                if rows[robot.id]["generation"] > generation:  # sent back after its answer
                    robot.reference.settle(*parsed(reply))
                robot.reference.failed.clear()
                reference.crash(robot.reference, self.store.load)
            else:
                reference.crash(robot.reference, self.store.load)
                self.check(robot, told, sent, reply)

    def check_status(self) -> None:
        """What the daemon says of all sessions is what the references are."""
        facts = self.request("status")
        assert not facts["set_aside"]
        rows = {row["session"]: row for row in facts["sessions"]}
        assert set(rows) == {robot.id for robot in self.robots}
        for robot in self.robots:
            row, ref = rows[robot.id], robot.reference
            expected = {
                "policy": ref.mind.label,
                "previous_policy": ref.mind.previous or None,
                "waiting_policy": ref.waiting.mind.label if ref.waiting else None,
                "generation": ref.generation,
                "next_seq": ref.next_seq,
                "adaptation": Adaptation(ref.mood.status).name.lower(),
                "frozen": ref.frozen,
                "stopped": ref.stopped,
                "probation": ref.trial.left if ref.trial else 0,
                "steps": ref.steps,
                "gaps": ref.gaps,
                "missed": ref.missed,
                "limited": ref.limited,
                "swaps": ref.swaps,
                "stale": ref.stale,
            }
            assert {key: row[key] for key in expected} == expected
            candidate = ref.beside if ref.beside and not ref.beside.incumbent else None
            found = row["candidate"]["policy"] if row["candidate"] else None
            assert found == (candidate.mind.label if candidate else None)
