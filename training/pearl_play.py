"""PEARL at play: simulations of many tasks in lock step.

An episode acts on z in one of three ways. ``prior``: one sample of the prior, to explore.
``sampled``: one sample of the posterior over all that came before in the trial (Rakelly et al.
2019). ``streaming``: the posterior's mean, which every transition moves; the first half of the
simulations also act without noise, so that evidence is known as a robot will gather it.

Shapes: ``B`` simulations, ``T`` control steps of an episode, ``W`` numbers of a transition, ``L``
latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sim.task import Tasks
from sim.trials import TrialEnv
from training.finite import check_simulated
from training.pearl_networks import ContextPolicy
from training.posterior import Posterior
from training.replay_buffer import Transitions
from training.rollout import one_torch_thread
from training.sac import squashed_sample

Way = Literal["prior", "sampled", "streaming"]


@dataclass(frozen=True)
class Episode:
    """One episode in each of B simulations."""

    way: Way
    rows: Tensor  # (T, B, W), one transition each
    made: Tensor  # (T, B) bool, whether the step was made: the episode had not ended
    returns: Tensor  # (B,)


def play(
    env: TrialEnv,
    policy: ContextPolicy,
    tasks: Tasks,
    ways: Sequence[Way],
    generator: torch.Generator,
) -> list[Episode]:
    """A trial in every simulation; where not said otherwise, actions are sampled.

    Args:
        env: of as many episodes as there are `ways`.
        policy: acts, where it is.
        tasks: of the simulations, (B,) per parameter.
        ways: of acting, one per episode. Where acting turns to streaming, it forgets what came
            before, and begins as a robot does.
        generator: of all noise, on the CPU.

    Raises:
        FloatingPointError: what the simulator returned is not finite; names it.
    """
    with torch.no_grad(), one_torch_thread():
        player = _Player(env, policy, generator)
        obs, _ = env.reset(options={"tasks": tasks})
        episodes = []
        for number, way in enumerate(ways):
            if way == "streaming" and ways[number - 1 : number] != ways[number : number + 1]:
                player.forget()
            episodes.append(player.episode(obs, way, number * env.family.horizon))
            if number + 1 < len(ways):
                obs, _ = env.reset(options={"reset_mask": np.ones(env.num_envs, bool)})
        return episodes


class _Player:
    """Simulations and what is believed about their tasks."""

    def __init__(self, env: TrialEnv, policy: ContextPolicy, generator: torch.Generator):
        self.env, self.policy, self.generator = env, policy, generator
        self.device = policy.obs_normaliser.mean.device
        self.forget()

    def forget(self) -> None:
        """Back to the prior."""
        self.posterior = Posterior.prior(self.env.num_envs, self.policy.context, self.policy.latent)

    def episode(self, obs: np.ndarray, way: Way, first_step: int) -> Episode:
        """Play from the first observations (B, O); `first_step` counts over the trial."""
        env, rows, made = self.env, [], []
        running = np.ones(env.num_envs, bool)
        returns = np.zeros(env.num_envs)
        z = self._z(way)
        for step in range(first_step, first_step + env.family.horizon):
            chosen = self._act(torch.from_numpy(obs), z, way)
            after, reward, terminated, truncated, info = env.step(chosen)
            check_simulated(env, step, "reward", reward)
            check_simulated(env, step, "obs", after)
            told = info.get("test_reward", reward)
            row = _row(obs, env.applied_action, reward, told, terminated, after)
            rows.append(row.rows())
            made.append(torch.from_numpy(running.copy()))
            self._take_in(row, made[-1])
            z = self._mean() if way == "streaming" else z
            returns += reward * running
            running &= ~(terminated | truncated)
            obs = after
            if not running.any():
                break
            env.pause(~running)
        return Episode(way, torch.stack(rows), torch.stack(made), torch.from_numpy(returns))

    def _z(self, way: Way) -> Tensor:
        """What an episode begins with, (B, L)."""
        if way == "streaming":
            return self._mean()
        noise = torch.randn(self.env.num_envs, self.policy.latent, generator=self.generator)
        if way == "prior":
            return noise
        mean, variance = self.posterior.mean_and_variance()
        return mean + variance.sqrt() * noise

    def _mean(self) -> Tensor:
        return self.posterior.mean_and_variance()[0]

    def _act(self, obs: Tensor, z: Tensor, way: Way) -> np.ndarray:
        """Actions (B, A)."""
        mean, log_std = self.policy.act(obs.to(self.device), z.to(self.device))
        noise = torch.randn(mean.shape, generator=self.generator)
        if way == "streaming":
            noise[: len(noise) // 2] = 0.0
        return squashed_sample(mean.cpu(), log_std.cpu(), noise)[0].numpy()

    def _take_in(self, row: Transitions, made: Tensor) -> None:
        """Evidence of the steps that were made, (B,)."""
        parts = (row.observation, row.action, row.seen_reward, row.next_observation)
        read = self.policy.transition(*(part.to(self.device) for part in parts))
        mean, variance = self.policy.encoder(read)
        self.posterior = self.posterior.add(mean.cpu(), variance.cpu(), made.unsqueeze(1))


def _row(*parts: np.ndarray) -> Transitions:
    """One transition of each simulation; parts (B, size) or (B,), as floats of their own."""
    columns = (np.array(part, np.float32).reshape(len(part), -1) for part in parts)
    return Transitions(*map(torch.from_numpy, columns))
