"""Runs adapt.onnx between episodes, off the control path.

The session goes on with its present carry meanwhile; what the graph changed is committed
between two ticks.
"""

import queue
import threading

import numpy as np
import structlog

from runtime.guard import all_finite
from runtime.learner import Learner
from runtime.memory import Arrays, Boundary, History
from runtime.sessions import Session
from runtime.swap import InLoop

log = structlog.get_logger()


class Learning:
    """One thread that learns from episodes, in the order in which they end."""

    def __init__(self, in_loop: InLoop):
        """
        Args:
            in_loop: runs a function between two ticks.
        """
        self._in_loop = in_loop
        self._jobs: queue.SimpleQueue[tuple[Session, Learner, History, Arrays, int] | None] = (
            queue.SimpleQueue()
        )
        self.thread = threading.Thread(target=self._work, name="learning", daemon=True)

    def episode_ended(self, session: Session) -> None:
        """Take an episode in; called in the loop, after the next episode's first tick."""
        learner = session.policy.learner
        if learner is None or session.frozen:
            return
        episode = session.memory.last_episode()
        if len(episode) < 2:  # a task began too: nothing before it counts
            return
        carry = session.memory.carry_arrays()
        self._jobs.put((session, learner, episode, carry, session.generation))

    def stop(self) -> None:
        """Finish what is under way and end the thread."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            session, learner, episode, carry, generation = job
            try:
                changed = learner.learn(episode, carry)
            except Exception:
                log.exception("learning_failed", session=session.id)
                continue
            with np.errstate(invalid="ignore"):
                whole = all(all_finite(v) for v in changed.values() if v.dtype.kind == "f")
            if not whole:
                log.warning("learning_not_finite", session=session.id)
                continue
            seq = int(episode.seqs[-1])
            self._in_loop(lambda: _commit(session, generation, seq, changed))  # noqa: B023


def _commit(session: Session, generation: int, seq: int, changed: Arrays) -> None:
    """Make what was learnt part of the carry, if nothing came between. In the loop."""
    since = session.memory.since(0)
    later = since.boundaries[since.seqs > np.uint64(seq)]
    forgot = session.start_fresh or bool((later & np.uint32(Boundary.TASK)).any())
    if session.generation != generation or session.frozen or forgot:
        log.info("learning_dropped", session=session.id)
        return
    names = [place.name for place in session.memory.layout.tensors]
    carry = [
        np.ascontiguousarray(changed[name]).tobytes() if name in changed else bytes(value)
        for name, value in zip(names, session.carry, strict=True)
    ]
    session.amend(carry)
    log.info("learnt", session=session.id, from_seq=session.next_seq)
