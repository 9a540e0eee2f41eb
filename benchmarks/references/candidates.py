"""The goals that a trial's rewards have not ruled out, and steering towards one of them."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Candidates:
    """Which of k goals are still possible, for each of n simulations."""

    def __init__(self, n: int, k: int):
        self.possible = np.ones((n, k), bool)

    def keep(self, agree: NDArray[np.bool_], known: NDArray[np.bool_]) -> None:
        """Keep the goals that `agree` (n, k) with what was paid, where that is `known` (n,).

        Where none would remain nothing is ruled out.
        """
        kept = self.possible & agree
        self.possible = np.where((known & kept.any(axis=1))[:, None], kept, self.possible)

    def nearest(self, distance: Floats) -> NDArray[np.intp]:
        """The possible goal of least `distance` (n, k), the first of equals, (n,)."""
        return np.argmin(np.where(self.possible, distance, np.inf), axis=1)


def towards(position: Floats, target: Floats, reach: float) -> NDArray[np.float32]:
    """The action (n, 2) that moves `reach` per axis at 1, from `position` to `target` (n, 2)."""
    return np.clip((target - position) / reach, -1, 1).astype(np.float32)
