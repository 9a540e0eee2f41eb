"""Which sessions there are: those at work, and those asleep on the disk.

The rule: a session that has not ticked for `idle_after_s` is put to sleep, its state stays
in its record; its next observation wakes it within that tick, and so does a request. One
that has not ticked for `forget_after_s` is closed.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import structlog

from runtime.layout import Head
from runtime.memory import Memory
from runtime.sessions import Rules, Session
from runtime.stepper import Stepper

log = structlog.get_logger()

JUMP_S = 60
"""Smaller steps of the wall clock make no difference to what is forgotten, and when."""


@dataclass(frozen=True)
class Asleep:
    """A session whose state is on the disk alone."""

    stepper: Stepper
    memory: Memory
    seen_s: int
    """When it last ticked, seconds since 1970."""

    def head(self) -> Head:
        """Its numbers."""
        return self.memory.committed().head


@dataclass
class Registry:
    """All sessions of a daemon. Only the loop's thread touches it."""

    rules: Rules = field(default_factory=Rules)
    live: dict[int, Session] = field(default_factory=dict)
    asleep: dict[int, Asleep] = field(default_factory=dict)
    wall_s: int = 0
    """Seconds since 1970, renewed about once a second."""
    now_ns: int = 0
    """On the clock of the ticks, likewise."""

    def __len__(self) -> int:
        return len(self.live) + len(self.asleep)

    def owner(self, session_id: int) -> str | None:
        """Public key of the client that opened a session, which is not woken; empty where it
        had none, None where there is no such session."""
        session = self.live.get(session_id)
        if session is not None:
            return session.owner
        sleeping = self.asleep.get(session_id)
        return None if sleeping is None else sleeping.memory.owner

    def count_of(self, owners: Collection[str]) -> int:
        """How many sessions belong to any of some keys."""
        live = sum(session.owner in owners for session in self.live.values())
        return live + sum(s.memory.owner in owners for s in self.asleep.values())

    def ids(self) -> list[int]:
        """Of all sessions."""
        return [*self.live, *self.asleep]

    def add(self, session: Session) -> Session:
        """Take in a session; the one that has the id already, if there is one."""
        known = self.find(session.id)
        if known is None:
            self.live[session.id] = session
            return session
        session.leave()
        return known

    def find(self, session_id: int) -> Session | None:
        """A session, woken if it is asleep."""
        return self.live.get(session_id) or self.wake(session_id)

    def wake(self, session_id: int) -> Session | None:
        """A session that is asleep; None if there is none of that id."""
        sleeping = self.asleep.pop(session_id, None)
        if sleeping is None:
            return None
        session = Session.recovered(sleeping.stepper, sleeping.memory, self.rules)
        session.seen_ns = self.now_ns  # a request that woke it has time to be carried out
        self.live[session_id] = session
        return session

    def close(self, session_id: int) -> None:
        """End a session; its record is given back."""
        session = self.find(session_id)
        if session is not None:
            del self.live[session_id]
            session.leave()

    def follow_clock(self, wall_s: int, now_ns: int) -> None:
        """Renew `wall_s`; where that clock has jumped, nobody is any older or younger for it.

        A robot without a clock of its own may start in 1970, and learn the date from the network.

        Args:
            wall_s: seconds since 1970.
            now_ns: on the clock of the ticks, which never jumps.
        """
        jump_s = wall_s - self.wall_s - (now_ns - self.now_ns) // 1_000_000_000
        self.wall_s = wall_s
        if abs(jump_s) < JUMP_S:
            return
        log.warning("clock_jump", seconds=jump_s, sessions=len(self))
        for session_id in self.ids():
            session = self.find(session_id)
            assert session is not None
            session.seen_s = max(0, session.seen_s + jump_s)
            session.amend()

    def tidy(self, now_ns: int, idle_after_s: float, forget_after_s: float) -> None:
        """Put idle sessions to sleep and close forgotten ones.

        Args:
            now_ns: on the clock of the ticks.
            idle_after_s, forget_after_s: as in the module.
        """
        self.now_ns = now_ns
        quiet = now_ns - int(1e9 * idle_after_s)
        for session in [s for s in self.live.values() if s.seen_ns < quiet]:
            if session.companion is None and session.ready is None:
                del self.live[session.id]
                self.asleep[session.id] = Asleep(session.stepper, session.memory, session.seen_s)
                session.memory.rest()
        oldest = self.wall_s - int(forget_after_s)
        for session_id, sleeping in list(self.asleep.items()):
            if sleeping.seen_s < oldest:
                log.info("expiry", session=session_id, policy=sleeping.stepper.policy.label)
                self.close(session_id)
