"""One observation on its way through a tick, and the small steps that are made with it."""

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from runtime.history import Boundary
from runtime.memory import Bytes
from runtime.messages import Header, ObservationFlag
from runtime.sessions import Session
from runtime.stepper import Stepper

log = structlog.get_logger()
_EPISODE_START = int(ObservationFlag.EPISODE_START)
_TASK, _EPISODE = int(Boundary.TASK), int(Boundary.EPISODE)
_REWARD_AND_DONE = struct.Struct("<ff")


class TickResult(NamedTuple):
    """A reply, and what the tap is to know of it."""

    reply: bytes
    session: int
    seen: bool
    """Whether a tick was made: repeated answers and errors are none."""
    belief: bytes
    """All belief outputs, float32; empty where no step was made or nobody looks."""


class Pending:
    """A checked observation on its way through a tick."""

    flags = 0
    """Of `ActionFlag`, for the answer."""
    boundary = 0
    """Of `Boundary`."""
    row = b""
    carry: Sequence[Bytes] = ()
    started_ns = 0
    undo: Callable[[], None] | None = None
    """Undoes the swap that this tick has taken."""

    def __init__(
        self,
        index: int,
        session: Session,
        header: Header,
        told: tuple[bytes, bytes],
        received_ns: int,
        failed_tests: int,
        way: str,
    ):
        """
        Args:
            index: among the frames that came together.
            session: whose it is.
            header: of the observation.
            told: what `check_observation` gave.
            received_ns: when it came.
            failed_tests: what `Watch.look` found.
            way: how it came.
        """
        self.index, self.session, self.header, self.told = index, session, header, told
        self.received_ns, self.limits, self.failed_tests = received_ns, failed_tests, failed_tests
        self.way = way

    def again(self) -> "Pending":
        """The same observation, as if nothing had been done with it."""
        came = (self.received_ns, self.failed_tests, self.way)
        return Pending(self.index, self.session, self.header, self.told, *came)


def row_of(session: Session, boundary: int, obs: bytes, applied: bytes, reward: float) -> bytes:
    """The graph's inputs of a step as float32: obs, prev_action, prev_reward, prev_done."""
    if boundary & _TASK:  # nothing came before
        return obs + bytes(4 * session.action_size + 8)
    applied = applied or session.applied or bytes(4 * session.action_size)
    done = 1.0 if boundary & _EPISODE else 0.0
    return obs + applied + _REWARD_AND_DONE.pack(reward, done)


def reference(pending: Pending) -> NDArray[np.float32] | None:
    """The action that the rate limit counts from, (A,); none as an episode starts."""
    session = pending.session
    if session.limits.max_step is None or pending.header.flags & _EPISODE_START:
        return None
    applied = pending.told[1] or session.applied
    return np.frombuffer(applied, np.float32) if applied else None


def flat(stepper: Stepper, i: int) -> bytes:
    """All belief outputs of row i as float32, in the manifest's order."""
    return b"".join(np.asarray(v[i], np.float32).tobytes() for v in stepper.belief.values())


def follow(pending: Pending, stepper: Stepper, i: int, healthy: bool) -> None:
    """Let the adaptation status follow a step."""
    monitor = pending.session.monitor
    if pending.boundary & _TASK:
        monitor.forget()
    if healthy:
        monitor.follow(stepper.belief, i)
    else:
        monitor.invalidate()
        log.warning("output_fault", **pending.session.about)
