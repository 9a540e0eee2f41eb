"""The belief of PEARL: a product of Gaussian factors, one per transition (Rakelly et al. 2019).

Shapes: ``...`` any batch, ``T`` transitions, ``K`` the last of them that count, ``L`` latent.

The posterior over the task variable z is the product of independent factors N(mu_n, s_n)
(section 4.1): precision sum(1 / s_n), mean sum(mu_n / s_n) over that precision. Both sums are
additive, so a factor's natural parameters (1 / s, mu / s) are what is kept and added up. The
prior N(0, 1) stands for an empty context alone: it is not a factor of the product.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


def natural(means: Tensor, variances: Tensor) -> Tensor:
    """Factors (..., L) as natural parameters (..., 2 L): precisions, then weighted means."""
    precisions = variances.reciprocal()
    return torch.cat((precisions, means * precisions), -1)


def moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (..., L) of summed natural parameters (..., 2 L); of none, the prior's.

    A factor's precision is above zero, so that a sum of zero has no factors in it.
    """
    precision, weighted = sums.chunk(2, -1)
    empty = precision <= 0
    variance = torch.where(empty, torch.ones_like(precision), precision).reciprocal()
    return variance * weighted, variance


def product(
    means: Tensor, variances: Tensor, dim: int = -2, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The product of Gaussian factors over one axis.

    Args:
        means, variances: of the factors, (..., T, L); variances above 0.
        dim: the axis of the factors, T.
        mask: which factors count, 1 or True, with a last axis of 1: (..., T, 1).

    Returns:
        Mean and variance (..., L); N(0, 1) where no factor counts.
    """
    factors = natural(means, variances)
    if mask is not None:
        factors = torch.where(mask.bool(), factors, 0.0)  # times 0 would keep a NaN
    return moments(factors.sum(dim))


def divergence(mean: Tensor, variance: Tensor) -> Tensor:
    """KL divergence of N(mean, variance) from the prior N(0, 1) [nats], (..., L) to (...)."""
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)


@dataclass(frozen=True)
class Posterior:
    """The belief over a stream: a ring of its last K factors.

    The sums are taken over the ring anew each time: running ones would drift, and could not
    forget a factor of precision 1e7 without losing those of precision 1.
    """

    factors: Tensor
    """(B, K, 2 L), natural parameters; zeros where there is none yet."""
    position: Tensor
    """(B, 1) float: the slot that the next factor is written to."""

    @classmethod
    def prior(cls, batch: int, context: int, latent: int) -> "Posterior":
        """No evidence yet, for B streams that remember K = `context` transitions."""
        return cls(torch.zeros(batch, context, 2 * latent), torch.zeros(batch, 1))

    def add(self, mean: Tensor, variance: Tensor, valid: Tensor | None = None) -> "Posterior":
        """Take in one factor per stream; the oldest one leaves where the ring is full.

        Args:
            mean, variance: (B, L).
            valid: (B, 1) bool; a stream whose factor is not valid stays as it is.
        """
        context = self.factors.shape[-2]
        here = torch.arange(context, device=self.factors.device) == self.position  # (B, K)
        if valid is not None:
            here = here & valid
        written = torch.where(
            here.unsqueeze(-1), natural(mean, variance).unsqueeze(-2), self.factors
        )
        moved = self.position + 1
        position = torch.where(moved >= context, torch.zeros_like(moved), moved)
        if valid is not None:
            position = torch.where(valid, position, self.position)
        return replace(self, factors=written, position=position)

    def mean_and_variance(self, window: Tensor | int | None = None) -> tuple[Tensor, Tensor]:
        """The posterior (B, L) each; N(0, 1) while there is no factor.

        Args:
            window: use the newest factors only, so many: a number or (B, 1); None: all K.
        """
        factors = self.factors
        if window is not None:
            context = factors.shape[-2]
            slots = torch.arange(context, device=factors.device)
            age = (self.position - 1 - slots).remainder(context)  # (B, K), 0: the newest
            factors = torch.where((age < window).unsqueeze(-1), factors, 0.0)
        return moments(factors.sum(-2))
