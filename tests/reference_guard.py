"""The reference's guard: which observations may be acted on, which actions may leave, and
which policies may stay."""

from typing import NamedTuple

import numpy as np

from runtime.messages import Limit
from runtime.spec import Manifest

SAME_CLOCK_NS = 60_000_000_000
TOO_NEAR_NS = 30_000_000
"""An age so near to the limit is not judged: clocks may drift, and nobody cares."""


class Limits(NamedTuple):
    """The configuration of a daemon."""

    max_age_ns: int
    stuck_ticks: int
    stop_after: int
    probation_ticks: int
    ring_size: int


class Watch(NamedTuple):
    """What is known of a sender's clock and of its last observation."""

    base_ns: int | None = None
    """Receiver's clock minus sender's, of the quickest delivery."""
    sent_ns: int = 0
    obs: bytes = b""
    same: int = 0

    def after(self, sent_ns: int, received_ns: int, obs: bytes) -> "Watch":
        """Having seen one more observation."""
        lag, base = received_ns - sent_ns, self.base_ns
        if base is None:
            base = 0 if 0 <= lag < SAME_CLOCK_NS else lag
        elif sent_ns < self.sent_ns or lag < base:
            base = lag
        return Watch(base, sent_ns, obs, self.same + 1 if obs == self.obs else 0)

    def age_ns(self, received_ns: int) -> int:
        """How old the last observation was when it was received."""
        assert self.base_ns is not None
        return received_ns - self.sent_ns - self.base_ns


def limited(
    action: np.ndarray, before: np.ndarray | None, manifest: Manifest
) -> tuple[np.ndarray, int]:
    """The action that may leave, (A,), and `Limit`; `before`: where the rate counts from."""
    elements = manifest.action
    low = np.array([e.low for e in elements], np.float32)
    high = np.array([e.high for e in elements], np.float32)
    bounded = np.clip(action, low, high)
    acted = 0 if bounded.tobytes() == action.tobytes() else int(Limit.BOUNDS)
    if before is None or all(e.max_rate is None for e in elements):
        return bounded, acted
    final, start = bounded.copy(), np.clip(before, low, high)
    for i, element in enumerate(elements):
        if element.max_rate is not None:
            step = np.float32(element.max_rate) / np.float32(manifest.control_hz)
            final[i] = np.clip(bounded[i], start[i] - step, start[i] + step)
    changed = final.tobytes() != bounded.tobytes()
    return final, acted | int(Limit.RATE) * changed


class Trial(NamedTuple):
    """A new policy's probation."""

    left: int
    clamped_before: float
    ticks: int = 0
    clamped: int = 0

    def after(self, clamped: bool) -> "Trial":
        return Trial(self.left - 1, self.clamped_before, self.ticks + 1, self.clamped + clamped)

    def fails(self, finite: bool, inference_ns: int, control_hz: float) -> bool:
        """Whether the policy is to be sent back."""
        allowed = max(2 * self.clamped_before, 0.05)
        too_often = self.ticks >= 20 and self.clamped / self.ticks > allowed
        return not finite or inference_ns > 1e9 / control_hz or too_often
