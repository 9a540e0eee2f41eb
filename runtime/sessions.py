"""What the daemon keeps of each robot: policy, carry, last answer, recent transitions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.adaptation import AdaptationMonitor
from runtime.guard import ActionLimits
from runtime.policy import Arrays, Policy


class Boundary(IntFlag):
    """What lies before a step; what that does to the carry, each policy declares."""

    NONE = 0
    TASK = 1
    EPISODE = 2
    GAP = 4


class Transition(NamedTuple):
    """The inputs of one step, batch of one each, and what lies before it."""

    seq: int
    boundary: int
    """Of `Boundary`."""
    obs: NDArray[np.float32]  # (1, O)
    prev_action: NDArray[np.float32]  # (1, A)
    prev_reward: NDArray[np.float32]  # (1, 1)
    prev_done: NDArray[np.float32]  # (1, 1)


@dataclass(frozen=True)
class History:
    """A copy of transitions, oldest first; quick to make, unpacked by whoever needs them."""

    seqs: NDArray[np.uint64]  # (n,)
    boundaries: NDArray[np.uint8]  # (n,)
    rows: NDArray[np.float32]  # (n, O + A + 2)
    obs_size: int

    def __len__(self) -> int:
        return len(self.seqs)

    def transitions(self) -> Iterator[Transition]:
        """Each of them."""
        o, end = self.obs_size, self.rows.shape[1]
        for i, seq in enumerate(self.seqs):
            row = self.rows[i : i + 1]
            parts = (row[:, :o], row[:, o : end - 2], row[:, end - 2 : end - 1], row[:, end - 1 :])
            yield Transition(int(seq), int(self.boundaries[i]), *parts)


class TransitionRing:
    """The last `capacity` transitions, oldest overwritten first."""

    def __init__(self, capacity: int, obs_size: int, action_size: int):
        self._rows = np.zeros((capacity, obs_size + action_size + 2), np.float32)
        self._seqs = np.zeros(capacity, np.uint64)
        self._boundaries = np.zeros(capacity, np.uint8)
        self._obs, self._action = obs_size, action_size
        self._count = 0

    def push(self, transition: Transition) -> None:
        """Keep a transition."""
        i = self._count % len(self._rows)
        row, o, a = self._rows[i], self._obs, self._action
        row[:o] = transition.obs[0]
        row[o : o + a] = transition.prev_action[0]
        row[o + a] = transition.prev_reward[0, 0]
        row[o + a + 1] = transition.prev_done[0, 0]
        self._seqs[i], self._boundaries[i] = transition.seq, transition.boundary
        self._count += 1

    def since(self, seq: int) -> History:
        """A copy of the transitions from `seq` on.

        Those before the last task boundary are left out: they no longer matter.
        """
        size = len(self._rows)
        kept = min(self._count, size)
        order = np.arange(self._count - kept, self._count) % size
        order = order[self._seqs[order] >= np.uint64(seq)]
        starts = np.flatnonzero(self._boundaries[order] & np.uint8(Boundary.TASK))
        order = order[starts[-1] if len(starts) else 0 :]
        return History(self._seqs[order], self._boundaries[order], self._rows[order], self._obs)

    def lost(self, seq: int) -> bool:
        """Whether a transition from `seq` on has been overwritten already."""
        size = len(self._rows)
        return self._count > size and bool(self._seqs[self._count % size] > np.uint64(seq))


class Adopted(NamedTuple):
    """A policy ready to take over a session between two ticks."""

    policy: Policy
    carry: Arrays | None
    """The carry to go on with; None keeps the session's own."""
    next_seq: int
    """The first transition that `carry` has not seen."""
    fresh: bool = False
    """Start from the prior at the next tick, whatever the carry."""


@dataclass
class Counters:
    """What happened in a session, for `status`."""

    steps: int = 0
    repeated: int = 0
    gaps: int = 0
    missed: int = 0
    limited: int = 0
    refused: int = 0
    swaps: int = 0


@dataclass
class Session:
    """One robot's adaptation. Only the loop's thread touches it.

    `commit` is the one place where a step's results are written.
    """

    id: int
    policy: Policy
    ring_size: int
    sends_reward: bool = True
    carry: Arrays = field(init=False)
    next_seq: int = 0
    reply: bytes = b""
    applied: NDArray[np.float32] | None = None  # (1, A), the last action sent
    generation: int = 1
    previous: Policy | None = None
    start_fresh: bool = False
    """Whether the next step is to start from the prior."""
    ready: Adopted | None = None
    """A swap to take at the next tick."""
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        manifest = self.policy.manifest
        self.ring = TransitionRing(self.ring_size, manifest.obs_size, manifest.action_size)
        self.carry = self.policy.initial_carry()
        self.limits = ActionLimits.of(manifest)
        self.monitor = AdaptationMonitor(self.policy)

    def adopt(self, policy: Policy, carry: Arrays, fresh: bool) -> Callable[[], None]:
        """Act by another policy from now on.

        Args:
            policy: the new one.
            carry: to go on with.
            fresh: start from the prior at the next step instead.

        Returns:
            A function that undoes it.
        """
        names = ("policy", "carry", "limits", "monitor", "previous", "generation", "start_fresh")
        before = {name: getattr(self, name) for name in names}
        self.previous, self.policy, self.carry = self.policy, policy, carry
        self.limits = ActionLimits.of(policy.manifest)
        self.monitor = self.monitor.handed_over(policy)
        self.start_fresh = self.start_fresh or fresh
        self.generation += 1
        self.counters.swaps += 1

        def undo() -> None:
            for name, value in before.items():
                setattr(self, name, value)
            self.counters.swaps -= 1

        return undo

    def reset(self) -> None:
        """Make the next step start from the prior, as at a task boundary."""
        self.start_fresh = True

    def commit(
        self, transition: Transition, carry: Arrays, applied: NDArray[np.float32], reply: bytes
    ) -> None:
        """Make one step's results the session's state."""
        self.ring.push(transition)
        self.carry, self.applied, self.reply = carry, applied, reply
        self.next_seq = transition.seq + 1
        self.start_fresh = False
        self.counters.steps += 1
