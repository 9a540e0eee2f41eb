"""PEARL's networks: what a robot needs of it, an encoder of evidence and an actor.

Rakelly et al. 2019, section 4. Shapes: ``O`` observation, ``A`` action, ``L`` latent task variable
z, ``C`` one transition as the encoder reads it; ``...`` any leading axes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks import RunningNormaliser, mlp
from training.pearl_config import ContextNetworkConfig

LEAST_VARIANCE = 1e-7
"""Of a factor: no single transition is certain evidence."""

LOG_STD = (-20.0, 2.0)
"""Range of the log-deviation of actions before the tanh (Haarnoja et al. 2018)."""


class ContextEncoder(nn.Module):
    """One Gaussian factor per transition (Rakelly et al. 2019, section 4.1)."""

    def __init__(self, transition_size: int, hidden_sizes: tuple[int, ...], latent: int):
        super().__init__()
        self.latent = latent
        # Small at first: factors begin alike, with a variance of softplus(0) = 0.69 each.
        self.layers = mlp((transition_size, *hidden_sizes, 2 * latent), 0.1, nn.ReLU)

    def forward(self, transition: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) to mean and variance, (..., L) each."""
        mean, raw = self.layers(transition).chunk(2, dim=-1)
        return mean, _softplus(raw).clamp(min=LEAST_VARIANCE)


def _softplus(x: Tensor) -> Tensor:
    """(..., N). What is exported computes whole packets of 16 numbers.

    ONNX Runtime computes what is left over of a packet another way, to other bits: those of a row
    would depend on how many rows there are.
    """
    if not torch.compiler.is_exporting():
        return functional.softplus(x)
    size = x.shape[-1]
    return functional.softplus(functional.pad(x, (0, -size % 16)))[..., :size]


class ContextPolicy(nn.Module):
    """Everything a robot needs: the encoder, the actor, and what normalises their inputs."""

    def __init__(
        self,
        config: ContextNetworkConfig,
        observation_size: int,
        action_size: int,
        sparse_reward: bool = False,
    ):
        """
        Args:
            config: sizes.
            observation_size: O.
            action_size: A.
            sparse_reward: rewards come seldom; see `RunningNormaliser`.
        """
        super().__init__()
        self.observation_size, self.action_size = observation_size, action_size
        self.latent = config.latent
        self.context = config.context
        self.next_observation = config.next_observation
        self.normalise = config.normalise
        self.usual_disagreement = math.inf
        """Of evidence of one task; measured once the policy is trained (`training.pearl_doubt`)."""
        self.obs_normaliser = RunningNormaliser(observation_size)
        self.reward_normaliser = RunningNormaliser(1, rare=sparse_reward)
        observations = 2 if config.next_observation else 1
        transition_size = observations * observation_size + action_size + 1
        self.encoder = ContextEncoder(transition_size, config.encoder_sizes, config.latent)
        sizes = (observation_size + config.latent, *config.actor_sizes, 2 * action_size)
        self.actor = mlp(sizes, 0.01, nn.ReLU)

    def seen(self, observation: Tensor) -> Tensor:
        """Observations (..., O) as the networks read them."""
        return self.obs_normaliser(observation) if self.normalise else observation

    def transition(
        self, observation: Tensor, action: Tensor, reward: Tensor, next_observation: Tensor
    ) -> Tensor:
        """One transition as the encoder reads it.

        Args:
            observation: (..., O), raw.
            action: (..., A), as applied.
            reward: (..., 1), raw.
            next_observation: (..., O), raw; not looked at without `next_observation`.

        Returns:
            (..., C).
        """
        reward = self.reward_normaliser(reward) if self.normalise else reward
        parts = [self.seen(observation), action, reward]
        if self.next_observation:
            parts.append(self.seen(next_observation))
        return torch.cat(parts, dim=-1)

    def act(self, observation: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The action's Gaussian before its tanh, as if z (..., L) were the task.

        Args:
            observation: (..., O), raw.
            z: (..., L).

        Returns:
            Mean and log-deviation, (..., A) each; actions in [-1, 1] are their samples' tanh.
        """
        return self.act_seen(self.seen(observation), z)

    def act_seen(self, seen: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """As `act`, of what `seen` made of the observation."""
        mean, log_std = self.actor(torch.cat((seen, z), dim=-1)).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD)
