"""The belief of PEARL: a product of Gaussian factors, one per transition (Rakelly et al. 2019).

Shapes: ``...`` any batch, ``T`` transitions, ``K`` the last of them that count, ``L`` latent.

The posterior over the task variable z is the product of independent factors N(mu_n, s_n)
(section 4.1): precision sum(1 / s_n), mean sum(mu_n / s_n) over that precision. The prior N(0, 1)
stands for an empty context alone: it is not a factor of the product.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


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
    precisions = variances.reciprocal()
    weighted = means * precisions
    if mask is not None:  # not multiplied: NaN times 0 is NaN
        precisions = torch.where(mask.bool(), precisions, 0.0)
        weighted = torch.where(mask.bool(), weighted, 0.0)
    precision, weighted = precisions.sum(dim), weighted.sum(dim)
    if mask is not None or not means.shape[dim]:
        # A factor's precision is above zero, so that a sum of zero has no factors in it.
        precision = torch.where(precision > 0, precision, 1.0)
    return weighted / precision, precision.reciprocal()


def divergence(mean: Tensor, variance: Tensor) -> Tensor:
    """KL divergence of N(mean, variance) from the prior N(0, 1) [nats], (..., L) to (...)."""
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)


@dataclass(frozen=True)
class Posterior:
    """The belief over a stream: the last K factors, and how many of them there are yet.

    The product is taken anew over all of them each time. Running sums would drift, and could not
    let go of a factor of precision 1e7 without losing those of precision 1 beside it.
    """

    factors: Tensor
    """(B, 2 L, K), means above variances, the newest factor first; N(0, 1) where there is none
    yet. Time is the last axis so that sums run along memory: ONNX Runtime would take another path
    through any other axis for one row than for many, to other bits."""
    count: Tensor
    """(B, 1) float: how many there are, up to K."""

    @classmethod
    def prior(
        cls, batch: int, context: int, latent: int, device: torch.device | str = "cpu"
    ) -> "Posterior":
        """No evidence yet, for B streams that remember K = `context` transitions."""
        zeros = torch.zeros(batch, latent, context, device=device)
        return cls(torch.cat((zeros, zeros + 1), 1), torch.zeros(batch, 1, device=device))

    def add(self, mean: Tensor, variance: Tensor, valid: Tensor | None = None) -> "Posterior":
        """Take in one factor per stream; the oldest one leaves where there are K.

        Args:
            mean, variance: (B, L).
            valid: (B, 1) bool; a stream whose factor is not valid stays as it is.
        """
        context = self.factors.shape[-1]
        newest = torch.cat((mean, variance), -1).unsqueeze(-1)
        factors = torch.cat((newest, self.factors[..., :-1]), -1)
        if valid is None:
            return Posterior(factors, (self.count + 1).clamp(max=context))
        factors = torch.where(valid.unsqueeze(-1), factors, self.factors)
        return Posterior(factors, (self.count + valid.to(self.count)).clamp(max=context))

    def mean_and_variance(self, window: Tensor | int | None = None) -> tuple[Tensor, Tensor]:
        """The posterior (B, L) each; N(0, 1) while there is no factor.

        Args:
            window: use the newest factors only, so many: a number or (B, 1); None: all K.
        """
        ages = torch.arange(self.factors.shape[-1], device=self.factors.device)
        used = self.count if window is None else torch.clamp(self.count, max=window)  # type: ignore[reportCallIssue, reportArgumentType]  # a number or a tensor
        # While there is none, the first place is N(0, 1): its product alone is the prior.
        counts = (ages < used.clamp(min=1)).unsqueeze(1)
        means, variances = self.factors.chunk(2, 1)
        return product(means, torch.where(counts, variances, torch.inf), dim=-1)
