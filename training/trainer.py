"""Meta-training by PPO over trials: what the methods that collect trials share.

A method says which network it trains and what its loss adds; see `training.rl2` and
`training.multitask`.
"""

import time
from abc import abstractmethod

import torch
from torch import Tensor

import sim
from training import checkpoint
from training.config import BeliefConfig, TrialConfig
from training.gradients import FlatGradients
from training.meta_trainer import MetaTrainer, with_prefix
from training.networks import RunningNormaliser, TrialPolicy
from training.ppo import Chunks, advantages, losses, total_loss
from training.ranks import Ranks
from training.rollout import Shard, Trials, collect


class TrialTrainer(MetaTrainer):
    """Training state of one run by PPO.

    The trials of an iteration are divided into shards, each with random streams of its own that
    depend on the seed, the shard and the iteration alone. Ranks divide the shards; since what
    they learn is reduced over all of them, it does not matter how many ranks there are.
    """

    @abstractmethod
    def build_policy(self) -> TrialPolicy:
        """The network of the configuration, at its initial weights."""

    def belief_config(self) -> BeliefConfig | None:
        """How the loss of the policy's belief about the task is weighted; None if it has none."""
        return None

    def __init__(self, config: TrialConfig, ranks: Ranks | None = None):
        super().__init__(config, ranks)
        self.config, ranks = config, self.ranks
        self.policy = self.build_policy().to(ranks.device)
        self.return_normaliser = RunningNormaliser(1).to(ranks.device)
        self.gradients = FlatGradients(self.policy.parameters(), config.ppo.max_grad_norm, ranks)
        self.optimiser = torch.optim.Adam(
            self.policy.parameters(), lr=config.ppo.learning_rate, eps=1e-5, fused=True
        )
        mine = config.shards // ranks.count
        self.shard_numbers = range(ranks.rank * mine, (ranks.rank + 1) * mine)
        self.shards = [self._new_shard() for _ in self.shard_numbers]

    def _new_shard(self) -> Shard:
        config = self.config
        env = sim.make(
            config.family,
            config.trials // config.shards,
            config.threads,
            config.seed,
            config.episodes,
            config.changes(),
        )
        return Shard(env, torch.Generator())

    def iterate(self) -> dict[str, float]:
        """Collect one batch of trials, learn from it."""
        started = time.perf_counter()
        trials = self._collect()
        collected = time.perf_counter()
        self._set_learning_rate()
        terms = self._learn(trials)
        self._update_input_normalisers(trials)
        learned = time.perf_counter()
        steps = self._steps(trials)
        self.iteration += 1
        self.env_steps += steps
        return {
            **self._returns(trials),
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
        return self._trials(self.iteration + 1)

    def _first_look(self) -> None:
        """Start the input normalisers from a batch collected by the untrained policy."""
        trials = self._trials(0)
        self._update_input_normalisers(trials)
        self.env_steps += self._steps(trials)

    def _trials(self, stream: int) -> Trials:
        """One trial in every simulation of this rank, with the random streams of that number."""
        self.check_parameters(self.policy)
        trials, trouble = None, ""
        try:
            trials = self._trials_of(stream)
        except FloatingPointError as error:
            trouble = str(error)
        if self.ranks.any(trials is None) or trials is None:  # all stop, or none
            raise self.diverged(trouble or "what another rank simulated")
        return trials

    def _trials_of(self, stream: int) -> Trials:
        for number, shard in zip(self.shard_numbers, self.shards, strict=True):
            shard.seed(self.config.seed, number, stream)
        return collect(self.shards, self.policy, self.config.ppo.chunk)

    def _steps(self, trials: Trials) -> int:
        """Environment steps of these trials, over all ranks."""
        return int(self.ranks.sum_(trials.mask.sum(dtype=torch.float64)))

    def _returns(self, trials: Trials) -> dict[str, float]:
        """Mean return of each episode over the trials of all ranks, and the share that changed."""
        env = self.shards[0].env
        found = {f"return/episode_{k + 1}": episode_return(trials, k) for k in range(env.episodes)}
        if env.schedule.changes:
            found["changed_share"] = changed_trials(trials)
        means = self.ranks.sum_(torch.stack(list(found.values()))) / self.config.trials
        return dict(zip(found, means.tolist(), strict=True))

    def _update_input_normalisers(self, trials: Trials) -> None:
        # After learning, so that a batch is learned from with the inputs it was collected with.
        alive = trials.mask.bool()
        self.policy.obs_normaliser.update(trials.obs[alive], self.ranks)
        self.policy.reward_normaliser.update(trials.seen_reward[alive].unsqueeze(1), self.ranks)

    def _scaled_reward(self, trials: Trials) -> Tensor:
        """Rewards over the deviation of the discounted return so far, (T, B)."""
        returns, running = torch.empty_like(trials.reward), torch.zeros_like(trials.reward[0])
        for t, reward in enumerate(trials.reward):
            running = self.config.ppo.discount * running + reward
            returns[t] = running
        self.return_normaliser.update(returns[trials.mask.bool()].unsqueeze(1), self.ranks)
        return trials.reward / self.return_normaliser.std

    def _set_learning_rate(self) -> None:
        ppo = self.config.ppo
        left = max(0.0, 1.0 - self.env_steps / self.config.env_steps)
        fraction = ppo.final_learning_rate + (1 - ppo.final_learning_rate) * left
        for group in self.optimiser.param_groups:
            group["lr"] = ppo.learning_rate * fraction

    def _learn(self, trials: Trials) -> dict[str, float]:
        config, belief = self.config.ppo, self.belief_config()
        advantage, target = advantages(self.policy, trials, self._scaled_reward(trials), config)
        value = target - advantage  # when collected
        advantage = self._standardised(advantage, trials.mask)
        extra = {"advantage": advantage, "return": target, "value": value}
        chunks = Chunks(trials, extra, config.chunk, len(self.shards), self.ranks)
        generators = [shard.generator for shard in self.shards]
        sums: dict[str, float] = {}
        count = 0
        for _ in range(config.epochs):
            for batch in chunks.deal(config.minibatches, generators):
                terms = losses(self.policy, batch, config, belief)
                found = self.gradients.compute(total_loss(terms, config, belief), terms)
                self.check_finite(found)
                self.optimiser.step()
                count += 1
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
        return {name: value / count for name, value in sums.items()}

    def _standardised(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` (T, B) over its mean and deviation where `mask` is set, on all ranks."""
        alive = x[mask.bool()].double()
        one = torch.ones((), dtype=torch.float64, device=x.device)
        n, total, squares = self.ranks.sum_(
            torch.stack((one * len(alive), alive.sum(), alive.square().sum()))
        )
        mean = total / n
        deviation = ((squares - n * mean**2) / (n - 1)).clamp(min=0).sqrt()
        return (x - mean.float()) / (deviation.float() + 1e-8)

    def tensors(self) -> dict[str, Tensor]:
        state = {f"policy.{k}": v for k, v in self.policy.state_dict().items()}
        state |= {f"returns.{k}": v for k, v in self.return_normaliser.state_dict().items()}
        return state | checkpoint.optimiser_tensors(self.optimiser)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.policy.load_state_dict(with_prefix(tensors, "policy."))
        self.return_normaliser.load_state_dict(with_prefix(tensors, "returns."))
        checkpoint.load_optimiser(self.optimiser, tensors)


def episode_return(trials: Trials, episode: int) -> Tensor:
    """Sum over trials of the return in one episode of each, a number."""
    inside = (trials.episode == episode) * trials.mask
    return (trials.reward * inside).sum(dtype=torch.float64)


def changed_trials(trials: Trials) -> Tensor:
    """In how many trials the task became another before one of their steps, a number."""
    moved = (trials.task[1:] != trials.task[:-1]).any(-1) & trials.mask[1:].bool()  # (T - 1, B)
    return moved.any(0).sum(dtype=torch.float64)
