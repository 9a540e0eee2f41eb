"""Runs adapt.onnx between episodes, off the control path.

The session goes on with its present carry meanwhile; what the graph changed is committed
between two ticks.
"""

import queue
import threading
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import structlog

from runtime.guard import all_finite
from runtime.history import Arrays, Boundary, History
from runtime.learner import Learner, LessonOverrun
from runtime.memory import Memory
from runtime.registry import Registry
from runtime.sessions import Session
from runtime.swap import InLoop

log = structlog.get_logger()

MOST_WAITING = 4
"""Episodes of one session that may wait: where it learns more slowly than it lives, later ones
are let go, and memory stays bounded."""

WHYS: tuple[str, ...] = ("overrun", "backlog", "fault", "failure", "loss")
"""Why a lesson may come to nothing."""


class Learning:
    """One thread that learns from episodes, in the order in which they end."""

    def __init__(self, in_loop: InLoop, registry: Registry, limit_s: float | None = None):
        """
        Args:
            in_loop: runs a function between two ticks.
            registry: of the sessions.
            limit_s: how long one lesson may take; None: as long as it likes.
        """
        self._in_loop, self._registry, self._limit_s = in_loop, registry, limit_s
        self.lost: Counter[str] = Counter(dict.fromkeys(WHYS, 0))  # a rate needs a zero first
        """Lessons that came to nothing, by why."""
        self._waiting: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[_Lesson, History, Arrays] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="learning", daemon=True)

    def episode_ended(self, session: Session) -> None:
        """Take an episode in; called in the loop, after the next episode's first tick."""
        learner = session.policy.learner
        if learner is None or session.frozen:
            return
        episode = session.memory.last_episode()
        if len(episode) < 2:  # a task began too: nothing before it counts
            return
        seq = int(episode.seqs[-1])
        lesson = _Lesson(session.id, learner, session.memory, seq)
        if not self._may_wait(session.id):
            self.lost["backlog"] += 1
            log.warning("lesson_backlog", **lesson.about, waiting=MOST_WAITING)
            return
        self._jobs.put((lesson, episode, session.memory.carry_arrays()))

    def _may_wait(self, session: int) -> bool:
        with self._lock:
            if self._waiting[session] >= MOST_WAITING:
                return False
            self._waiting[session] += 1
            return True

    def _taken(self, session: int) -> None:
        with self._lock:
            self._waiting[session] -= 1
            if not self._waiting[session]:
                del self._waiting[session]

    def stop(self) -> None:
        """Finish what is under way and end the thread."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._work_on(*job)

    def take_one(self) -> bool:
        """Learn from the oldest episode that waits, on the caller's thread; False if none does."""
        with suppress(queue.Empty):
            job = self._jobs.get_nowait()
            if job is not None:
                self._work_on(*job)
                return True
        return False

    def drop_one(self) -> None:
        """Let go of the oldest episode that waits."""
        with suppress(queue.Empty):
            job = self._jobs.get_nowait()
            if job is not None:
                self._taken(job[0].session)

    def _work_on(self, lesson: "_Lesson", episode: History, carry: Arrays) -> None:
        try:
            self._learn(lesson, episode, carry)
        finally:
            self._taken(lesson.session)

    def _learn(self, lesson: "_Lesson", episode: History, carry: Arrays) -> None:
        try:
            changed = lesson.learner.learn(episode, carry, self._limit_s)
        except LessonOverrun as error:
            self.lost["overrun"] += 1
            log.warning("lesson_overrun", **lesson.about, reason=str(error))
            return
        except Exception:
            self.lost["failure"] += 1
            log.exception("lesson_failure", **lesson.about)
            return
        with np.errstate(invalid="ignore"):
            whole = all(all_finite(v) for v in changed.values() if v.dtype.kind == "f")
        if not whole:
            self.lost["fault"] += 1
            log.warning("lesson_fault", **lesson.about)
            return
        if not self._in_loop(partial(_commit, self._registry, lesson, changed)):
            self.lost["loss"] += 1


class _Lesson(NamedTuple):
    """Who learns, and what must still be so when it is done."""

    session: int
    learner: Learner
    memory: Memory
    """The session's record: after a swap, a restore or a close it is another."""
    seq: int
    """Of the tick at which the episode had ended."""

    @property
    def about(self) -> dict[str, Any]:
        """What an event about it begins with."""
        return {"session": self.session, "lesson_of": self.seq}


def _commit(registry: Registry, lesson: _Lesson, changed: Arrays) -> bool:
    """Make what was learnt part of the carry, if nothing came between; whether. In the loop."""
    session = registry.find(lesson.session)
    if session is None or session.memory is not lesson.memory or _forgot(session, lesson.seq):
        log.info("lesson_loss", **lesson.about)
        return False
    names = [place.name for place in session.memory.layout.tensors]
    carry = [
        np.ascontiguousarray(changed[name]).tobytes() if name in changed else bytes(value)
        for name, value in zip(names, session.carry, strict=True)
    ]
    session.amend(carry)
    log.info("lesson", **session.about)
    return True


def _forgot(session: Session, seq: int) -> bool:
    """Whether a session must not change any more, or began at the prior after a tick."""
    since = session.memory.since(0)
    later = since.boundaries[since.seqs > np.uint64(seq)]
    forgot = session.start_fresh or bool((later & np.uint32(Boundary.TASK)).any())
    return session.frozen or forgot
