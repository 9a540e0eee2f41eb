"""What sessions must answer, worked out without a daemon: policies stepped over their carries."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.history import Arrays
from runtime.policy import Policy


class Told(NamedTuple):
    """What all sessions are told at one tick."""

    obs: NDArray[np.float32]  # (n, O)
    reward: float
    new_task: bool


class Offline:
    """Sessions that live through the same boundaries, each with a policy of its own."""

    def __init__(self, policies: dict[str, Policy], first: str, count: int):
        """
        Args:
            policies: those that sessions may have, by label.
            first: the one that all begin with.
            count: how many sessions.
        """
        self._labels, self._policies = list(policies), list(policies.values())
        self._which = np.full(count, list(policies).index(first))
        self._carries = [policy.initial_carry(count) for policy in self._policies]
        self._action = np.zeros((count, self._policies[0].manifest.action_size), np.float32)
        self._history: list[Arrays] = []
        """Inputs since the task began."""

    @property
    def batch_invariant(self) -> bool:
        """Whether rows may be stepped together here."""
        return all(policy.batch_invariant for policy in self._policies)

    def step(self, told: Told, swapped: dict[int, str]) -> NDArray[np.float32]:
        """The actions (n, A) that the policies want.

        Args:
            told: at this tick.
            swapped: the policies that have taken over just before it, by session.
        """
        if told.new_task:
            self._history.clear()
        for i, label in swapped.items():
            self._switch(i, self._labels.index(label))
        if told.new_task:
            count = len(self._which)
            self._carries = [policy.initial_carry(count) for policy in self._policies]
        inputs = self._inputs(told)
        self._history.append(inputs)
        wanted = np.empty_like(self._action)
        for p in range(len(self._policies)):
            rows = np.flatnonzero(self._which == p)
            if len(rows):
                wanted[rows] = self._advance(p, rows, inputs)
        return wanted

    def _inputs(self, told: Told) -> Arrays:
        count = len(told.obs)
        first = told.new_task
        return {
            "obs": told.obs,
            "prev_action": np.zeros_like(self._action) if first else self._action.copy(),
            "prev_reward": np.full((count, 1), 0.0 if first else told.reward, np.float32),
            "prev_done": np.zeros((count, 1), np.float32),
        }

    def _advance(self, p: int, rows: NDArray[np.intp], inputs: Arrays) -> NDArray[np.float32]:
        """One step of some sessions of one policy."""
        carry = self._carries[p]
        step = self._policies[p].step(
            {name: value[rows] for name, value in inputs.items()},
            {name: value[rows] for name, value in carry.items()},
        )
        for name, value in step.carry.items():
            carry[name][rows] = value
        return step.action

    def _switch(self, i: int, after: int) -> None:
        """A policy takes over: it keeps the carry of its own other version, or lives through
        the task anew."""
        before, self._which[i] = int(self._which[i]), after
        old, new = (self._policies[p].manifest for p in (before, after))
        if old.name == new.name and old.carry_digest == new.carry_digest:
            for name, value in self._carries[before].items():
                self._carries[after][name][i] = value[i].copy()
            return
        for name, value in self._policies[after].initial_carry().items():
            self._carries[after][name][i] = value[0]
        row = np.array([i])
        for inputs in self._history:
            self._advance(after, row, inputs)

    def acted(self, actions: NDArray[np.float32]) -> None:
        """What was really done, (n, A), after the guard."""
        self._action = actions

    def carry_of(self, i: int) -> Arrays:
        """The carry of session `i`."""
        return {name: value[i] for name, value in self._carries[self._which[i]].items()}
