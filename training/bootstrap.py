"""Percentile bootstrap (Efron 1979) of a mean over held-out tasks, and over training seeds.

With one seed the tasks are drawn again, with replacement. With several, seeds and tasks are both
drawn again, each seed whole and each task whole: a two-way bootstrap (Owen 2007). Agarwal et al.
(2021, "Deep RL at the edge of the statistical precipice") draw the seeds anew for every task,
since there every task has a training of its own. In meta-RL one training plays all tasks: what is
particular to it is the same in all of them, and would be averaged away by drawing it per task.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 0
"""Of the resampling: the same returns give the same interval."""


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` (seeds, tasks), or (tasks,) of one seed."""
    values = np.atleast_2d(values)
    seeds, tasks = values.shape
    means = np.einsum("rs,st,rt->r", _weights(seeds, 1), values, _weights(tasks, 0), optimize=True)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def statistic(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean of `values`, shaped as in `interval`, and half the width of its 95 % interval."""
    low, high = interval(values)
    return {"mean": float(values.mean()), "ci95": (high - low) / 2}


@lru_cache(maxsize=16)
def _weights(n: int, stream: int) -> NDArray[np.float64]:
    """How often each of n is drawn in each resample, over n; (resamples, n)."""
    rng = np.random.default_rng((SEED, stream))
    return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
