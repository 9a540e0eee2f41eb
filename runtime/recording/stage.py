"""The daemon's own loop without its sockets: where a recorded session lives once more."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime import snapshot
from runtime.learning import Learning
from runtime.loop import Loop
from runtime.messages import Adaptation, Limit
from runtime.pending import TickResult
from runtime.policy import Policy
from runtime.recording.ticks import Checkpoint, RecordedTick
from runtime.registry import Registry
from runtime.sessions import Rules, Session
from runtime.state import Served, StateFolder
from runtime.watch import Watch, WatchLimits

_WATCHED = int(Limit.STALE | Limit.SLOW | Limit.INVALID | Limit.STUCK)
_STOPPED = int(Limit.STOPPED)
CAPACITY = 8
"""Records per policy: the session's, and those of swaps under way."""


class _Verdict(Watch):
    """Finds of an observation what the daemon's own watch had found."""

    found = 0

    def look(self, sent_ns: int, received_ns: int, obs: bytes, invalid: bool) -> int:
        return self.found


class Stage:
    """One session in a loop of its own, driven by recorded frames; a context manager."""

    def __init__(self, session: int, ring_size: int):
        """
        Args:
            session: its id, on which its noise depends.
            ring_size: transitions that the daemon kept.
        """
        self.id = session
        self._now_ns = 0
        self._folder = tempfile.TemporaryDirectory(prefix="adaptd-replay-")
        self._state = StateFolder(Path(self._folder.name), ring_size, CAPACITY)
        self._state.take()
        registry = Registry(Rules())
        self.learning = Learning(lambda function: function(), registry)
        self._loop = Loop(
            lambda: self._now_ns, registry, on_episode=self.learning.episode_ended, tapped=True
        )
        self._verdict = _Verdict(WatchLimits())

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def session(self) -> Session | None:
        """As it is now; None before it is opened."""
        return self._loop.registry.live.get(self.id)

    def serve(self, policy: Policy) -> Served:
        """A policy with room for the session's state."""
        return self._state.serve(policy)

    def open(self, policy: Policy, next_seq: int = 0) -> Session:
        """The session anew, at the prior."""
        self.close()
        served = self.serve(policy)
        memory = served.slab.allocate()
        memory.claim(self.id, "")
        session = Session(served.stepper, memory, self._loop.registry.rules)
        session.next_seq = next_seq
        session.amend()
        return self._loop.registry.add(session)

    def close(self) -> None:
        """End the session, if there is one."""
        if self.session is not None:
            self._loop.registry.close(self.id)

    def restore(self, policy: Policy, checkpoint: Checkpoint) -> Session:
        """The session as a checkpoint has it.

        Raises:
            WrongSnapshot: it is of another policy, or none at all.
        """
        found = snapshot.from_bytes(checkpoint.content, policy.manifest)
        about = found.about
        session = self.open(policy, int(about["next_seq"]))
        snapshot.write_history(session.memory, found.history)
        session.options = found.options
        session.generation = int(about.get("generation", 1))
        session.applied = bytes.fromhex(about.get("applied", ""))
        session.set_flags(int(about.get("flags", 1)))
        session.start_fresh = bool(about["fresh"])
        session.monitor.resume(Adaptation(found.adaptation), int(about["monitor_steps"]))
        session.amend(found.carry)
        return session

    def tick(self, tick: RecordedTick, frame: bytes) -> TickResult:
        """Answer a recorded observation as the daemon did, its watch's verdict given."""
        session = self.session
        assert session is not None
        self._now_ns = tick.received_ns
        self._verdict.found = tick.limits & _WATCHED
        session.watch = self._verdict
        session.stopped = bool(tick.limits & _STOPPED)
        if session.probation is not None:  # it judges by time, too: what it did is recorded
            session.probation = replace(session.probation, period_ns=2**62, clamp_rate_before=1.0)
        return self._loop.tick(frame, tick.received_ns)

    def carry_bits(self) -> list[bytes]:
        """The carry that the next step finds."""
        session = self.session
        assert session is not None
        carry: Any = session.stepper.prior if session.start_fresh else session.carry
        return [bytes(value) for value in carry]
