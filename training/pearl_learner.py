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
from training.pearl_networks import ContextPolicy
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

TERMS = ("critic", "kl", "actor", "temperature", "task")
"""Of the loss; the last one only where the task is read out of z."""


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
        return [name for name in TERMS if name != "task" or self.config.task_coef]

    def _weight(self, name: str) -> float:
        return {"kl": self.config.kl_coef, "task": self.config.task_coef}.get(name, 1.0)

    def losses(self, batch: MetaBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of the loss, unweighted, by name.

        The encoder learns from the critics through z, and from the divergence; the actor takes z
        as given. No two of the critics, the actor and the temperature share a gradient, so that
        the terms can be added up.
        """
        config, policy, steps = self.config, self.policy, batch.steps
        z, kl, task = self._infer(batch, generator)
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
        found = {
            "critic": critic_loss(values, target),
            "kl": kl,
            "actor": actor_loss(promised, log_prob, temperature),
            "temperature": temperature_loss(self.log_temperature, log_prob.detach(), entropy),
        }
        return found if task is None else found | {"task": task}

    def _infer(
        self, batch: MetaBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """A sample of z (M, L), the divergence from the prior, the loss of reading out the task."""
        seen = batch.context
        read = self.policy.transition(
            seen.observation, seen.action, seen.seen_reward, seen.next_observation
        )
        mean, variance = product(*self.policy.encoder(read), mask=batch.counted)
        z = mean + variance.sqrt() * self._noise(generator, *mean.shape)
        kl = divergence(mean, variance).sum()
        if not self.config.task_coef:
            return z, kl, None
        told, log_variance = self.task_head(z).chunk(2, dim=-1)
        return z, kl, gaussian_nll(told, log_variance.clamp(-10.0, 4.0), batch.task).mean()

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
