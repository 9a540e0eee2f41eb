"""A batch of trials: what a meta-RL policy is given, and what is kept of it to learn from.

Shapes: ``T`` steps of a trial, ``B`` trials in lock step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.networks import Carry


class MetaInput:
    """What a meta-RL policy sees besides the observation: the step before, as it was.

    This is the only place that builds it.

    At a task boundary all three are zero. At an episode boundary inside a task
    `prev_action` and `prev_reward` are those of the last step of the episode before and
    `prev_done` is one: the runtime's client sends the same.
    """

    def __init__(self, num_envs: int, action_size: int):
        self.values = np.zeros((num_envs, action_size + 2), np.float32)
        """prev_action, prev_reward and prev_done side by side, (B, A + 2); written in place."""

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """prev_action (B, A), prev_reward (B, 1), prev_done (B, 1), copied."""
        values = torch.from_numpy(self.values.copy())
        return values[:, :-2], values[:, -2:-1], values[:, -1:]

    def advance(self, applied_action: NDArray, reward: NDArray, done: NDArray[np.bool_]) -> None:
        """Remember the step just made: action (B, A) as applied, reward (B,), done (B,)."""
        self.values[:, :-2] = applied_action
        self.values[:, -2] = reward
        self.values[:, -1] = done


@dataclass
class Final:
    """What follows the last step of each trial, wherever in the batch that was."""

    obs: Tensor  # (B, O)
    features: Tensor  # (B, H), of the memory
    task: Tensor  # (B, D)
    terminated: Tensor  # (B,), 1 where the trial ended in a terminal state


@dataclass
class Trials:
    """One batch of whole trials, time first; everything the learner needs."""

    obs: Tensor  # (T, B, O)
    prev_action: Tensor  # (T, B, A)
    prev_reward: Tensor  # (T, B, 1)
    prev_done: Tensor  # (T, B, 1)
    task: Tensor  # (T, B, D)
    features: Tensor  # (T, B, H), of the memory when the trial was collected
    action: Tensor  # (T, B, A), as sampled
    log_prob: Tensor  # (T, B)
    reward: Tensor  # (T, B), to learn from
    seen_reward: Tensor  # (T, B), what the policy sees of it afterwards: that of a robot
    mask: Tensor  # (T, B), 1 while the trial runs
    episode: Tensor  # (T, B), which episode of the trial
    final: "Final"
    carries: dict[int, Carry]  # at the start of each chunk, by step


def side_by_side(parts: Sequence[Trials]) -> Trials:
    """Trials put together along B; rows after the end of a shorter part are zero."""
    if len(parts) == 1:
        return parts[0]
    steps = max(len(part.mask) for part in parts)

    def joined(name: str) -> Tensor:
        xs = [getattr(part, name) for part in parts]
        padded = [torch.cat((x, x.new_zeros(steps - len(x), *x.shape[1:]))) for x in xs]
        return torch.cat(padded, dim=1)

    per_step = {f.name: joined(f.name) for f in fields(Trials) if f.type is Tensor}
    final = {f.name: torch.cat([getattr(p.final, f.name) for p in parts]) for f in fields(Final)}
    # A part that is over has no carry any more; its first is as good as any, behind the mask.
    starts = max((part.carries for part in parts), key=len)
    carries = {
        t: {n: torch.cat([p.carries.get(t, p.carries[0])[n] for p in parts]) for n in starts[t]}
        for t in starts
    }
    return Trials(**per_step, final=Final(**final), carries=carries)


def gaussian_log_prob(noise: Tensor, std: Tensor) -> Tensor:
    """Log-density of mean + std * noise under N(mean, std^2), summed over the last axis."""
    return -(0.5 * noise**2 + std.log() + 0.5 * np.log(2 * np.pi)).sum(-1)
