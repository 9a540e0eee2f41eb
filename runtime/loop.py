"""The tick: from observations' bytes to answers', without sockets or a clock.

The order, which CONTRIBUTING.md repeats:

    1 decode and check
    2 duplicate, gap, boundary, staleness
    3 take a ready swap
    4 step (all sessions of one policy that are waiting together in one run)
    5 guard
    6 commit
    7 reply and tap (the reply is returned; the transport sends both)

Nothing of a session changes before 5 is done, except that a ready swap is taken in 3,
and undone if its first step fails.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from runtime.companion import carry_before
from runtime.frames import action_frame
from runtime.guard import Bounded, limited
from runtime.history import Boundary, Transition
from runtime.memory import Bytes
from runtime.messages import (
    ActionFlag,
    Code,
    FrameError,
    Limit,
    ObservationFlag,
    unpack,
)
from runtime.noise import step_noise
from runtime.pending import (
    Pending,
    TickResult,
    flat,
    follow,
    reference,
    row_of,
)
from runtime.reception import REQUEST, Reception
from runtime.registry import Registry
from runtime.sessions import Session
from runtime.stepper import MAX_BATCH, Stepper
from runtime.trial import after_step, blended, fails_at_once, take_swap
from runtime.watch import UNUSABLE

log = structlog.get_logger()

# Plain integers: an operation on an enum's member takes a microsecond.
_GAP, _SWAPPED, _FRESH = (int(f) for f in (ActionFlag.GAP, ActionFlag.SWAPPED, ActionFlag.FRESH))
_SUPERSEDED, _FROZEN_FLAG = int(ActionFlag.SUPERSEDED), int(ActionFlag.FROZEN)
_EPISODE_START, _NEW_TASK = int(ObservationFlag.EPISODE_START), int(ObservationFlag.NEW_TASK)
_TASK, _EPISODE, _GAP_BEFORE = (int(b) for b in (Boundary.TASK, Boundary.EPISODE, Boundary.GAP))
_FROZEN, _UNSEEN = int(Boundary.FROZEN), int(Boundary.UNSEEN)
_NOT_FINITE, _STOPPED = int(Limit.NOT_FINITE), int(Limit.STOPPED)
FALLBACK = UNUSABLE | _STOPPED | _NOT_FINITE | int(Limit.STALE | Limit.SLOW)
"""Limits at which the fallback action is sent."""


@dataclass
class Loop:
    """The tick over all sessions. One thread owns it."""

    clock: Callable[[], int]
    """Monotonic time [ns]."""
    registry: Registry = field(default_factory=Registry)
    on_episode: Callable[[Session], None] = lambda session: None
    """Called after the first tick of an episode of a policy that learns between episodes."""
    on_failed_swap: Callable[[Session, str, str], None] = lambda session, policy, reason: None
    """Called when a policy was rolled back, with its label and why."""
    allow_variant_batches: bool = False
    """Batch policies, too, whose rows depend on the batch."""
    tapped: bool = False
    """Whether anybody looks at the tap."""
    reception: Reception = field(init=False)

    def __post_init__(self) -> None:
        self.reception = Reception(self.registry)

    def tick(self, frame: bytes, received_ns: int, way: str = REQUEST) -> TickResult:
        """Answer one frame; see `tick_all`."""
        return self.tick_all([frame], received_ns, way)[0]

    def tick_all(
        self, frames: Sequence[bytes], received_ns: int, way: str = REQUEST
    ) -> list[TickResult]:
        """Answer frames that came together. Never raises for what a sender did.

        Args:
            frames: as they came from the wire, in their order.
            received_ns: when, on `clock`.
            way: how: `REQUEST` or `STREAM`.
        """
        results: list[TickResult | None] = [None] * len(frames)
        waiting: dict[int, Pending] = {}
        for index, frame in enumerate(frames):
            try:
                header = unpack(frame)
            except FrameError as error:
                results[index] = self.reception.refuse(error, error.session, error.seq)
                continue
            earlier = waiting.get(header.session)
            if earlier is not None:  # its state is needed for this one
                if header.seq > earlier.header.seq:
                    earlier.flags |= _SUPERSEDED
                self._run(waiting, results)
            found = self.reception.receive(index, frame, header, received_ns, way)
            if isinstance(found, TickResult):
                results[index] = found
                continue
            waiting[header.session] = found
            if len(waiting) == MAX_BATCH:
                self._run(waiting, results)
        self._run(waiting, results)
        return results  # type: ignore[return-value]  # each has one by now

    def _run(self, waiting: dict[int, Pending], results: list[TickResult | None]) -> None:
        """Step all that are waiting, those of one policy together."""
        if len(waiting) == 1:
            (pending,) = waiting.values()
            results[pending.index] = self._safely(self._alone, pending)
            waiting.clear()
            return
        together: dict[Stepper, list[Pending]] = {}
        for pending in waiting.values():
            session = pending.session
            batched = session.stepper.policy.batch_invariant or self.allow_variant_batches
            special = session.companion is not None or session.ready is not None
            if batched and not special and self._prepare(pending):
                together.setdefault(session.stepper, []).append(pending)
            else:
                results[pending.index] = self._safely(self._alone, pending)
        waiting.clear()
        for stepper, group in together.items():
            for at in range(0, len(group), stepper.most):
                self._step_group(stepper, group[at : at + stepper.most], results)

    def _step_group(
        self, stepper: Stepper, group: list[Pending], results: list[TickResult | None]
    ) -> None:
        try:
            self._step(stepper, group)
        except Exception:  # one of them is to blame: each for itself
            for pending in group:
                results[pending.index] = self._safely(self._guarded, pending)
            return
        inference = (self.clock() - group[0].started_ns) // len(group)
        whole = stepper.whole()
        bounded = Bounded(stepper.action, group[0].session.limits) if whole else None
        for i, pending in enumerate(group):
            healthy = whole or stepper.row_whole(i)
            results[pending.index] = self._safely(
                self._finish, pending, stepper, i, healthy, inference, bounded
            )

    def _safely(self, tick: Callable[..., TickResult], pending: Pending, *rest: Any) -> TickResult:
        """A tick; our own fault in it must not end the others'."""
        try:
            return tick(pending, *rest)
        except Exception:
            session, seq = pending.session, pending.header.seq
            log.exception("tick_failure", **session.about)
            error = FrameError(Code.INTERNAL, "the tick failed; the daemon's log says why")
            return self.reception.refuse(error, session.id, seq)

    def _alone(self, pending: Pending) -> TickResult:
        """A tick of a session that has something of its own to do."""
        session = pending.session
        if session.ready is not None:  # 3
            pending.undo = take_swap(session)
            pending.flags |= _SWAPPED if pending.undo else 0
        if not self._prepare(pending):
            return self._hold(pending)
        return self._guarded(pending)

    def _guarded(self, pending: Pending) -> TickResult:
        """One session's step; one that fails is answered by an error or by the policy before."""
        session, stepper = pending.session, pending.session.stepper
        try:
            self._step(stepper, [pending])
            healthy = stepper.whole()
        except Exception:
            log.exception("tick_failure", **session.about)
            healthy = False
            if pending.undo is None and not fails_at_once(session):
                error = FrameError(Code.INTERNAL, "the step failed; the session is unchanged")
                return self.reception.refuse(error, session.id, pending.header.seq)
        inference = self.clock() - pending.started_ns
        if not healthy and (pending.undo is not None or fails_at_once(session)):
            return self._again(pending, "its output is not finite or its step failed")
        return self._finish(pending, stepper, 0, healthy, inference)

    def _again(self, pending: Pending, reason: str) -> TickResult:
        """The tick once more, by the policy before."""
        session, failed = pending.session, pending.session.policy.label
        fresh = pending.again()
        fresh.flags = pending.flags & _SUPERSEDED
        if pending.undo is not None:  # a swap that fails changes nothing
            pending.undo()
        else:
            session.roll_back()
            fresh.flags |= _SWAPPED
        self.on_failed_swap(session, failed, reason)
        return self._guarded(fresh) if self._prepare(fresh) else self._hold(fresh)

    def _prepare(self, pending: Pending) -> bool:
        """The inputs of a step and the carry before it; False where no step is to be made."""
        session, header, (obs, applied) = pending.session, pending.header, pending.told
        pending.boundary = 0
        missed = header.seq - session.next_seq
        if missed:
            pending.flags |= _GAP
            pending.boundary = _GAP_BEFORE
        if session.stopped:
            pending.limits |= _STOPPED
        if pending.limits & (UNUSABLE | _STOPPED):
            flags = header.flags
            session.owe(flags & _NEW_TASK, flags & _EPISODE_START, gap=missed)
            return False
        if session.swap_unsaid:
            pending.flags |= _SWAPPED
        if session.owes_gap:
            pending.boundary |= _GAP_BEFORE
        if session.unseen:
            pending.boundary |= _UNSEEN
        if session.owes_episode or header.flags & _EPISODE_START:
            pending.boundary |= _EPISODE
        if session.start_fresh or header.flags & _NEW_TASK:
            pending.boundary |= _TASK
        if session.frozen:
            pending.boundary |= _FROZEN
            pending.flags |= _FROZEN_FLAG
        pending.row = row_of(session, pending.boundary, obs, applied, header.reward)
        stepper = session.stepper
        prior, rules = stepper.prior, session.boundaries
        pending.carry = carry_before(
            rules, pending.boundary, session.carry, prior, stepper.transient
        )
        if pending.carry is prior:
            pending.flags |= _FRESH
        return True

    def _step(self, stepper: Stepper, group: Sequence[Pending]) -> None:  # 4
        stepper.choose(len(group))
        for i, p in enumerate(group):
            noise = None
            if stepper.noise_size:
                noise = step_noise(p.session.id, p.header.seq, stepper.noise_size)
            stepper.load(i, p.row, p.carry, p.session.options, noise)
        now = self.clock()
        for p in group:
            p.started_ns = now
        stepper.run()

    def _finish(
        self,
        pending: Pending,
        stepper: Stepper,
        i: int,
        healthy: bool,
        inference_ns: int,
        bounded: Bounded | None = None,
    ) -> TickResult:
        """Guard, commit and answer one stepped session."""
        session, seq, beside_ns = pending.session, pending.header.seq, 0
        requested = stepper.action[i]
        carry = stepper.carry_of(i)
        belief = flat(stepper, i) if self.tapped else b""
        follow(pending, stepper, i, healthy)
        if session.companion is not None:  # it may use the same buffers
            requested, carry = requested.copy(), [bytes(value) for value in carry]
            before = self.clock()
            session.companion.step(session.id, seq, pending.boundary, pending.row)
            beside_ns = self.clock() - before
        if not healthy:
            requested = np.full_like(requested, np.nan)
        kept = healthy and not session.frozen
        if not kept:
            carry = pending.carry
        if bounded is not None and not pending.limits and session.limits.max_step is None:
            action, limits = bounded.row(i)  # 5
        else:
            action, limits = self._act(pending, requested, healthy)
        if session.companion is not None and healthy:
            within = limited(requested, None, session.limits).action
            session.companion.compare(within, beside_ns)
        transition = Transition(seq, pending.boundary, pending.row)
        result = self._commit(
            pending, action, requested, limits, inference_ns, carry, transition, kept
        )
        result = result._replace(belief=belief) if belief else result
        reason = after_step(session, limits, healthy, inference_ns)
        if reason is not None:
            self.on_failed_swap(session, reason.policy, reason.sentence)
        if pending.boundary & _EPISODE and session.policy.learner is not None:
            self.on_episode(session)
        return result

    def _act(
        self, pending: Pending, requested: NDArray[np.float32], healthy: bool
    ) -> tuple[bytes, int]:
        """The action that may leave, and the limits that acted."""
        session, limits = pending.session, pending.limits
        before = reference(pending)
        if limits or not healthy:
            fallback = limited(session.limits.fallback, before, session.limits)
            limits |= fallback.limits if healthy else fallback.limits | _NOT_FINITE
            return fallback.action.tobytes(), limits
        if session.blend_left:
            return blended(session, requested, before)
        guarded = limited(requested, before, session.limits)
        return guarded.action.tobytes(), guarded.limits

    def _hold(self, pending: Pending) -> TickResult:
        """A tick without a step: the fallback action, the memory as it was."""
        session = pending.session
        pending.started_ns = self.clock()
        requested = session.limits.fallback
        action, limits = self._act(pending, requested, True)
        return self._commit(pending, action, requested, limits, 0, None, None, kept=False)

    def _commit(
        self,
        pending: Pending,
        action: bytes,
        requested: NDArray[np.float32],
        limits: int,
        inference_ns: int,
        carry: Sequence[Bytes] | None,
        transition: Transition | None,
        kept: bool,
    ) -> TickResult:
        """Write what the tick did, and answer."""
        session, seq = pending.session, pending.header.seq
        counters = session.counters
        missed = seq - session.next_seq
        if missed:
            counters.gaps += 1
            counters.missed += missed
        counters.limited += bool(limits)
        counters.stale += bool(pending.limits)
        if limits & FALLBACK:
            session.note_fallback()
        else:
            session.fallbacks_in_row = 0
        received = pending.received_ns
        reply = action_frame(
            session, seq, pending.flags, action, requested, limits, received,
            pending.started_ns - received, inference_ns,
        )  # fmt: skip
        session.seen_ns, session.seen_s = received, self.registry.wall_s
        session.way = pending.way
        session.commit(seq, carry, action, reply, transition, kept)  # 6
        return TickResult(reply, session.id, True, b"")  # 7
