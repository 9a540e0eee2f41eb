"""What the daemon keeps of each robot: its policy, and a record of all that must survive."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np

from runtime.adaptation import AdaptationMonitor
from runtime.companion import Companion, Probation
from runtime.guard import ActionLimits
from runtime.history import Transition
from runtime.memory import Bytes, Memory
from runtime.messages import Adaptation
from runtime.policy import Policy
from runtime.stepper import Stepper
from runtime.watch import Watch, WatchLimits

GOOD_EVERY = 100
"""Ticks between copies of the last good memory."""
CLAMP_MEMORY = 0.02
"""Weight of one tick in the running rate of clamped actions."""


class SessionFlag(IntFlag):
    """Switches of a session that survive a crash."""

    SENDS_REWARD = 1
    START_FRESH = 2  # the next step begins from the prior
    FROZEN = 4
    STOPPED = 8
    OWES_EPISODE = 16  # an episode began at a tick without a step: the next one tells
    SWAP_UNSAID = 32  # a policy came back between two ticks: the next answer tells
    OWES_GAP = 64  # as OWES_EPISODE, of missing sequence numbers
    UNSEEN = 128  # the carry has not taken in the last observation


class Rules(NamedTuple):
    """What the configuration says of every session."""

    watch: WatchLimits = WatchLimits()
    stop_after: int = 0
    """Fallback actions in a row after which a session stops; 0: never."""
    min_rate: float = 0.0
    """Least rate of observations, as a fraction of the policy's control rate."""


class Adopted(NamedTuple):
    """A policy ready to take over a session between two ticks."""

    stepper: Stepper
    memory: Memory
    """Its record, with the history in its ring and nothing committed."""
    carry: Sequence[Bytes] | None
    """The carry to go on with; None keeps the session's own."""
    position: int
    """In the session's ring: the first transition that `carry` and `memory` have not seen."""
    options: bytes
    fresh: bool = False
    """Start from the prior at the next tick, whatever the carry."""
    blend_ticks: int = 0
    probation_ticks: int = 0
    candidate: bool = False
    """Take the carry of the session's shadow candidate."""


@dataclass
class Counters:
    """What happened in a session, for `status`; in the order of `Head`."""

    steps: int = 0
    repeated: int = 0
    gaps: int = 0
    missed: int = 0
    limited: int = 0
    refused: int = 0
    swaps: int = 0
    stale: int = 0


class Session:
    """One robot's adaptation. Only the loop's thread touches it.

    `commit` and `amend` are the places where its record is written.
    """

    def __init__(self, stepper: Stepper, memory: Memory, rules: Rules, sends_reward: bool = True):
        """A session at the prior; nothing is committed yet.

        Args:
            stepper: of its policy.
            memory: claimed for it.
            rules: of the configuration.
            sends_reward: whether its observations carry rewards.
        """
        self.id, self.owner, self.rules = memory.session, memory.owner, rules
        self.sends_reward = sends_reward
        self.start_fresh = True
        self.frozen = self.stopped = self.owes_episode = False
        self.swap_unsaid = self.owes_gap = self.unseen = False
        self.next_seq = self.seen_s = self.seen_ns = 0
        self.generation = 1
        self.reply = self.applied = b""
        self.previous = ""
        self.counters = Counters()
        self.ready: Adopted | None = None
        self.companion: Companion | None = None
        self.probation: Probation | None = None
        self.blend_left = self.blend_ticks = 0
        self.clamp_rate = 0.0
        self.fallbacks_in_row = 0
        self.way = ""
        self._retiring: Memory | None = None
        self.pending_carry: Sequence[Bytes] | None = list(stepper.prior)
        """Goes over the record's until the next commit."""
        self._use(stepper, memory)
        self.options = stepper.default_options
        self.monitor = AdaptationMonitor(self.policy)

    @classmethod
    def recovered(cls, stepper: Stepper, memory: Memory, rules: Rules) -> "Session":
        """The session that a record holds."""
        session = cls(stepper, memory, rules)
        head, session.options, session.applied, session.reply = memory.committed()
        session.next_seq, session.generation, session.seen_s = (
            head.next_seq, head.generation, head.seen_s,
        )  # fmt: skip
        session.set_flags(head.flags)
        session.monitor.resume(Adaptation(head.adaptation), head.monitor_steps)
        session.counters = Counters(*head[-len(fields(Counters)) :])
        session.previous = memory.previous
        session.pending_carry = None
        if head.probation:
            session.probation = Probation(head.probation, 0.0, session.period_ns)
        return session

    def _use(self, stepper: Stepper, memory: Memory) -> None:
        self.stepper, self.memory = stepper, memory
        self.policy: Policy = stepper.policy
        manifest = self.policy.manifest
        self.limits = ActionLimits.of(manifest)
        self.boundaries = manifest.boundaries
        self.obs_size, self.action_size = manifest.obs_size, manifest.action_size
        self.period_ns = round(1e9 / manifest.control_hz)
        self.watch = Watch(self._watch_limits())

    def _watch_limits(self) -> WatchLimits:
        rate = self.rules.min_rate * self.policy.manifest.control_hz
        return self.rules.watch._replace(min_rate_hz=rate)

    def follow(self, rules: Rules) -> None:
        """Go on under other rules of the configuration; what was seen so far still counts."""
        self.rules = rules
        self.watch.limits = self._watch_limits()

    @property
    def about(self) -> dict[str, Any]:
        """What an event about this session begins with; `seq` is that of the next tick."""
        return {
            "session": self.id,
            "policy": self.policy.label,
            "generation": self.generation,
            "seq": self.next_seq,
        }

    @property
    def carry(self) -> Sequence[Bytes]:
        """The bytes of each carry tensor, as the next step finds them."""
        return self.memory.carry if self.pending_carry is None else self.pending_carry

    def flags(self) -> int:
        """The switches as `SessionFlag`."""
        return (
            self.sends_reward
            | self.start_fresh << 1
            | self.frozen << 2
            | self.stopped << 3
            | self.owes_episode << 4
            | self.swap_unsaid << 5
            | self.owes_gap << 6
            | self.unseen << 7
        )

    def set_flags(self, flags: int) -> None:
        """Set the switches."""
        (
            self.sends_reward, self.start_fresh, self.frozen, self.stopped, self.owes_episode,
            self.swap_unsaid, self.owes_gap, self.unseen,
        ) = (bool(flags & bit) for bit in SessionFlag)  # fmt: skip

    def owe(self, new_task: int, episode: int, gap: int) -> None:
        """Remember boundaries of a tick without a step."""
        self.start_fresh = self.start_fresh or bool(new_task)
        self.owes_episode = self.owes_episode or bool(episode)
        self.owes_gap = self.owes_gap or bool(gap)

    def note_fallback(self) -> None:
        """Another fallback action in a row: too many stop the session until it is re-armed."""
        self.fallbacks_in_row += 1
        if self.rules.stop_after and self.fallbacks_in_row >= self.rules.stop_after:
            self.stopped = True

    def rearm(self) -> None:
        """End a stop."""
        self.stopped, self.fallbacks_in_row = False, 0
        self.amend()

    def _head(self, ring_count: int) -> tuple[int, ...]:
        c = self.counters
        monitor, probation = self.monitor, self.probation
        return (
            self.next_seq, ring_count, self.generation, self.flags(), monitor.status,
            monitor.steps, 0 if probation is None else max(probation.left, 0), self.seen_s,
            c.steps, c.repeated, c.gaps, c.missed, c.limited, c.refused, c.swaps, c.stale,
        )  # fmt: skip

    def commit(
        self,
        seq: int,
        carry: Sequence[Bytes] | None,
        applied: bytes,
        reply: bytes,
        transition: Transition | None,
        kept: bool = True,
    ) -> None:
        """Make one tick's results the session's state, on disk and here.

        Args:
            seq: of the observation.
            carry: to go on with; None leaves it as it is.
            applied: the action sent, float32.
            reply: the answer.
            transition: the step's inputs; None where no step was made.
            kept: whether a step was made of this observation, and its carry is the one to go on
                with.
        """
        self.next_seq, self.applied, self.reply = seq + 1, applied, reply
        memory = self.memory
        self.unseen = not kept
        if transition is not None:
            self.start_fresh = self.owes_episode = self.owes_gap = self.swap_unsaid = False
            self.counters.steps += 1
        carry = self.pending_carry if carry is None else carry
        head = self._head(memory.ring_count + (transition is not None))
        memory.commit(head, self.options, applied, reply, carry, transition)
        self.pending_carry = None
        if self._retiring is not None:
            self._retire()
        if self.counters.steps % GOOD_EVERY == 0 and self.monitor.status == Adaptation.ADAPTED:
            memory.keep_good()

    def amend(self, carry: Sequence[Bytes] | None = None) -> None:
        """Write what was changed between two ticks; with another carry, if given."""
        carry = self.pending_carry if carry is None else carry
        memory = self.memory
        memory.commit(self._head(memory.ring_count), self.options, self.applied, self.reply, carry)
        self.pending_carry = None
        if self._retiring is not None:
            self._retire()

    def adopt(self, ready: Adopted, carry: Sequence[Bytes]) -> Callable[[], None]:
        """Act by another policy from now on.

        Args:
            ready: the new one; its ring is up to date.
            carry: to go on with.

        Returns:
            A function that undoes it, until the next commit.
        """
        before = dict(self.__dict__)
        swaps = self.counters.swaps
        incumbent = Companion(self.stepper, list(map(bytes, self.carry)), self.options, self.memory)
        incumbent.position = ready.memory.ring_count
        self.drop_companion()
        self._retiring, self.previous = self.memory, self.policy.label
        self._use(ready.stepper, ready.memory)
        self.watch = before["watch"]
        self.pending_carry, self.options = list(map(bytes, carry)), ready.options
        self.monitor = self.monitor.handed_over(self.policy)
        self.start_fresh = self.start_fresh or ready.fresh
        self.generation += 1
        self.counters.swaps += 1
        self.companion = incumbent
        self.probation = Probation(ready.probation_ticks, self.clamp_rate, self.period_ns)
        self.blend_left = self.blend_ticks = ready.blend_ticks

        def undo() -> None:
            self.__dict__.update(before)
            self.companion, self.probation = None, None
            self.counters.swaps = swaps
            ready.memory.free()

        return undo

    def roll_back(self) -> None:
        """Let the incumbent take over again, with the memory it would have had."""
        incumbent = self.companion
        assert incumbent is not None
        assert incumbent.memory is not None
        given_up, memory = self.memory, incumbent.memory
        memory.extend(given_up.since(incumbent.position))
        self.companion = self.probation = None
        self.blend_left = 0
        self._retiring, self.previous = given_up, self.policy.label
        memory.write_previous(self.previous)
        watch = self.watch
        self._use(incumbent.stepper, memory)
        self.watch = watch
        self.pending_carry, self.options = incumbent.carry, incumbent.options
        self.monitor = self.monitor.handed_over(self.policy)
        self.generation += 1
        self.counters.swaps += 1

    def _retire(self) -> None:
        """The record before no longer counts, now that the new one does."""
        assert self._retiring is not None
        if self.companion is not None and self.companion.memory is self._retiring:
            self._retiring.silence()  # may be wanted again
        else:
            self._retiring.free()
        self._retiring = None

    def end_probation(self) -> None:
        """The new policy stays."""
        self.probation = None
        self.drop_companion()

    def drop_ready(self) -> None:
        """Take back a swap that no tick has taken yet."""
        if self.ready is not None:
            self.ready.memory.free()
        self.ready = None

    def drop_companion(self) -> None:
        """End a shadow, or let go of the incumbent."""
        if self.companion is not None and self.companion.memory is not None:
            self.companion.memory.free()
        self.companion = None

    def note_clamped(self, clamped: bool) -> None:
        """Keep the running rate of clamped actions."""
        self.clamp_rate += CLAMP_MEMORY * (clamped - self.clamp_rate)

    def replace_memory(
        self, memory: Memory, carry: Sequence[Bytes], options: bytes, fresh: bool
    ) -> None:
        """Go on from another memory of the same policy, in a record of its own.

        It is from another time: the last observation is not in it.

        A swap that waits was prepared from the memory there was, and is taken back.
        """
        self.drop_ready()
        incumbent = self.companion
        if incumbent is not None and incumbent.memory is not None:
            incumbent.memory.extend(self.memory.since(incumbent.position))
            incumbent.position = memory.ring_count
        self._retiring, self.memory = self.memory, memory
        self.options, self.start_fresh, self.unseen = options, fresh, True
        self.amend(carry)

    def reset(self) -> None:
        """Make the next step start from the prior, as at a task boundary."""
        self.start_fresh = True
        self.amend()

    def good_carry(self) -> list[bytes] | None:
        """The last memory that was whole and adapted."""
        return self.memory.good()

    def applied_array(self) -> np.ndarray | None:
        """The last action sent, (A,)."""
        return np.frombuffer(self.applied, np.float32) if self.applied else None

    def leave(self) -> None:
        """The session ends: its record is given back."""
        self.drop_ready()
        self.drop_companion()
        if self._retiring is not None:
            self._retiring.free()
        self.memory.free()
