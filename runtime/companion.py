"""A second policy on a session's live observations: its actions are compared, not sent.

Before a swap it is the candidate, in the shadow. After a swap the roles are changed: the
policy before, the incumbent, runs along until the new one has served its probation, so
that it can take over again within one tick with the memory it would have had.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.guard import ActionLimits, limited
from runtime.history import Boundary
from runtime.memory import Memory
from runtime.messages import Limit
from runtime.noise import step_noise
from runtime.spec import Boundaries
from runtime.stepper import Stepper

AGREEMENT = 0.05
"""Two actions agree if no element differs by more than this fraction of its range."""
CLAMPED = int(Limit.BOUNDS | Limit.RATE)
# Plain integers: an operation on an enum's member takes a microsecond.
_TASK, _EPISODE, _GAP, _FROZEN = (
    int(b) for b in (Boundary.TASK, Boundary.EPISODE, Boundary.GAP, Boundary.FROZEN)
)
_UNSEEN = int(Boundary.GAP | Boundary.UNSEEN)
MIN_TICKS = 20
"""Ticks before a rate of clamped actions is judged ..."""
CLAMP_FLOOR = 0.05
"""... and a rate that is never too high."""


def carry_before(
    rules: Boundaries,
    boundary: int,
    carry: Sequence[Any],
    prior: Sequence[Any],
    transient: Sequence[int],
) -> Sequence[Any]:
    """The carry that a step begins with: the one before, or the prior if the policy says so.

    Args:
        rules: of the policy.
        boundary: what lies before the step, of `Boundary`.
        carry, prior: the tensors, in the manifest's order.
        transient: which of them are about the observation just before.
    """
    if not boundary:
        return carry
    fresh = boundary & _TASK
    fresh = fresh or (boundary & _EPISODE and rules.episode == "prior")
    fresh = fresh or (boundary & _GAP and rules.gap == "prior")
    if fresh:
        return prior
    if boundary & _UNSEEN and transient:
        return [prior[k] if k in transient else value for k, value in enumerate(carry)]
    return carry


@dataclass
class Companion:
    """The second policy of one session, and how its actions compare."""

    stepper: Stepper
    carry: Sequence[bytes | memoryview]
    options: bytes
    memory: Memory | None = None
    """The incumbent's record, silent while the new policy is on trial."""
    position: int = 0
    """In the session's present ring: the first transition that the incumbent's record lacks."""
    ticks: int = 0
    agreed: int = 0
    inference_ns: int = 0
    action: NDArray[np.float32] | None = None  # (A,), of the last tick, within bounds
    broken: str = ""
    """Why it does not run any more."""
    _differences: NDArray[np.float64] = field(init=False)  # (A,), sums

    def __post_init__(self) -> None:
        manifest = self.stepper.policy.manifest
        self.limits = ActionLimits.of(manifest)
        self._range = self.limits.high - self.limits.low
        self._differences = np.zeros(manifest.action_size)

    @property
    def label(self) -> str:
        """``name@version``."""
        return self.stepper.policy.label

    def step(self, session: int, seq: int, boundary: int, row: bytes) -> None:
        """Step along; what goes wrong here stays here."""
        if self.broken:
            return
        stepper, rules = self.stepper, self.stepper.policy.manifest.boundaries
        carry = carry_before(rules, boundary, self.carry, stepper.prior, stepper.transient)
        noise = step_noise(session, seq, stepper.noise_size) if stepper.noise_size else None
        try:
            stepper.choose(1)
            stepper.load(0, row, carry, self.options, noise)
            stepper.run()
        except Exception as error:
            self.broken = f"it failed: {str(error)[:200]}"
            return
        if not stepper.whole():
            self.broken = "its output is not finite"
            return
        kept = carry if boundary & _FROZEN else stepper.carry_of(0)
        self.carry = [bytes(value) for value in kept]
        self.action = limited(stepper.action[0].copy(), None, self.limits).action

    def compare(self, action: NDArray[np.float32], inference_ns: int) -> None:
        """Take in the other policy's action, within bounds, and how long this one's step took."""
        if self.action is None or self.broken:
            return
        difference = np.abs(self.action - action)
        self._differences += difference
        self.ticks += 1
        self.agreed += bool((difference <= AGREEMENT * self._range).all())
        self.inference_ns += inference_ns

    def report(self) -> dict[str, Any]:
        """For `status`: mean difference per element, agreement, latency."""
        ticks = max(self.ticks, 1)
        return {
            "policy": self.label,
            "ticks": self.ticks,
            "difference": [round(float(d), 6) for d in self._differences / ticks],
            "agreement": round(self.agreed / ticks, 4),
            "inference_us": round(self.inference_ns / ticks / 1000, 1),
            "broken": self.broken or None,
        }


@dataclass
class Probation:
    """A new policy's first ticks."""

    left: int
    clamp_rate_before: float
    """Of the policy before: the fraction of its actions that bounds or rate changed."""
    period_ns: int
    ticks: int = 0
    clamped: int = 0

    def judge(self, limits: int, healthy: bool, inference_ns: int) -> str | None:
        """Take in a tick.

        Returns:
            Why the policy before has to come back; None if all is well.
        """
        self.left -= 1
        self.ticks += 1
        self.clamped += bool(limits & CLAMPED)
        if not healthy:
            return "its output is not finite"
        if inference_ns > self.period_ns:
            return (
                f"a step took {inference_ns / 1e6:.1f} ms of a control period of "
                f"{self.period_ns / 1e6:.1f} ms"
            )
        rate, allowed = self.clamped / self.ticks, max(2 * self.clamp_rate_before, CLAMP_FLOOR)
        if self.ticks >= MIN_TICKS and rate > allowed:
            return (
                f"{100 * rate:.0f} % of its actions were clamped, of the policy before "
                f"{100 * self.clamp_rate_before:.0f} %"
            )
        return None
