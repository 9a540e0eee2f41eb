"""The tick: from an observation's bytes to an answer's, without sockets or a clock.

The order, which CONTRIBUTING.md repeats:

    1 decode and check
    2 duplicate, gap, boundary
    3 take a ready swap
    4 step
    5 guard
    6 commit
    7 reply and tap (the reply is returned; the transport sends both)

Nothing of a session changes before 6, except that a ready swap is taken in 3.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from runtime.guard import guard
from runtime.messages import (
    HEADER_SIZE,
    ActionFlag,
    Code,
    FrameError,
    Header,
    Kind,
    Limit,
    ObservationFlag,
    error_frame,
    unpack,
)
from runtime.noise import step_noise
from runtime.policy import Arrays, Policy, Step
from runtime.sessions import Adopted, Session, Transition

log = structlog.get_logger()

CATCH_UP_STEPS = 8
"""Most transitions that a tick steps through a new policy before its own."""


class Answer(NamedTuple):
    """A reply, and the belief behind it for the tap; None where no step was made."""

    reply: bytes
    session: int
    belief: Arrays | None


class Observation(NamedTuple):
    """A decoded and checked observation, batch of one."""

    header: Header
    obs: NDArray[np.float32]  # (1, O)
    applied: NDArray[np.float32] | None  # (1, A), as the robot reports it


@dataclass
class Loop:
    """All sessions and the tick over them. One thread owns it."""

    clock: Callable[[], int]
    """Monotonic time [ns]."""
    sessions: dict[int, Session] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    """Frames that were answered by an error, by code."""

    def tick(self, frame: bytes, received_ns: int) -> Answer:
        """Answer one frame. Never raises for what a sender did.

        Args:
            frame: as it came from the wire.
            received_ns: when, on `clock`.
        """
        try:
            header = unpack(frame)
        except FrameError as error:
            return self._refuse(error, 0, 0)
        try:
            session = self._session(header)
            observation = _check(frame, header, session)  # 1
            if header.seq == session.next_seq - 1 and session.reply:  # 2
                session.counters.repeated += 1
                return Answer(_repeat(session.reply), session.id, None)
            if header.seq < session.next_seq:
                raise FrameError(
                    Code.OLD_SEQ, f"seq {header.seq} is over: the next one is {session.next_seq}"
                )
            return self._step(session, observation, received_ns)
        except FrameError as error:
            if header.session in self.sessions:
                self.sessions[header.session].counters.refused += 1
            return self._refuse(error, header.session, header.seq)
        except Exception:
            log.exception("tick_failed", session=header.session, seq=header.seq)
            error = FrameError(Code.INTERNAL, "the step failed; the session is unchanged")
            return self._refuse(error, header.session, header.seq)

    def _session(self, header: Header) -> Session:
        if header.kind != Kind.OBSERVATION:
            raise FrameError(Code.WRONG_KIND, f"kind {header.kind} is not an observation (1)")
        try:
            return self.sessions[header.session]
        except KeyError:
            raise FrameError(
                Code.UNKNOWN_SESSION, f"there is no session {header.session}: open one first"
            ) from None

    def _step(self, session: Session, observation: Observation, received_ns: int) -> Answer:
        header = observation.header
        flags = ActionFlag(0)
        missed = header.seq - session.next_seq
        if missed:
            flags |= ActionFlag.GAP
        if session.ready is not None:  # 3
            take_swap(session)
            flags |= ActionFlag.SWAPPED
        transition, carry = _boundary(session, observation, bool(missed))
        started = self.clock()
        step = run_step(session.policy, session.id, transition, carry)  # 4
        inference_ns = self.clock() - started
        healthy = bool(np.isfinite(step.action).all()) and _finite(step.carry)
        previous = None if transition.fresh or transition.prev_done[0, 0] else session.applied
        requested = step.action if healthy else np.full_like(step.action, np.nan)
        action, limits = guard(requested, previous, session.limits)  # 5
        if transition.fresh:
            session.monitor.forget()
        if healthy:
            session.monitor.follow(step.belief)
        else:
            session.monitor.invalidate()
            log.warning("policy_output_not_finite", session=session.id, seq=header.seq)
        reply = _action_frame(
            session, header.seq, flags, action, requested, limits,
            received_ns, started - received_ns, inference_ns,
        )  # fmt: skip
        session.commit(transition, step.carry if healthy else carry, action, reply)  # 6
        session.counters.gaps += bool(missed)
        session.counters.missed += missed
        session.counters.limited += bool(limits)
        return Answer(reply, session.id, step.belief)  # 7

    def _refuse(self, error: FrameError, session: int, seq: int) -> Answer:
        self.refused[error.code.name] = self.refused.get(error.code.name, 0) + 1
        return Answer(error_frame(error.code, str(error), session, seq), session, None)


def run_step(policy: Policy, session: int, transition: Transition, carry: Arrays) -> Step:
    """One step of a policy on a transition's inputs, with the noise of (session, seq)."""
    inputs = {
        "obs": transition.obs,
        "prev_action": transition.prev_action,
        "prev_reward": transition.prev_reward,
        "prev_done": transition.prev_done,
    }
    size = policy.manifest.noise_size
    if size:
        inputs["noise"] = step_noise(session, transition.seq, size)
    return policy.step(inputs, policy.initial_carry() if transition.fresh else carry)


def take_swap(session: Session) -> None:
    """Let the policy that is ready take over, its carry brought up to the last tick."""
    ready = session.ready
    assert ready is not None
    session.ready = None
    carry = session.carry if ready.carry is None else ready.carry
    if ready.carry is not None:
        for transition in session.ring.since(ready.next_seq):
            carry = run_step(ready.policy, session.id, transition, carry).carry
    session.previous = session.policy
    session.adopt(ready.policy, carry)
    session.generation += 1
    session.counters.swaps += 1


def offer_swap(session: Session, adopted: Adopted) -> bool:
    """Make a policy ready for the next tick; False if its carry is too far behind for that."""
    behind = 0 if adopted.carry is None else len(session.ring.since(adopted.next_seq))
    if behind > CATCH_UP_STEPS:
        return False
    session.ready = adopted
    return True


def _check(frame: bytes, header: Header, session: Session) -> Observation:
    manifest = session.policy.manifest
    if header.first != manifest.obs_size:
        raise FrameError(
            Code.WRONG_SIZE,
            f"an observation of {header.first} numbers: {session.policy.label} takes "
            f"{manifest.obs_size}",
        )
    echoed = bool(header.flags & ObservationFlag.APPLIED_ACTION)
    if header.second != (manifest.action_size if echoed else 0):
        raise FrameError(
            Code.WRONG_SIZE,
            f"an applied action of {header.second} numbers: {session.policy.label} takes "
            f"{manifest.action_size}, announced by its flag",
        )
    payload = np.frombuffer(frame, np.float32, offset=HEADER_SIZE)
    if not (np.isfinite(payload).all() and np.isfinite(header.reward)):
        raise FrameError(Code.NOT_FINITE, f"the {_not_finite(payload, header, session)}")
    obs, applied = payload[: header.first], payload[header.first :]
    return Observation(header, obs[None], applied[None] if echoed else None)


def _not_finite(payload: NDArray[np.float32], header: Header, session: Session) -> str:
    """Which number is the trouble, in words."""
    if not np.isfinite(header.reward):
        return f"previous reward is {header.reward}"
    i = int(np.flatnonzero(~np.isfinite(payload))[0])
    manifest = session.policy.manifest
    names = [f"observation {e.name!r}" for e in manifest.observation]
    names += [f"applied action {e.name!r}" for e in manifest.action]
    return f"{names[i]} is {payload[i]}"


def _boundary(session: Session, observation: Observation, gap: bool) -> tuple[Transition, Arrays]:
    """The inputs of this step and the carry before it, as the boundaries demand."""
    header, boundaries = observation.header, session.policy.manifest.boundaries
    action_size = session.policy.manifest.action_size
    new_task = session.start_fresh or bool(header.flags & ObservationFlag.NEW_TASK)
    episode_start = bool(header.flags & ObservationFlag.EPISODE_START)
    fresh = new_task or (gap and boundaries.gap == "prior")
    fresh = fresh or (episode_start and boundaries.episode == "prior")
    if new_task or session.next_seq == 0:
        nothing = np.zeros((1, 1), np.float32)
        before = (np.zeros((1, action_size), np.float32), nothing, nothing)
    else:
        applied = observation.applied if observation.applied is not None else session.applied
        if applied is None:
            applied = np.zeros((1, action_size), np.float32)
        reward = np.array([[header.reward]], np.float32)
        before = (applied, reward, np.full((1, 1), episode_start, np.float32))
    return Transition(header.seq, fresh, observation.obs, *before), session.carry


def _finite(carry: Arrays) -> bool:
    return all(np.isfinite(value).all() for value in carry.values())


def _action_frame(
    session: Session,
    seq: int,
    flags: ActionFlag,
    action: NDArray[np.float32],
    requested: NDArray[np.float32],
    limits: Limit,
    time_ns: int,
    queue_ns: int,
    inference_ns: int,
) -> bytes:
    """The reply: the action applied, and the one requested where a limit acted."""
    payload = action.tobytes()
    if limits:
        payload += requested.tobytes()
    size = action.shape[-1]
    header = Header(
        Kind.ACTION, flags, session.id, seq, time_ns,
        generation=session.generation, first=size, second=size if limits else 0,
        status=Code.OK, limits=limits, queue_ns=min(queue_ns, 0xFFFFFFFF),
        inference_ns=min(inference_ns, 0xFFFFFFFF), adaptation=session.monitor.status,
    )  # fmt: skip
    return header.pack() + payload


def _repeat(reply: bytes) -> bytes:
    """The same answer, marked as repeated."""
    header = unpack(reply)
    header = header._replace(flags=header.flags | ActionFlag.REPEATED)
    return header.pack() + reply[HEADER_SIZE:]
