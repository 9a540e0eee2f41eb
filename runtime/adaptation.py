"""How adapted is a session: read from the width of its belief, with hysteresis."""

import math

from runtime.messages import Adaptation
from runtime.policy import Arrays, Policy

BEGUN = 0.8
"""Below this fraction of the width at the prior, a session is adapting."""
REACHED = 0.35
"""Below this fraction it is adapted ..."""
LOST = 0.5
"""... until it is above this one again."""


class AdaptationMonitor:
    """Follows one session's belief.

    The measure is the mean standard deviation over the belief's variance outputs, as a
    fraction of what it is when nothing is known (`Policy.prior_belief`). A policy without
    a variance output counts steps instead: adapted after its context window, or after
    `STEPS_WITHOUT_BELIEF`.
    """

    STEPS_WITHOUT_BELIEF = 100

    def __init__(self, policy: Policy):
        manifest = policy.manifest
        self._variances = [b.name for b in manifest.belief if b.role == "variance"]
        if policy.prior_belief is None:
            self._variances = []
        else:
            self._prior_width = max(self._width(policy.prior_belief), 1e-12)
        self._enough = manifest.context_window or self.STEPS_WITHOUT_BELIEF
        self.forget()

    def handed_over(self, policy: Policy) -> "AdaptationMonitor":
        """A monitor of another policy that goes on from what this one has seen."""
        heir = AdaptationMonitor(policy)
        heir.resume(self.status, self.steps)
        return heir

    def resume(self, status: Adaptation, steps: int) -> None:
        """Go on from a status, so many steps after the prior."""
        self.status, self.steps = status, steps

    def forget(self) -> None:
        """A task boundary."""
        self.status = Adaptation.UNADAPTED
        self.steps = 0

    def invalidate(self) -> None:
        """The policy's output or memory was not finite."""
        self.status = Adaptation.INVALID

    def follow(self, belief: Arrays, row: int = 0) -> Adaptation:
        """Take in the belief after a step, (B, ...) per output, of which one row counts."""
        self.steps += 1
        if self._variances:
            self.status = self._from_width(belief, row)
        elif self.steps >= self._enough:
            self.status = Adaptation.ADAPTED
        else:
            self.status = Adaptation.ADAPTING
        return self.status

    def _from_width(self, belief: Arrays, row: int) -> Adaptation:
        fraction = self._width(belief, row) / self._prior_width
        if not math.isfinite(fraction):
            return Adaptation.INVALID
        if fraction < REACHED or (fraction < LOST and self.status == Adaptation.ADAPTED):
            return Adaptation.ADAPTED
        return Adaptation.ADAPTING if fraction < BEGUN else Adaptation.UNADAPTED

    def _width(self, belief: Arrays, row: int = 0) -> float:
        # Plain floats: for the few numbers of a belief, numpy's calls would cost more.
        total, count = 0.0, 0
        for name in self._variances:
            values = belief[name]
            if values.size == len(values):  # one number per row
                total += _root(values.item(row))
                count += 1
                continue
            deviations = [_root(value) for value in values[row].ravel().tolist()]
            total += sum(deviations)
            count += len(deviations)
        return total / max(count, 1)


def _root(variance: float) -> float:
    return math.sqrt(variance) if variance >= 0 else math.nan
