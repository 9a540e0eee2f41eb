"""Collecting trials, and the only place that builds the meta-RL input.

Shapes: ``T`` steps of a trial, ``B`` trials in lock step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim.trials import TrialEnv
from training.networks import Carry, TrialPolicy


class MetaInput:
    """What a meta-RL policy sees besides the observation: the step before, as it was.

    At a task boundary all three are zero. At an episode boundary inside a task
    `prev_action` and `prev_reward` are those of the last step of the episode before and
    `prev_done` is one: the runtime's client sends the same.
    """

    def __init__(self, num_envs: int, action_size: int):
        self.prev_action = torch.zeros(num_envs, action_size)
        self.prev_reward = torch.zeros(num_envs, 1)
        self.prev_done = torch.zeros(num_envs, 1)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """prev_action (B, A), prev_reward (B, 1), prev_done (B, 1)."""
        return self.prev_action, self.prev_reward, self.prev_done

    def advance(self, applied_action: NDArray, reward: NDArray, done: NDArray[np.bool_]) -> None:
        """Remember the step just made: action (B, A) as applied, reward (B,), done (B,)."""
        self.prev_action = torch.from_numpy(applied_action.copy())
        self.prev_reward = torch.from_numpy(reward.astype(np.float32)).unsqueeze(1)
        self.prev_done = torch.from_numpy(done.astype(np.float32)).unsqueeze(1)


@dataclass(frozen=True)
class Shard:
    """Simulations with random streams of their own."""

    env: TrialEnv
    generator: torch.Generator
    """Of the action noise and of what is learned from first."""

    def seed(self, seed: int, number: int, stream: int) -> None:
        """Start all random streams anew, by the run's seed, the shard's number and a count."""
        sequence = np.random.SeedSequence(seed, spawn_key=(number, stream))
        world, change, noise = sequence.generate_state(3, np.uint64).tolist()
        self.env.np_random = np.random.default_rng(world)
        self.env.schedule.seed(change)
        self.generator.manual_seed(noise)


@dataclass
class Final:
    """What follows the last step of each trial, wherever in the batch that was."""

    obs: Tensor  # (B, O)
    features: Tensor  # (B, H), of the memory
    task: Tensor  # (B, D)
    terminated: Tensor  # (B,), 1 where the trial ended in a terminal state

    def take(self, ids: NDArray[np.bool_], *parts: Tensor) -> None:
        """Set the rows `ids` from whole batches of obs, features, task and terminated."""
        rows = torch.from_numpy(ids)
        mine = (self.obs, self.features, self.task, self.terminated)
        for kept, part in zip(mine, parts, strict=True):
            kept[rows] = part[rows]


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


def collect(shards: Sequence[Shard], policy: TrialPolicy, chunk: int) -> Trials:
    """One trial in every simulation of the shards; arguments and errors as `_collect`."""
    parts = [_collect(shard.env, policy, chunk, shard.generator) for shard in shards]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: list[Trials]) -> Trials:
    def cat(name: str, dim: int) -> Tensor:
        rows = [getattr(p, name) for p in parts]
        longest = max(len(r) for r in rows)
        rows = [torch.cat((r, r.new_zeros(longest - len(r), *r.shape[1:]))) for r in rows]
        return torch.cat(rows, dim)

    finals = [p.final for p in parts]
    final = Final(
        *(
            torch.cat([getattr(f, n) for f in finals])
            for n in ("obs", "features", "task", "terminated")
        )
    )
    steps = sorted(set().union(*(p.carries for p in parts)))
    carries = {
        t: {
            n: torch.cat(
                [
                    p.carries[t][n] if t in p.carries else torch.zeros_like(p.carries[0][n])
                    for p in parts
                ]
            )
            for n in parts[0].carries[0]
        }
        for t in steps
    }
    return Trials(**{name: cat(name, 1) for name in _PER_STEP}, final=final, carries=carries)


def _collect(
    env: TrialEnv,
    policy: TrialPolicy,
    chunk: int,
    generator: torch.Generator,
) -> Trials:
    """One trial in every simulation, with actions sampled from the policy.

    Args:
        env: reset at the start; all its trials begin and end here.
        policy: acts; its carry starts at the prior.
        chunk: steps between the carries that are kept for truncated backpropagation.
        generator: of the action noise.

    Raises:
        FloatingPointError: what the simulator returned is not finite; names it.
    """
    steps = env.episodes * env.family.horizon
    collector = _Collector(env, policy, generator)
    with torch.no_grad():
        for t in range(steps):
            if t % chunk == 0:
                collector.carries[t] = collector.carry
            collector.step()
            if collector.finished.all():
                break
    return collector.trials()


class _Collector:
    """Trials under way: the environment, the policy's carry, and what has been seen so far."""

    def __init__(self, env: TrialEnv, policy: TrialPolicy, generator: torch.Generator):
        self.env, self.policy, self.generator = env, policy, generator
        self.obs, self.info = env.reset()
        self.meta = MetaInput(env.num_envs, len(env.family.action))
        self.carry = policy.initial(torch.from_numpy(env.task_features()))
        self.carries: dict[int, Carry] = {}
        self.rows: dict[str, list[Tensor]] = {name: [] for name in _PER_STEP}
        self.finished = np.zeros(env.num_envs, bool)
        self.std = policy.log_std.detach().exp()
        self.final = Final(
            torch.zeros(self.obs.shape),
            torch.zeros(env.num_envs, policy.feature_size),
            torch.from_numpy(env.task_features()),
            torch.zeros(env.num_envs),
        )

    def step(self) -> None:
        """Act once in every simulation, and keep what the learner needs of it."""
        row = self._act()
        episode = self.info["episode"]
        self.obs, reward, died, truncated, self.info = self.env.step(row["action"].numpy())
        for what, values in (("reward", reward), ("obs", self.obs)):
            if not np.isfinite(values.sum()):
                raise FloatingPointError(f"the simulator's {what}")
        seen_reward = self.info.get("test_reward", reward)
        row["reward"] = torch.from_numpy(reward).float()
        row["seen_reward"] = torch.from_numpy(seen_reward).float()
        for name, value in row.items():
            self.rows[name].append(value)
        done = died | truncated
        self.meta.advance(self.env.applied_action, seen_reward, done)
        over = done & (episode + 1 >= self.env.episodes) & ~self.finished
        if over.any():
            self._finish(over, row["task"], died)
        again = done & ~self.finished
        if again.any() and not self.finished.all():
            self.obs, self.info = self.env.reset(options={"reset_mask": again})

    def _act(self) -> dict[str, Tensor]:
        """Everything about this step that is known before the environment makes it."""
        seen = torch.from_numpy(self.obs)
        prev_action, prev_reward, prev_done = self.meta.inputs()
        features, normal, self.carry = self.policy.step(seen, *self.meta.inputs(), self.carry)
        mean = self.policy.action_mean(features, normal)
        noise = torch.randn(mean.shape, generator=self.generator)
        return {
            "obs": seen,
            "prev_action": prev_action,
            "prev_reward": prev_reward,
            "prev_done": prev_done,
            "task": torch.from_numpy(self.env.task_features()),
            "features": features,
            "action": mean + self.std * noise,
            "log_prob": gaussian_log_prob(noise, self.std),
            "mask": torch.from_numpy(~self.finished).float(),
            "episode": torch.from_numpy(self.info["episode"]),
        }

    def _finish(self, over: NDArray[np.bool_], task: Tensor, died: NDArray[np.bool_]) -> None:
        """Note what follows the trials that have just ended."""
        seen = torch.from_numpy(self.obs)
        features, _, _ = self.policy.step(seen, *self.meta.inputs(), self.carry)
        self.final.take(over, seen, features, task, torch.from_numpy(died).float())
        self.finished |= over
        self.env.pause(self.finished)

    def trials(self) -> Trials:
        """All that was collected."""
        stacked = {name: torch.stack(values) for name, values in self.rows.items()}
        return Trials(**stacked, final=self.final, carries=self.carries)


_PER_STEP = (
    "obs", "prev_action", "prev_reward", "prev_done", "task", "features", "action", "log_prob",
    "mask", "episode", "reward", "seen_reward",
)  # fmt: skip


def gaussian_log_prob(noise: Tensor, std: Tensor) -> Tensor:
    """Log-density of mean + std * noise under N(mean, std^2), summed over the last axis."""
    return -(0.5 * noise**2 + std.log() + 0.5 * np.log(2 * np.pi)).sum(-1)
