"""PEARL's gradient step: all tasks of the meta-batch in one pass.

Rakelly et al. 2019, algorithm 1.

Shapes: ``M`` tasks of the meta-batch, ``N`` transitions of each, ``K`` transitions of context,
``O`` observation, ``A`` action, ``L`` latent, ``C`` a transition as the encoder reads it.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.networks import mlp
from training.pearl_config import PEARLConfig
from training.pearl_networks import ContextEncoder, ContextPolicy
from training.posterior import divergence, product
from training.ppo import gaussian_nll
from training.replay_buffer import Transitions
from training.sac import (
    TwinCritic,
    actor_loss,
    critic_loss,
    follow,
    soft_target,
    squashed_sample,
    temperature_loss,
)

TASK_ENCODER_SIZES = (64,)
"""Its hidden layers: a task is a few numbers."""

TERMS = ("critic", "kl", "actor", "temperature", "task", "match")
"""Of the loss; `task` only where the task is read out of z, `match` only with a task encoder."""


@dataclass(frozen=True)
class MetaBatch:
    """What one gradient step learns from."""

    steps: Transitions
    """(M, N, ...), from replay."""
    context: Transitions
    """(M, K, ...), the evidence that z is inferred from."""
    counted: Tensor | None
    """(M, K, 1) bool: which of it counts; None: all."""
    task: Tensor
    """(M, D), the tasks' features in simulation."""


class PEARLLearner(nn.Module):
    """The networks that learn together; `learn` makes one step of all of them."""

    def __init__(self, config: PEARLConfig, policy: ContextPolicy, task_size: int):
        """
        Args:
            config: of the run.
            policy: what is trained.
            task_size: D.
        """
        super().__init__()
        self.config, self.policy = config, policy
        told = task_size if config.privileged_critic else policy.latent
        inputs = policy.observation_size + policy.action_size + told
        self.critic = TwinCritic(inputs, config.network.critic_sizes)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.task_head = mlp((policy.latent, 64, 2 * task_size), 0.01, nn.ReLU)
        self.task_encoder = (
            ContextEncoder(task_size, TASK_ENCODER_SIZES, policy.latent)
            if config.task_encoder
            else None
        )
        fixed = config.sac.temperature
        self.log_temperature = nn.Parameter(
            torch.tensor(fixed or 1.0).log(), requires_grad=fixed is None
        )

    def learned(self) -> list[nn.Parameter]:
        """Of the optimiser: all but the target critics', which follow, and what is fixed."""
        return [p for p in self.parameters() if p.requires_grad]

    def learn(
        self, batch: MetaBatch, generator: torch.Generator, optimiser: torch.optim.Optimizer
    ) -> Tensor:
        """One gradient step; the terms of the loss, in the order of `terms`."""
        terms = self.losses(batch, generator)
        torch.stack([self._weight(name) * term for name, term in terms.items()]).sum().backward()
        self.update(optimiser)
        return torch.stack([term.detach() for term in terms.values()])

    def update(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the step that the gradients say; the target critics follow."""
        optimiser.step()
        optimiser.zero_grad()
        follow(self.target_critic, self.critic, self.config.sac.target_rate)

    def terms(self) -> list[str]:
        """Names of the terms of the loss."""
        return [name for name in TERMS if self._weight(name)]

    def _weight(self, name: str) -> float:
        config = self.config
        weights = {
            "kl": config.kl_coef,
            "task": config.task_coef,
            "match": config.task_coef if config.task_encoder else 0.0,
        }
        return weights.get(name, 1.0)

    def losses(self, batch: MetaBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of the loss, unweighted, by name.

        The encoder learns from the critics through z, and from the divergence; the actor takes z
        as given. No two of the critics, the actor and the temperature share a gradient, so that
        the terms can be added up.
        """
        config, policy, steps = self.config, self.policy, batch.steps
        z, inference = self._infer(batch, generator)
        per_task = steps.reward.shape[1]
        given = z.detach().repeat_interleave(per_task, 0)  # (M N, L)
        told = batch.task if config.privileged_critic else z
        told = told.repeat_interleave(per_task, 0)
        flat = Transitions(*(part.flatten(0, 1) for part in vars(steps).values()))
        seen, noise = policy.seen(flat.observation), self._noise(generator, 2, *flat.action.shape)
        temperature = self.log_temperature.detach().exp()
        with torch.no_grad():
            target = self._target(flat, given, told, temperature, noise[0])
        values = self.critic(torch.cat((seen, flat.action, told), -1))
        mean, log_std = policy.act_seen(seen, given)
        action, log_prob = squashed_sample(mean, log_std, noise[1])
        promised = self.critic(torch.cat((seen, action, told.detach()), -1), learning=False)
        entropy = -float(policy.action_size)
        found = inference | {
            "critic": critic_loss(values, target),
            "actor": actor_loss(promised, log_prob, temperature),
            "temperature": temperature_loss(self.log_temperature, log_prob.detach(), entropy),
        }
        return {name: found[name] for name in self.terms()}

    def _infer(
        self, batch: MetaBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The z to act on (M, L), and what trains its encoders: terms of the loss.

        With a task encoder that z is made of the task: an actor can follow what no context tells
        yet. The context's belief is to match the task's. So one that tells nothing comes to be
        the spread of z over tasks, and samples of it lead to where some task pays.
        """
        seen = batch.context
        read = self.policy.transition(
            seen.observation, seen.action, seen.seen_reward, seen.next_observation
        )
        inferred = product(*self.policy.encoder(read), mask=batch.counted)
        told = inferred if self.task_encoder is None else self.task_encoder(batch.task)
        z = told[0] + told[1].sqrt() * self._noise(generator, *told[0].shape)
        taught = (told[0].detach(), told[1].detach())
        return z, {
            "kl": divergence(told).sum(),
            "task": self._read_out(z, batch.task),
            "match": divergence(taught, inferred).mean(),
        }

    def _read_out(self, z: Tensor, task: Tensor) -> Tensor:
        """How badly z (M, L) tells the task (M, D): its negative log-likelihood."""
        told, log_variance = self.task_head(z).chunk(2, dim=-1)
        return gaussian_nll(told, log_variance.clamp(-10.0, 4.0), task).mean()

    def _target(
        self, steps: Transitions, z: Tensor, told: Tensor, temperature: Tensor, noise: Tensor
    ) -> Tensor:
        seen = self.policy.seen(steps.next_observation)
        action, log_prob = squashed_sample(*self.policy.act_seen(seen, z), noise)
        return soft_target(
            self.config.sac.reward_scale * steps.reward.squeeze(-1),
            steps.terminated.squeeze(-1),
            self.target_critic(torch.cat((seen, action, told), -1)),
            log_prob,
            temperature,
            self.config.sac.discount,
        )

    def _noise(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=self.log_temperature.device)
