"""Medians with their spread, and the alternation that makes ratios fair."""

from collections.abc import Callable

import numpy as np


def alternate(
    first: Callable[[], float], second: Callable[[], float], repeats: int
) -> tuple[np.ndarray, np.ndarray]:
    """Measure two things in turn, so that what slows the machine slows both."""
    pairs = [(first(), second()) for _ in range(repeats)]
    return np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])


def spread(values: np.ndarray, form: str = ",.0f") -> str:
    """``median (lowest to highest)``."""
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"
