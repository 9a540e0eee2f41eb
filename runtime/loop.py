"""The tick: from an observation's bytes to an answer's, without sockets or a clock.

The order, which CONTRIBUTING.md repeats:

    1 decode and check
    2 duplicate, gap, boundary
    3 take a ready swap
    4 step
    5 guard
    6 commit
    7 reply and tap (the reply is returned; the transport sends both)

Nothing of a session changes before 5 is done, except that a ready swap is taken in 3,
and undone if its first step fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from runtime.frames import Observation, action_frame, check_observation, repeated
from runtime.guard import all_finite, guard
from runtime.messages import (
    ActionFlag,
    Code,
    FrameError,
    Header,
    Kind,
    ObservationFlag,
    error_frame,
    unpack,
)
from runtime.noise import step_noise
from runtime.policy import Arrays, Policy, Step
from runtime.sessions import Adopted, Boundary, History, Session, Transition

log = structlog.get_logger()

# Plain integers: an operation on an enum's member takes a microsecond.
_GAP, _SWAPPED = int(ActionFlag.GAP), int(ActionFlag.SWAPPED)
_EPISODE_START, _NEW_TASK = int(ObservationFlag.EPISODE_START), int(ObservationFlag.NEW_TASK)
_TASK, _EPISODE, _GAP_BEFORE = int(Boundary.TASK), int(Boundary.EPISODE), int(Boundary.GAP)
_OBSERVATION = int(Kind.OBSERVATION)

MAX_GAP = 1_000_000
"""Most sequence numbers that a sender may skip; more is a fault of its counter."""
CATCH_UP_STEPS = 8
"""Most transitions that a tick steps through a new policy before its own."""


class TickResult(NamedTuple):
    """A reply, and the belief behind it for the tap; None where no step was made."""

    reply: bytes
    session: int
    belief: Arrays | None


@dataclass
class Loop:
    """All sessions and the tick over them. One thread owns it."""

    clock: Callable[[], int]
    """Monotonic time [ns]."""
    sessions: dict[int, Session] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    """Frames that were answered by an error, by code."""

    @np.errstate(invalid="ignore")  # numbers that are not finite are looked for, not stumbled on
    def tick(self, frame: bytes, received_ns: int) -> TickResult:
        """Answer one frame. Never raises for what a sender did.

        Args:
            frame: as it came from the wire.
            received_ns: when, on `clock`.
        """
        try:
            header = unpack(frame)
        except FrameError as error:
            return self._refuse(error, error.session, error.seq)
        try:
            session = self._session(header)
            observation = check_observation(frame, header, session)  # 1
            if header.seq == session.next_seq - 1 and session.reply:  # 2
                session.counters.repeated += 1
                return TickResult(repeated(session.reply), session.id, None)
            if header.seq < session.next_seq:
                raise FrameError(
                    Code.OLD_SEQ, f"seq {header.seq} is over: the next one is {session.next_seq}"
                )
            if header.seq - session.next_seq > MAX_GAP:
                raise FrameError(
                    Code.SEQ_TOO_FAR,
                    f"seq {header.seq} skips more than {MAX_GAP}: the next is {session.next_seq}",
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
        if header.kind != _OBSERVATION:
            raise FrameError(Code.WRONG_KIND, f"kind {header.kind} is not an observation (1)")
        try:
            return self.sessions[header.session]
        except KeyError:
            raise FrameError(
                Code.UNKNOWN_SESSION, f"there is no session {header.session}: open one first"
            ) from None

    def _step(self, session: Session, observation: Observation, received_ns: int) -> TickResult:
        header = observation.header
        flags, undo = 0, None
        missed = header.seq - session.next_seq
        if missed:
            flags |= _GAP
        if session.ready is not None:  # 3
            undo = _take_or_drop(session)
            flags |= _SWAPPED if undo else 0
        transition, carry = _next_step(session, observation, bool(missed))
        started = self.clock()
        step = _try_step(session, transition, carry, undo is not None)  # 4
        if step is None:  # a swap that fails changes nothing: the policy before answers this tick
            assert undo is not None
            undo()
            return self._step(session, observation, received_ns)
        inference_ns = self.clock() - started
        healthy = is_finite(step)
        requested = step.action if healthy else np.full_like(step.action, np.nan)
        action, limits = guard(requested, _reference(session, observation), session.limits)  # 5
        _follow(session, transition, step, healthy)
        reply = action_frame(
            session, header.seq, flags, action, requested, limits,
            received_ns, started - received_ns, inference_ns,
        )  # fmt: skip
        session.commit(transition, step.carry if healthy else carry, action, reply)  # 6
        session.counters.gaps += bool(missed)
        session.counters.missed += missed
        session.counters.limited += bool(limits)
        return TickResult(reply, session.id, step.belief)  # 7

    def _refuse(self, error: FrameError, session: int, seq: int) -> TickResult:
        self.refused[error.code.name] = self.refused.get(error.code.name, 0) + 1
        return TickResult(error_frame(error.code, str(error), session, seq), session, None)


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
    return policy.step(inputs, carry)


def replay(policy: Policy, session: int, history: History, carry: Arrays) -> Arrays:
    """The carry that a policy has after transitions, by the rules of the tick."""
    for transition in history.transitions():
        carry = _carry_before(policy, transition.boundary, carry)
        step = run_step(policy, session, transition, carry)
        if is_finite(step):
            carry = step.carry
    return carry


def is_finite(step: Step) -> bool:
    """Whether a step's action may be considered and its carry remembered."""
    return all_finite(step.action) and all(map(all_finite, step.carry.values()))


def take_swap(session: Session) -> Callable[[], None]:
    """Let the policy that is ready take over, its carry brought up to the last tick.

    Returns:
        A function that undoes it.
    """
    ready = session.ready
    assert ready is not None
    session.ready = None
    if ready.carry is None:
        return session.adopt(ready.policy, session.carry, ready.fresh)
    behind = session.ring.since(ready.next_seq)
    return session.adopt(
        ready.policy, replay(ready.policy, session.id, behind, ready.carry), ready.fresh
    )


def is_behind(session: Session, adopted: Adopted) -> bool:
    """Whether a carry lacks more transitions than a tick would step through on the way."""
    if adopted.carry is None or adopted.fresh:
        return False
    missing = len(session.ring.since(adopted.next_seq))
    return missing > CATCH_UP_STEPS or session.ring.lost(adopted.next_seq)


def _take_or_drop(session: Session) -> Callable[[], None] | None:
    """`take_swap`, or nothing at all where that fails."""
    try:
        return take_swap(session)
    except Exception:
        log.exception("swap_failed", session=session.id)
        return None


def _try_step(
    session: Session, transition: Transition, carry: Arrays, first_of_swap: bool
) -> Step | None:
    """A step; None where it is the first one of a swap and fails or is not finite."""
    if not first_of_swap:
        return run_step(session.policy, session.id, transition, carry)
    try:
        step = run_step(session.policy, session.id, transition, carry)
    except Exception:
        log.exception("swap_failed", session=session.id, seq=transition.seq)
        return None
    if not is_finite(step):
        log.warning("swap_failed", session=session.id, reason="the first output is not finite")
        return None
    return step


def _reference(session: Session, observation: Observation) -> NDArray[np.float32] | None:
    """The action that the rate limit counts from, (1, A); none as an episode starts."""
    if observation.header.flags & _EPISODE_START:
        return None
    return session.applied if observation.applied is None else observation.applied


def _follow(session: Session, transition: Transition, step: Step, healthy: bool) -> None:
    """Let the adaptation status follow a step."""
    if transition.boundary & _TASK:
        session.monitor.forget()
    if healthy:
        session.monitor.follow(step.belief)
    else:
        session.monitor.invalidate()
        log.warning("policy_output_not_finite", session=session.id, seq=transition.seq)


def _next_step(session: Session, observation: Observation, gap: bool) -> tuple[Transition, Arrays]:
    """The inputs of this step and the carry before it, as the boundaries demand."""
    header, action_size = observation.header, session.policy.manifest.action_size
    episode_start = bool(header.flags & _EPISODE_START)
    new_task = session.start_fresh or bool(header.flags & _NEW_TASK)
    boundary = _TASK * new_task | _EPISODE * episode_start | _GAP_BEFORE * gap
    if new_task or session.next_seq == 0:
        nothing = np.zeros((1, 1), np.float32)
        before = (np.zeros((1, action_size), np.float32), nothing, nothing)
    else:
        applied = observation.applied if observation.applied is not None else session.applied
        if applied is None:
            applied = np.zeros((1, action_size), np.float32)
        reward = np.array([[header.reward]], np.float32)
        before = (applied, reward, np.array([[episode_start]], np.float32))
    transition = Transition(header.seq, boundary, observation.obs, *before)
    return transition, _carry_before(session.policy, boundary, session.carry)


def _carry_before(policy: Policy, boundary: int, carry: Arrays) -> Arrays:
    """The carry that a step begins with: the one before, or the prior if the policy says so."""
    rules = policy.manifest.boundaries
    fresh = boundary & _TASK
    fresh = fresh or (boundary & _EPISODE and rules.episode == "prior")
    fresh = fresh or (boundary & _GAP_BEFORE and rules.gap == "prior")
    return policy.initial_carry() if fresh else carry
