"""The belief of PEARL: a product of Gaussian factors, one per transition (Rakelly et al. 2019).

Shapes: ``...`` any batch, ``T`` transitions, ``K`` the last of them that count, ``L`` latent.

The posterior over the task variable z is the product of independent factors N(mu_n, s_n)
(section 4.1): precision sum(1 / s_n), mean sum(mu_n / s_n) over that precision. The prior N(0, 1)
stands for an empty context alone: it is not a factor of the product.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Gaussian = tuple[Tensor, Tensor]
"""Mean and variance, of independent dimensions."""


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


def divergence(belief: Gaussian, to: Gaussian | None = None) -> Tensor:
    """KL divergence of a belief from another one [nats], (..., L) each to (...).

    Args:
        belief: mean and variance, (..., L) each.
        to: what it is compared to; None: the prior N(0, 1).
    """
    mean, variance = belief
    if to is not None:
        mean, variance = (mean - to[0]) * to[1].rsqrt(), variance / to[1]
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)


DOUBTFUL = 1.5
"""Above this doubt, older factors do not count."""
DOUBT_WINDOW = 10
"""Factors that do, if not said otherwise."""
MOST_DOUBT = 10.0
"""A belief ten times as wide as its evidence makes it is as good as none."""


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
        # While there is none, the first place is N(0, 1): its product alone is the prior.
        counts = self._newest(self._used(window).clamp(min=1))
        means, variances = self.factors.chunk(2, 1)
        return product(means, torch.where(counts, variances, torch.inf), dim=-1)

    def disagreement(self, mean: Tensor, window: Tensor | int | None = None) -> Tensor:
        """How far the factors lie apart, for how sure each is: reduced chi-square, (B, 1).

        The width of a product does not tell whether its factors agree. Beliefs that mix evidence
        of two tasks are as narrow as others; their chi-square is not (the scatter that widens an
        average of unequal measurements: Birge 1932).

        Args:
            mean: of the posterior over the same window, (B, L).
            window: as of `mean_and_variance`.

        Returns:
            Around 1 where factors are independent and say how sure they are; 0 for fewer than two.
        """
        used = self._used(window)
        means, variances = self.factors.chunk(2, 1)
        distance = (means - mean.unsqueeze(-1)).square() / variances
        over_time = torch.where(self._newest(used), distance, 0.0).sum(-1)  # (B, L)
        return over_time.mean(-1, keepdim=True) / (used - 1).clamp(min=1)

    def believed(
        self,
        usual: float = math.inf,
        window: Tensor | int | None = None,
        doubt_window: Tensor | int = DOUBT_WINDOW,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What to go by when the task may change: the posterior, of fewer factors while in doubt.

        Args:
            usual: the disagreement that is no reason for doubt; infinity: there never is one.
            window: as of `mean_and_variance`.
            doubt_window: of so many of the newest factors the posterior is made while in doubt.

        Returns:
            Mean and variance (B, L), and the doubt (B, 1): the root of how many times the usual
            the disagreement over the whole window is, from 1 to `MOST_DOUBT`.
        """
        mean, variance = self.mean_and_variance(window)
        if math.isinf(usual):
            return mean, variance, torch.ones_like(self.count)
        squared = self.disagreement(mean, window) / usual
        doubt = squared.clamp(1.0, MOST_DOUBT**2).sqrt()
        used = self._used(window)
        few = torch.clamp(used, max=doubt_window)  # type: ignore[reportCallIssue, reportArgumentType]  # a number or a tensor
        mean, variance = self.mean_and_variance(torch.where(doubt > DOUBTFUL, few, used))
        return mean, variance, doubt

    def _used(self, window: Tensor | int | None) -> Tensor:
        """How many factors count, (B, 1)."""
        return self.count if window is None else torch.clamp(self.count, max=window)  # type: ignore[reportCallIssue, reportArgumentType]  # a number or a tensor

    def _newest(self, used: Tensor) -> Tensor:
        """Which of the K places are among the newest `used`, (B, 1, K)."""
        ages = torch.arange(self.factors.shape[-1], device=self.factors.device)
        return (ages < used).unsqueeze(1)
