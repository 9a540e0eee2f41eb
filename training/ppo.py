"""Proximal policy optimisation over chunks of trials.

Sources: PPO, Schulman et al. 2017, eq. 7; GAE, Schulman et al. 2016, eq. 16.
Shapes: ``T`` steps, ``B`` trials, ``L`` steps of a chunk, ``N`` chunks of a minibatch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.config import BeliefConfig, PPOConfig
from training.networks import Carry, TrialPolicy
from training.ranks import Ranks
from training.rollout import Trials, gaussian_log_prob


def gae(
    reward: Tensor, value: Tensor, last_value: Tensor, mask: Tensor, discount: float, lam: float
) -> Tensor:
    """Generalised advantage estimates over whole trials, (T, B).

    A trial is one decision process, so episode boundaries inside it cut nothing.

    Args:
        reward, value: (T, B).
        last_value: value after the last step of each trial, (B,); 0 where it is terminal.
        mask: (T, B), 1 while the trial runs. A trial that ends early is followed by zeros.
    """
    advantage = torch.zeros_like(reward)
    running, next_value = torch.zeros_like(last_value), last_value
    for t in reversed(range(len(reward))):
        alive = mask[t]
        delta = reward[t] + discount * next_value - value[t]
        running = alive * (delta + discount * lam * running)
        next_value = torch.where(alive > 0, value[t], last_value)
        advantage[t] = running
    return advantage


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float
) -> Tensor:
    """PPO's loss per sample (eq. 7, negated); same shape as its arguments."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def gaussian_nll(mean: Tensor, log_variance: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of `target` up to a constant, averaged over the last axis."""
    return 0.5 * ((target - mean) ** 2 * (-log_variance).exp() + log_variance).mean(-1)


def clipped_huber(value: Tensor, old_value: Tensor, target: Tensor, clip: float) -> Tensor:
    """Half of Huber's loss (1964; threshold 1) of the value or, where larger, of the clipped value.

    The clipped value is at most `clip` from `old_value`, that of when the trial was collected
    (Schulman's PPO code; Huber's loss as in VariBAD). Same shape as its arguments.
    """
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    error = torch.maximum((value - target).abs(), (clipped - target).abs())  # Huber's is monotone
    return 0.5 * torch.where(error < 1, 0.5 * error**2, error - 0.5)


@dataclass(frozen=True)
class Batch:
    """A minibatch of N chunks of L steps, time first, and the carries before them."""

    trials: dict[str, Tensor]  # (L, N, ...)
    carry: Carry  # (N, H)
    steps: float  # steps that count in this minibatch, on all ranks


def advantages(
    policy: TrialPolicy, trials: Trials, reward: Tensor, config: PPOConfig
) -> tuple[Tensor, Tensor]:
    """Advantages, and the returns that the value function should predict, each (T, B).

    Args:
        reward: (T, B), as scaled for the value function.
    """
    with torch.no_grad():
        value = policy.value(trials.features, policy.obs_normaliser(trials.obs), trials.task)
        final = trials.final
        last = policy.value(final.features, policy.obs_normaliser(final.obs), final.task)
        last = last * (1 - final.terminated)
    advantage = gae(reward, value, last, trials.mask, config.discount, config.gae_lambda)
    return advantage, advantage + value


class Chunks:
    """Trials cut into chunks along time, to be dealt out at random in each epoch.

    A last chunk shorter than the others is padded with masked steps; chunks after the end of
    their trial are left out.
    """

    def __init__(
        self,
        trials: Trials,
        extra: dict[str, Tensor],
        length: int,
        shards: int = 1,
        ranks: Ranks | None = None,
    ):
        """
        Args:
            trials: of this rank, shard after shard.
            extra: what else to cut, by name, (T, B, ...).
            length: of a chunk, in steps.
            shards: how many there are, all of the same number of trials.
            ranks: all of them get the same number of minibatches.
        """
        names = ("obs", "prev_action", "prev_reward", "prev_done", "task", "action", "log_prob")
        steps, batch = trials.mask.shape
        length = min(length, steps)
        count = math.ceil(steps / length)
        given = {name: getattr(trials, name) for name in (*names, "mask")} | extra
        self.arrays = {name: _cut(x, count, length) for name, x in given.items()}
        starts = [trials.carries[i * length] for i in range(count)]
        self.carry = {name: torch.cat([start[name] for start in starts]) for name in starts[0]}
        self.steps = self.arrays["mask"].sum(0)
        self.ranks = ranks or Ranks()
        alive = (self.steps > 0).view(count, shards, batch // shards)
        numbers = torch.arange(count * batch, device=alive.device).view(alive.shape)
        self.shards = [numbers[:, k][alive[:, k]] for k in range(shards)]

    def deal(self, number: int, generators: Sequence[torch.Generator]) -> Iterator[Batch]:
        """All chunks once, as `number` minibatches; each shard deals its own by its generator."""
        hands: list[list[Tensor]] = [[] for _ in range(number)]
        for numbers, generator in zip(self.shards, generators, strict=True):
            order = torch.randperm(len(numbers), generator=generator).to(numbers.device)
            for hand, dealt in zip(hands, numbers[order].tensor_split(number), strict=True):
                hand.append(dealt)
        dealt = [torch.cat(hand) for hand in hands]
        counts = torch.stack([self.steps[ids].sum() for ids in dealt])
        for ids, steps in zip(dealt, self.ranks.sum_(counts).tolist(), strict=True):
            if steps:
                yield _batch(self.arrays, self.carry, ids, steps)


def _cut(x: Tensor, count: int, length: int) -> Tensor:
    """(T, B, ...) as (length, count * B, ...), padded with zeros at the end of time."""
    steps, batch, *rest = x.shape
    if count * length > steps:
        x = torch.cat((x, x.new_zeros(count * length - steps, batch, *rest)))
    return x.reshape(count, length, batch, *rest).transpose(0, 1).reshape(length, -1, *rest)


def _batch(chunks: dict[str, Tensor], carry: Carry, ids: Tensor, steps: float) -> Batch:
    """The chunks `ids`; where there are none, because others have some, one that weighs nothing."""
    nothing = not len(ids)
    ids = ids.new_zeros(1) if nothing else ids
    picked = {name: x.index_select(1, ids) for name, x in chunks.items()}
    if nothing:
        picked["mask"].zero_()
    return Batch(picked, {name: x.index_select(0, ids) for name, x in carry.items()}, steps)


def losses(
    policy: TrialPolicy, batch: Batch, config: PPOConfig, belief: BeliefConfig | None = None
) -> dict[str, Tensor]:
    """Policy, value, entropy and belief terms of one minibatch, with KL and clip share.

    Each is this rank's part of the mean over the minibatch: summed over ranks it is the mean.
    """
    x = batch.trials
    weight = x["mask"] / batch.steps
    features, seen, _ = policy.remember(
        x["obs"], x["prev_action"], x["prev_reward"], x["prev_done"], batch.carry
    )
    std = policy.log_std.exp()
    noise = (x["action"] - policy.action_mean(features, seen)) / std
    log_prob = gaussian_log_prob(noise, std)
    surrogate = clipped_surrogate(log_prob, x["log_prob"], x["advantage"], config.clip)
    value = policy.value(features, seen, x["task"])
    log_ratio = log_prob.detach() - x["log_prob"]
    terms = {
        "policy": (surrogate * weight).sum(),
        "value": (value_error(value, x, config) * weight).sum(),
        "entropy": (policy.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum() * weight.sum(),
        "kl": ((log_ratio.exp() - 1 - log_ratio) * weight).sum(),
        "clipped": (((log_ratio.exp() - 1).abs() > config.clip).float() * weight).sum(),
    }
    if belief:
        inferred = features if belief.shapes_memory else features.detach()
        nll = gaussian_nll(*policy.belief(inferred), x["task"])
        terms["belief"] = (nll * weight).sum()
    return terms


def value_error(value: Tensor, x: dict[str, Tensor], config: PPOConfig) -> Tensor:
    """The value loss per step, (L, N), of a minibatch `x`."""
    if config.value_loss == "clipped_huber":
        return clipped_huber(value, x["value"], x["return"], config.clip)
    return 0.5 * (value - x["return"]) ** 2


def total_loss(
    terms: dict[str, Tensor], config: PPOConfig, belief: BeliefConfig | None = None
) -> Tensor:
    """The weighted sum that is minimised."""
    loss = terms["policy"] + config.value_coef * terms["value"]
    loss = loss - config.entropy_coef * terms["entropy"]
    return loss + belief.coef * terms["belief"] if belief else loss
