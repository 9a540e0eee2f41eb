"""What sessions must answer, worked out without a daemon: policies stepped over their carries."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.history import Arrays
from runtime.noise import step_noise
from runtime.policy import Policy


class Told(NamedTuple):
    """What all sessions are told at one tick."""

    seq: int
    obs: NDArray[np.float32]  # (n, O)
    reward: float
    new_task: bool


class Offline:
    """Sessions that live through the same boundaries, each with a policy of its own.

    A policy that takes over lives through the task anew, so each policy is stepped along for
    every session since the task began; only versions of one policy hand their carry on.
    """

    def __init__(self, policies: dict[str, Policy], first: str, ids: list[int]):
        """
        Args:
            policies: those that sessions may have, by label.
            first: the one that all begin with.
            ids: of the sessions.
        """
        self._ids, self._count = ids, len(ids)
        self._labels, self._policies = list(policies), list(policies.values())
        self._which = np.full(self._count, self._labels.index(first))
        self._carries = [policy.initial_carry(self._count) for policy in self._policies]
        self._action = np.zeros((self._count, self._policies[0].manifest.action_size), np.float32)

    @property
    def batch_invariant(self) -> bool:
        """Whether rows may be stepped together here."""
        return all(policy.batch_invariant for policy in self._policies)

    def step(self, told: Told, swapped: dict[int, str]) -> NDArray[np.float32]:
        """The actions (n, A) that the policies want.

        Args:
            told: at this tick.
            swapped: the policies that have taken over just before it, by place.
        """
        for i, label in swapped.items():
            self._switch(i, self._labels.index(label))
        if told.new_task:
            self._carries = [policy.initial_carry(self._count) for policy in self._policies]
        inputs = self._inputs(told)
        wanted = np.stack([self._advance(p, inputs, told.seq) for p in range(len(self._policies))])
        return wanted[self._which, np.arange(self._count)]

    def _inputs(self, told: Told) -> Arrays:
        first = told.new_task
        return {
            "obs": told.obs,
            "prev_action": np.zeros_like(self._action) if first else self._action,
            "prev_reward": np.full((self._count, 1), 0.0 if first else told.reward, np.float32),
            "prev_done": np.zeros((self._count, 1), np.float32),
        }

    def _advance(self, p: int, inputs: Arrays, seq: int) -> NDArray[np.float32]:
        """One step of all sessions by one policy."""
        policy, size = self._policies[p], self._policies[p].manifest.noise_size
        if size:
            noise = [step_noise(session, seq, size) for session in self._ids]
            inputs = inputs | {"noise": np.concatenate(noise)}
        step = policy.step(inputs, self._carries[p])
        self._carries[p] = step.carry
        return step.action

    def _switch(self, i: int, after: int) -> None:
        before, self._which[i] = int(self._which[i]), after
        old, new = (self._policies[p].manifest for p in (before, after))
        if old.name == new.name and old.carry_digest == new.carry_digest:
            for name, value in self._carries[before].items():
                self._carries[after][name][i] = value[i]

    def acted(self, actions: NDArray[np.float32]) -> None:
        """What was really done, (n, A), after the guard."""
        self._action = actions

    def carry_of(self, i: int) -> Arrays:
        """The carry of session `i`."""
        return {name: value[i] for name, value in self._carries[self._which[i]].items()}
