"""Soft actor critic: twin critics, a squashed Gaussian, their losses (Haarnoja et al. 2018).

Shapes: ``N`` transitions, ``A`` action, ``X`` whatever the critics read. The two critics are one
module, whose weights lie behind each other.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class TwinCritic(nn.Module):
    """Two action-value functions of the same sizes, of independent initial weights."""

    def __init__(self, input_size: int, hidden_sizes: Sequence[int]):
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in pairwise((input_size, *hidden_sizes, 1)):
            gain = math.sqrt(2) if after > 1 else 1.0
            pair = [nn.init.orthogonal_(torch.empty(after, before), gain).t() for _ in range(2)]
            self.weights.append(nn.Parameter(torch.stack(pair)))  # (2, before, after)
            self.biases.append(nn.Parameter(torch.zeros(2, 1, after)))

    def forward(self, x: Tensor, learning: bool = True) -> Tensor:
        """Values of (N, X), as (2, N).

        Args:
            x: observation, action, and whatever else tells the task.
            learning: False lets gradients reach `x` and spares those of the weights.
        """
        layers = list(zip(self.weights, self.biases, strict=True))
        if not learning:
            layers = [(weight.detach(), bias.detach()) for weight, bias in layers]
        if x.is_cpu:  # where a batched product's gradient takes twice as long as two products'
            each = zip(*(zip(w.unbind(), b.unbind(), strict=True) for w, b in layers), strict=True)
            return torch.stack([_values(torch.addmm, x, list(one)) for one in each])
        return _values(torch.baddbmm, x.expand(2, *x.shape), layers)


def _values(
    affine: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    layers: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """A network with rectifiers; (..., N, X) to (..., N)."""
    for weight, bias in layers[:-1]:
        x = affine(bias, x, weight).relu_()
    weight, bias = layers[-1]
    return affine(bias, x, weight).squeeze(-1)


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of a Gaussian's tanh, and its log-density.

    Args:
        mean, log_std: of the Gaussian before the tanh, (..., A).
        noise: standard normal, (..., A).

    Returns:
        The action (..., A) in (-1, 1), and (...), with the tanh's Jacobian (their appendix C):
        log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which does not overflow.
    """
    raw = mean + log_std.exp() * noise
    gaussian = -(0.5 * noise.square() + log_std + 0.5 * math.log(2 * math.pi))
    jacobian = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
    return raw.tanh(), (gaussian - jacobian).sum(-1)


def soft_target(
    reward: Tensor,
    terminated: Tensor,
    next_values: Tensor,
    next_log_prob: Tensor,
    temperature: Tensor,
    discount: float,
) -> Tensor:
    """What the critics should say: reward, then the soft value of the next state (equation 3).

    Args:
        reward: scaled, (N,).
        terminated: 1 where the next state is terminal and worth nothing, (N,).
        next_values: of the target critics and a sampled action, (2, N); the lower one counts.
        next_log_prob: of that action, (N,).
        temperature: weight of the entropy.
        discount: per step.

    Returns:
        (N,).
    """
    soft = next_values.amin(0) - temperature * next_log_prob
    return reward + discount * (1.0 - terminated) * soft


def critic_loss(values: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the values (2, N), summed over the two critics (equation 5)."""
    return (values - target).square().mean(1).sum()


def actor_loss(values: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """What the actor lowers: less value, less entropy (equation 7); values (2, N)."""
    return (temperature * log_prob - values.amin(0)).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Raises the temperature while the entropy -log_prob is below its target (equation 18)."""
    return -log_temperature * (log_prob.mean() + target_entropy)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move the target's parameters by `rate` of the way to the source's."""
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, rate)
