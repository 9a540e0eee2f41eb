"""Durations counted by buckets, many at a time."""

import numpy as np

BOUNDS_S = np.array([
    25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 25.6e-3,
    51.2e-3, 0.1024, 0.2048, 0.5, 1.0,
])  # fmt: skip
"""Upper ends [s]: doubling from a quarter of a small policy's inference to a missed second."""


class Histogram:
    """How many durations fell into each bucket, and their sum."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(BOUNDS_S) + 1, np.int64)
        """By bucket, not cumulative; the last one has no upper end."""
        self.sum_s = 0.0

    def add(self, durations_s: np.ndarray) -> None:
        """Take durations in, (n,) [s]."""
        buckets = np.searchsorted(BOUNDS_S, durations_s)  # a bound belongs to its bucket
        self.counts += np.bincount(buckets, minlength=len(self.counts))
        self.sum_s += float(durations_s.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper end and how many were not above it, as Prometheus wants them."""
        ends = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
        return list(zip(ends, np.cumsum(self.counts).astype(float).tolist(), strict=True))
