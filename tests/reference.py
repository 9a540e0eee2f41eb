"""What a session must answer, worked out offline: a second, plain implementation of the tick.

It knows no sockets, files or batches: a session is a value, carries are dicts, the ring is
a tuple, and every step is one `Policy.step` of one row. tests/test_state_machine.py holds a
real daemon against it, bit for bit.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from runtime.messages import ActionFlag, Adaptation, Limit, ObservationFlag
from runtime.policy import Arrays, Policy
from tests.reference_guard import TOO_NEAR_NS, Limits, Trial, Watch, limited
from tests.reference_mind import EPISODE, FROZEN, GAP, TASK, Entry, Mind, Mood, Stepped
from tests.reference_wire import Expected, Heard, Told

GOOD_EVERY = 100
CLAMPED = Limit.BOUNDS | Limit.RATE
UNTOUCHED, UNSEEN = Mood(), Watch()
UNUSABLE = Limit.INVALID | Limit.STUCK | Limit.STOPPED


class Beside(NamedTuple):
    """A second policy that sees all that the session sees."""

    mind: Mind
    incumbent: bool
    """It is the policy before, and may come back; else it is a candidate."""
    action: np.ndarray | None = None  # (A,), within bounds
    broken: bool = False


class Waiting(NamedTuple):
    """A swap that the next tick takes."""

    mind: Mind
    way: str
    """keep, replay, reset or promote."""
    blend: int
    probation: int


class Taken(NamedTuple):
    """A snapshot."""

    mind: Mind
    mood: Mood


@dataclass
class Reference:
    """One session."""

    id: int
    limits: Limits
    mind: Mind
    mood: Mood = UNTOUCHED
    generation: int = 1
    next_seq: int = 0
    applied: np.ndarray | None = None
    start_fresh: bool = True
    owed: int = 0
    """Boundaries of ticks without a step."""
    frozen: bool = False
    stopped: bool = False
    unsaid: bool = False
    """A policy came back between two ticks, and no answer has told yet."""
    waiting: Waiting | None = None
    beside: Beside | None = None
    trial: Trial | None = None
    blend_left: int = 0
    blend: int = 0
    clamp_rate: float = 0.0
    fallbacks: int = 0
    watch: Watch = UNSEEN
    steps: int = 0
    gaps: int = 0
    missed: int = 0
    limited: int = 0
    swaps: int = 0
    stale: int = 0
    saved_trial: int = 0
    """Ticks of probation that a crash would leave."""
    failed: list[str] = field(default_factory=list)
    """Policies that were sent back, until somebody takes note."""

    def tick(self, told: Told, heard: Heard) -> Expected:
        """The answer to the next observation."""
        failing = self._look(told, heard)
        before, flags = copy.copy(self), 0
        took = self.waiting is not None and self._take_over()
        if took:
            flags = int(ActionFlag.SWAPPED)
        answer = self._try(told, failing, flags, spare=self._has_incumbent())
        if answer is None:
            self.failed.append(self.mind.label)
            if took:  # a swap that fails changes nothing
                vars(self).update(vars(before))
                self.waiting = self.beside = self.trial = None
                flags = 0
            else:
                self._roll_back()
                flags = int(ActionFlag.SWAPPED)
            answer = self._try(told, failing, flags, spare=False)
        assert answer is not None
        return answer

    def _look(self, told: Told, heard: Heard) -> int:
        obs = told.obs.tobytes()
        self.watch = self.watch.after(told.sent_ns, heard.received_ns, obs)
        found = Limit.INVALID if told.flags & ObservationFlag.INVALID else Limit(0)
        over = self.watch.age_ns(heard.received_ns) - self.limits.max_age_ns
        if heard.stale if abs(over) < TOO_NEAR_NS else over > 0:
            found |= Limit.STALE
        if self.watch.same >= self.limits.stuck_ticks:
            found |= Limit.STUCK
        return int(found)

    def _has_incumbent(self) -> bool:
        beside = self.beside
        runs = beside is not None and beside.incumbent and not beside.broken
        return self.trial is not None and runs

    def _try(self, told: Told, limits: int, flags: int, spare: bool) -> Expected | None:
        """Answer; None if the output is not finite and another policy is there to answer."""
        boundary = self.owed
        if told.seq > self.next_seq:
            flags |= ActionFlag.GAP
            boundary |= GAP
        boundary |= EPISODE if told.flags & ObservationFlag.EPISODE_START else 0
        boundary |= TASK if told.flags & ObservationFlag.NEW_TASK else 0
        limits |= Limit.STOPPED if self.stopped else 0
        if limits & UNUSABLE:
            self.owed = boundary
            return self._answer(told, self._fallback(), limits, flags, None)
        flags |= ActionFlag.SWAPPED if self.unsaid else 0
        boundary |= TASK if self.start_fresh else 0
        if self.frozen:
            boundary |= FROZEN
            flags |= ActionFlag.FROZEN
        entry = Entry(told.seq, boundary, self._inputs(told, boundary))
        stepped = self.mind.step(self.id, entry)
        if spare and not stepped.finite:
            return None
        flags |= ActionFlag.FRESH if stepped.fresh else 0
        self._live_through(entry, stepped)
        requested = stepped.action if stepped.finite else np.full_like(stepped.action, np.nan)
        return self._answer(told, requested, limits, flags, stepped)

    def _inputs(self, told: Told, boundary: int) -> Arrays:
        action = self.applied if told.applied is None else told.applied
        nothing = np.zeros(len(self.mind.policy.manifest.action), np.float32)
        new = boundary & TASK or self.next_seq == 0
        done = 1.0 if boundary & EPISODE and not new else 0.0
        return {
            "obs": told.obs[None],
            "prev_action": (nothing if new or action is None else action)[None],
            "prev_reward": np.full((1, 1), 0.0 if new else told.reward, np.float32),
            "prev_done": np.full((1, 1), done, np.float32),
        }

    def _live_through(self, entry: Entry, stepped: Stepped) -> None:
        """What a step changes in the memories."""
        ring = self.limits.ring_size
        mood = Mood() if entry.boundary & TASK else self.mood
        self.mood = mood.after(self.mind.policy, stepped)
        self.mind = self.mind.after(stepped, self.frozen).seeing(entry, ring)
        self.start_fresh, self.owed, self.unsaid = False, 0, False
        self.steps += 1
        beside = self.beside
        if beside is None:
            return
        mind = beside.mind.seeing(entry, ring)
        if beside.broken:
            self.beside = beside._replace(mind=mind)
            return
        along = beside.mind.step(self.id, entry)
        if not along.finite:
            self.beside = beside._replace(mind=mind, broken=True)
            return
        action, _ = limited(along.action, None, mind.policy.manifest)
        self.beside = beside._replace(mind=mind.after(along, self.frozen), action=action)

    def _answer(
        self, told: Told, requested: np.ndarray, limits: int, flags: int, stepped: Stepped | None
    ) -> Expected:
        """Guard the action, and write down what the tick did."""
        finite = stepped is None or stepped.finite
        unusable = bool(limits)
        before = self.applied if told.applied is None else told.applied
        before = None if told.flags & ObservationFlag.EPISODE_START else before
        if limits or not finite:
            action, acted = limited(self._fallback(), before, self.mind.policy.manifest)
            limits |= acted | (0 if finite else Limit.NOT_FINITE)
        else:
            action, limits = self._towards(requested, before)
        self._count(told, limits, unusable or not finite, unusable)
        self.next_seq, self.applied = told.seq + 1, action
        self.saved_trial = max(self.trial.left, 0) if self.trial else 0
        if self.steps % GOOD_EVERY == 0 and self.mood.status == Adaptation.ADAPTED:
            self.mind = replace(self.mind, good=self.mind.carry)
        wanted = requested.tobytes() if limits else action.tobytes()
        return Expected(
            int(flags), int(limits), self.generation, self.mood.status, action.tobytes(), wanted
        )

    def _count(self, told: Told, limits: int, fell_back: bool, unusable: bool) -> None:
        missed = told.seq - self.next_seq
        self.gaps, self.missed = self.gaps + bool(missed), self.missed + missed
        self.limited += bool(limits)
        self.stale += unusable
        self.fallbacks = self.fallbacks + 1 if fell_back else 0
        self.stopped = self.stopped or self.fallbacks >= self.limits.stop_after

    def _fallback(self) -> np.ndarray:
        return np.array(self.mind.policy.manifest.fallback_action, np.float32)

    def _towards(self, requested: np.ndarray, before: np.ndarray | None) -> tuple[np.ndarray, int]:
        """The guarded action, on its way from the policy before to the new one."""
        manifest = self.mind.policy.manifest
        if not self.blend_left:
            return limited(requested, before, manifest)
        weight = np.float32(1 - self.blend_left / (self.blend + 1))
        self.blend_left -= 1
        if self.beside is None or self.beside.action is None or self.beside.broken:
            return limited(requested, before, manifest)
        new, acted = limited(requested, None, manifest)
        old = self.beside.action
        final, more = limited(old + weight * (new - old), before, manifest)
        return final, acted | more | Limit.BLEND

    def settle(self, expected: Expected, heard: Heard) -> bool:
        """Judge the policy by a tick that was answered; whether it was sent back."""
        clamped, finite = (bool(expected.limits & x) for x in (CLAMPED, Limit.NOT_FINITE))
        held = expected.limits & UNUSABLE
        if held:
            return False
        if self.trial is None:
            self.clamp_rate += 0.02 * (clamped - self.clamp_rate)
            return False
        self.trial = self.trial.after(clamped)
        hz = self.mind.policy.manifest.control_hz
        if self.trial.fails(not finite, heard.inference_ns, hz) and self._has_incumbent():
            self.failed.append(self.mind.label)
            self.return_incumbent()
            return True
        if self.trial.left <= 0:
            self.trial = self.beside = None
        return False

    def return_incumbent(self) -> None:
        """The policy before comes back between two ticks."""
        self._roll_back()
        self.unsaid = True
        self.amend()

    def amend(self) -> None:
        """What is written between two ticks."""
        self.saved_trial = max(self.trial.left, 0) if self.trial else 0

    def _take_over(self) -> bool:
        """The waiting policy becomes the session's; whether it could."""
        waiting, old, beside = self.waiting, self.mind, self.beside
        assert waiting is not None
        self.waiting, mind = None, waiting.mind
        if waiting.way == "promote":
            if not self.has_candidate(mind.policy):
                return False
            assert beside is not None
            mind = replace(mind, carry=beside.mind.carry)
        elif waiting.way == "keep":
            mind = replace(mind, carry=old.carry)
        self.mind = replace(mind, previous=old.label)
        self.beside = Beside(old, incumbent=True)
        self.start_fresh = self.start_fresh or waiting.way == "reset"
        self.generation, self.swaps = self.generation + 1, self.swaps + 1
        self.trial = Trial(waiting.probation, self.clamp_rate)
        self.blend = self.blend_left = waiting.blend
        return True

    def has_candidate(self, policy: Policy | None = None) -> bool:
        """Whether a sound candidate is in the shadow; this one, if it is said which."""
        beside = self.beside
        if beside is None or beside.incumbent or beside.broken:
            return False
        return policy is None or policy is beside.mind.policy

    def _roll_back(self) -> None:
        """The policy before becomes the session's again, with the memory it would have had."""
        assert self.beside is not None
        self.mind = replace(self.beside.mind, previous=self.mind.label)
        self.beside = self.trial = None
        self.blend_left = 0
        self.generation, self.swaps = self.generation + 1, self.swaps + 1
