"""Gradients of all parameters in one piece of memory: reduced over ranks and clipped at once."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training.ranks import Ranks


class FlatGradients:
    """Owns the `grad` of every parameter; `compute` fills them.

    Behind the gradients lie the terms of the loss, so that one reduction serves both.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], max_norm: float, ranks: Ranks):
        """
        Args:
            parameters: of the network that is trained.
            max_norm: gradients are scaled down to this norm.
            ranks: over which gradients and terms are summed.
        """
        self.parameters = list(parameters)
        self.max_norm = max_norm
        self.ranks = ranks
        self._allocate(terms=0)

    def _allocate(self, terms: int) -> None:
        size = sum(p.numel() for p in self.parameters)
        self.reduced = torch.zeros(size + terms, device=self.parameters[0].device)
        self.flat, self.terms = self.reduced[:size], self.reduced[size:]
        for parameter, part in zip(
            self.parameters, self.flat.split([p.numel() for p in self.parameters]), strict=True
        ):
            parameter.grad = part.view_as(parameter)

    def compute(self, loss: Tensor, terms: dict[str, Tensor]) -> dict[str, float]:
        """Put the gradient of `loss`, summed over ranks and clipped, in place.

        Args:
            loss: this rank's share of the loss.
            terms: this rank's shares of what is to be reported.

        Returns:
            The terms, summed over ranks, and `gradient`, the norm before it was clipped.
        """
        if len(terms) != len(self.terms):
            self._allocate(len(terms))
        self.flat.zero_()
        loss.backward()
        torch.stack([term.detach() for term in terms.values()], out=self.terms)
        self.ranks.sum_(self.reduced)
        norm = self.flat.norm()
        self.flat.mul_((self.max_norm / (norm + 1e-6)).clamp(max=1.0))
        found = torch.cat((self.terms, norm.unsqueeze(0))).tolist()  # the one wait for a GPU
        return dict(zip((*terms, "gradient"), found, strict=True))
