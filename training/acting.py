"""Ways of acting that are evaluated: a step, and the state that it starts with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import sim
from training.networks import Carry, TrialPolicy
from training.trials import MetaInput

Actions = NDArray[np.float32]


@dataclass(frozen=True)
class Acting:
    """How B robots act."""

    act: Callable[[Tensor, MetaInput, Any], tuple[Actions, Any]]
    """Observations (B, O), the step before and the state, to actions (B, A) and the state after."""
    start: Any
    """The state at the start of a trial."""

    def forgetting(self) -> "Acting":
        """The same with the state cleared before every step."""

        def act(obs: Tensor, meta: MetaInput, state: Any) -> tuple[Actions, Any]:
            return self.act(obs, meta, self.start)[0], state

        return Acting(act, self.start)


def deterministic(policy: TrialPolicy, carry: Carry) -> Acting:
    """By the mean of the policy's Gaussian."""

    def act(obs: Tensor, meta: MetaInput, carry: Carry) -> tuple[Actions, Carry]:
        features, seen, after = policy.step(obs, *meta.inputs(), carry)
        return policy.action_mean(features, seen).numpy(), after

    return Acting(act, carry)


def uniform(family: str, tasks: int, seed: int) -> Acting:
    """At random within the action's bounds."""
    rng = np.random.default_rng(seed)
    limits = np.array([(c.low, c.high) for c in sim.family(family).action])

    def act(obs: Tensor, meta: MetaInput, state: None) -> tuple[Actions, None]:
        shape = (tasks, len(limits))
        return rng.uniform(limits[:, 0], limits[:, 1], shape).astype(np.float32), state

    return Acting(act, None)
