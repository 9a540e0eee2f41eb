"""Meta-training by PPO over trials: what the methods that collect trials share.

A method says which network it trains and what its loss adds; see `training.rl2` and
`training.multitask`.
"""

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import sim
from runtime.errors import TrainingDiverged
from training import checkpoint
from training.config import BeliefConfig, TrialConfig
from training.networks import RunningNormaliser, TrialPolicy
from training.ppo import advantages, losses, minibatches, total_loss
from training.ranks import Ranks
from training.rollout import Trials, collect


class TrialTrainer(ABC):
    """Training state of one run; `iterate` advances it, `tensors` and `facts` are all of it."""

    method: ClassVar[str]
    """The method's name on the command line."""

    @abstractmethod
    def build_policy(self) -> TrialPolicy:
        """The network of the configuration, at its initial weights."""

    def belief_config(self) -> BeliefConfig | None:
        """How the loss of the policy's belief about the task is weighted; None if it has none."""
        return None

    def __init__(self, config: TrialConfig):
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config = config
        self.ranks = Ranks()
        self.env = sim.make(
            config.family,
            config.trials,
            config.threads,
            config.seed,
            config.episodes,
            config.changes(),
        )
        self.policy = self.build_policy()
        self.return_normaliser = RunningNormaliser(1)
        self.optimiser = torch.optim.Adam(
            self.policy.parameters(), lr=config.ppo.learning_rate, eps=1e-5
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.iteration = 0
        self.env_steps = 0

    @property
    def finished(self) -> bool:
        """Whether the configured number of steps is reached."""
        return self.env_steps >= self.config.env_steps

    def iterate(self) -> dict[str, float]:
        """Collect one batch of trials, learn from it; what happened, by name.

        Raises:
            TrainingDiverged: a reward, observation, loss or gradient is not finite.
        """
        started = time.perf_counter()
        trials = self._collect()
        collected = time.perf_counter()
        self._set_learning_rate()
        terms = self._learn(trials)
        self._update_input_normalisers(trials)
        learned = time.perf_counter()
        steps = int(trials.mask.sum())
        self.iteration += 1
        self.env_steps += steps
        return {
            **episode_returns(trials),
            **({"changed_share": changed_share(trials)} if self.env.schedule.changes else {}),
            **{f"loss/{name}": value for name, value in terms.items()},
            "action_std": float(self.policy.log_std.detach().exp().mean()),
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "time/collect_s": collected - started,
            "time/learn_s": learned - collected,
            "time/steps_per_s": steps / (learned - started),
        }

    def _collect(self) -> Trials:
        if self.iteration == 0:
            self._first_look()
        return self._trials()

    def _first_look(self) -> None:
        """Start the input normalisers from a batch collected by the untrained policy."""
        trials = self._trials()
        self._update_input_normalisers(trials)
        self.env_steps += int(trials.mask.sum())

    def _trials(self) -> Trials:
        for name, values in self.policy.named_parameters():
            if not torch.isfinite(values).all():
                raise self._diverged(f"the policy's {name}")
        try:
            return collect(self.env, self.policy, self.config.ppo.chunk, self.generator)
        except FloatingPointError as error:
            raise self._diverged(str(error)) from None

    def _update_input_normalisers(self, trials: Trials) -> None:
        # After learning, so that a batch is learned from with the inputs it was collected with.
        alive = trials.mask.bool()
        self.policy.obs_normaliser.update(trials.obs[alive])
        self.policy.reward_normaliser.update(trials.seen_reward[alive].unsqueeze(1))

    def _scaled_reward(self, trials: Trials) -> Tensor:
        """Rewards over the deviation of the discounted return so far, (T, B)."""
        returns, running = torch.empty_like(trials.reward), torch.zeros_like(trials.reward[0])
        for t, reward in enumerate(trials.reward):
            running = self.config.ppo.discount * running + reward
            returns[t] = running
        self.return_normaliser.update(returns[trials.mask.bool()].unsqueeze(1))
        return trials.reward / self.return_normaliser.std

    def _set_learning_rate(self) -> None:
        ppo = self.config.ppo
        left = max(0.0, 1.0 - self.env_steps / self.config.env_steps)
        fraction = ppo.final_learning_rate + (1 - ppo.final_learning_rate) * left
        for group in self.optimiser.param_groups:
            group["lr"] = ppo.learning_rate * fraction

    def _learn(self, trials: Trials) -> dict[str, float]:
        config, belief = self.config, self.belief_config()
        advantage, target = advantages(self.policy, trials, self._scaled_reward(trials), config.ppo)
        alive = trials.mask.bool()
        value = target - advantage  # when collected
        advantage = (advantage - advantage[alive].mean()) / (advantage[alive].std() + 1e-8)
        extra = {"advantage": advantage, "return": target, "value": value}
        sums: dict[str, float] = {}
        count = 0
        for _ in range(config.ppo.epochs):
            for batch in minibatches(trials, extra, config.ppo, self.generator):
                terms = losses(self.policy, batch, config.ppo, belief)
                loss = total_loss(terms, config.ppo, belief)
                self.optimiser.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(
                    self.policy.parameters(), config.ppo.max_grad_norm
                )
                self._check_finite(terms, norm)
                self.optimiser.step()
                count += 1
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach())
        return {name: value / count for name, value in sums.items()}

    def _check_finite(self, terms: dict[str, Tensor], norm: Tensor) -> None:
        for name, value in terms.items():
            if not torch.isfinite(value):
                raise self._diverged(f"the {name} loss")
        if not torch.isfinite(norm):
            raise self._diverged("the gradient's norm")

    def _diverged(self, what: str) -> TrainingDiverged:
        return TrainingDiverged(
            f"{what} is not finite at iteration {self.iteration}, "
            f"{self.env_steps} environment steps in"
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes in training and is an array."""
        state = {f"policy.{k}": v for k, v in self.policy.state_dict().items()}
        state |= {f"returns.{k}": v for k, v in self.return_normaliser.state_dict().items()}
        state |= checkpoint.optimiser_tensors(self.optimiser)
        state["generator"] = self.generator.get_state()
        return state

    def facts(self) -> dict[str, Any]:
        """Everything else: configuration, counters, the environment's random states."""
        return {
            "method": self.method,
            "config": self.config.model_dump(mode="json"),
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "env_random_state": self.env.np_random.bit_generator.state,
            "change_random_state": self.env.schedule.rng.bit_generator.state,
        }

    def load(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on exactly where a checkpoint was taken."""
        self.policy.load_state_dict(with_prefix(tensors, "policy."))
        self.return_normaliser.load_state_dict(with_prefix(tensors, "returns."))
        checkpoint.load_optimiser(self.optimiser, tensors)
        self.generator.set_state(tensors["generator"])
        self.iteration, self.env_steps = facts["iteration"], facts["env_steps"]
        self.env.np_random.bit_generator.state = facts["env_random_state"]
        if "change_random_state" in facts:  # older checkpoints had one stream for both
            self.env.schedule.rng.bit_generator.state = facts["change_random_state"]


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def episode_returns(trials: Trials) -> dict[str, float]:
    """Mean return by episode of the trial, `return/episode_1` and on."""
    returns = {}
    for episode in range(int(trials.episode.max()) + 1):
        inside = (trials.episode == episode) * trials.mask
        per_trial = (trials.reward * inside).sum(0)
        returns[f"return/episode_{episode + 1}"] = float(np.mean(per_trial.numpy()))
    return returns


def changed_share(trials: Trials) -> float:
    """Share of the trials in which the task became another before one of their steps."""
    moved = (trials.task[1:] != trials.task[:-1]).any(-1) & trials.mask[1:].bool()  # (T - 1, B)
    return float(moved.any(0).float().mean())
