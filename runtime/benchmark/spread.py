"""Medians with their spread, and the alternation that makes ratios fair."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

T = TypeVar("T")
U = TypeVar("U")


def in_turn(first: Callable[[], T], second: Callable[[], U], repeats: int) -> list[tuple[T, U]]:
    """Measure two things in turn, so that what slows the machine slows both."""
    return [(first(), second()) for _ in range(repeats)]


def alternate(
    first: Callable[[], float], second: Callable[[], float], repeats: int
) -> tuple[np.ndarray, np.ndarray]:
    """`in_turn` of two numbers, (repeats,) each."""
    pairs = in_turn(first, second, repeats)
    return np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])


def spread(values: np.ndarray, form: str = ",.0f") -> str:
    """``median (lowest to highest)``."""
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def percentiles_us(times_s: np.ndarray, *points: float) -> tuple[float, ...]:
    """Percentiles of times [s], in us; those that are not finite, as of ticks left out, aside."""
    found = times_s[np.isfinite(times_s)]
    return tuple(map(float, np.percentile(1e6 * found, points)))


def slope(times: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """The slope of a straight line through points by least squares, and its standard error.

    The error takes the deviations from the line for independent. Both are nan where there
    are fewer than three points.
    """
    if len(times) < 3:
        return float("nan"), float("nan")
    t = times - times.mean()
    rise = float(t @ (values - values.mean()) / (t @ t))
    deviation = values - values.mean() - rise * t
    return rise, float(np.sqrt(deviation @ deviation / (len(t) - 2) / (t @ t)))
