"""A policy's belief outputs with names: what it believes of the task, and how surely."""

import math
from typing import NamedTuple

import numpy as np

from runtime.spec import Manifest


class Belief(NamedTuple):
    """One number that a policy believes in, and where it lies in the belief of a tick."""

    name: str
    unit: str
    mean: int
    """Index of its mean among all belief outputs, flattened in the manifest's order."""
    variance: int | None
    low: float | None
    """Range of the task parameter in meta-training."""
    high: float | None


def beliefs(manifest: Manifest) -> list[Belief]:
    """What a policy's belief means, one entry per number.

    The means are those of the task's parameters, in order, if there are as many.
    """
    means, variances = _indices(manifest, "mean"), _indices(manifest, "variance")
    paired = variances if len(variances) == len(means) else [None] * len(means)
    task = list(manifest.task_ranges.items())
    if len(task) != len(means):
        return [Belief(f"belief {i}", "", m, v, None, None)
                for i, (m, v) in enumerate(zip(means, paired, strict=True))]  # fmt: skip
    return [
        Belief(name, found.unit, mean, variance, found.low, found.high)
        for (name, found), mean, variance in zip(task, means, paired, strict=True)
    ]


def band(belief: Belief, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and two standard deviations.

    Args:
        belief: which.
        values: (..., n), all belief outputs.

    Returns:
        (...) each; the deviation is nan where the policy tells none.
    """
    mean = values[..., belief.mean]
    if belief.variance is None:
        return mean, np.full_like(mean, math.nan)
    return mean, 2 * np.sqrt(np.maximum(values[..., belief.variance], 0))


def _indices(manifest: Manifest, role: str) -> list[int]:
    """Where the numbers of a role lie among all belief outputs, flattened."""
    found, at = [], 0
    for output in manifest.belief:
        size = math.prod(output.shape)
        found += range(at, at + size) if output.role == role else ()
        at += size
    return found
