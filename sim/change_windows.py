"""Time windows around changes of task: before, right after, and once adapted to."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FIRST, ADAPTED = 20, 60
"""Control steps that count as right after a change, and those after which it is adapted to."""
WINDOWS = ("before", f"first {FIRST}", f"after {ADAPTED}")
"""Headings for the three `windows`."""


def windows(at: int, since: int, until: int) -> tuple[slice, slice, slice]:
    """The steps before a change, right after it, and once it can have been adapted to.

    Args:
        at: the step before which the task changes.
        since: the step of the change before it, or 0: the first window begins no earlier,
            and is at most `ADAPTED` long.
        until: the step of the next change, or the end: the others end no later.
    """
    return (
        slice(max(since, at - ADAPTED), at),
        slice(at, min(at + FIRST, until)),
        slice(min(at + ADAPTED, until), until),
    )


def around(
    values: NDArray[np.floating], times: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean of `values` (T,) in the `windows` of changes before the steps `times`, (changes, 3).

    nan where a window is empty, and where a change does not happen: before 1 or after the end.
    """
    happened = sorted({0, len(values), *(t for t in times if 0 < t < len(values))})
    means = np.full((len(times), len(WINDOWS)), np.nan)
    for row, at in zip(means, times, strict=True):
        if not 0 < at < len(values):
            continue
        place = happened.index(at)
        for column, steps in enumerate(windows(at, happened[place - 1], happened[place + 1])):
            if len(inside := values[steps]):
                row[column] = inside.mean()
    return means
