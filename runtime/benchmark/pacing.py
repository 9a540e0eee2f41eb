"""Ticks at a fixed rate against absolute deadlines, and what became of each."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Paced(NamedTuple):
    """The ticks of one paced phase."""

    trips: np.ndarray
    """(ticks,), from asking to answer [s]; nan for ticks that were never asked."""
    missed: int
    """Ticks whose answer was not there when the next was due, those never asked among them."""
    late_starts: int
    """Ticks asked more than half a period late: the asking side was held up, or a tick before."""

    def longer_than(self, period_s: float) -> int:
        """Round trips that took longer: what was missed whenever it was asked."""
        return int(np.count_nonzero(self.trips > period_s))


def pace(
    ask: Callable[[int], bool],
    ticks: int,
    period_s: float,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Paced:
    """Ask at every multiple of a period; deadlines that have passed are left out, not bunched.

    Args:
        ask: makes the tick of an index; whether it was answered.
        ticks: how many.
        period_s: between two.
        clock, sleep: of the machine, but for tests.
    """
    trips = np.full(ticks, np.nan)
    missed = late_starts = i = 0
    begun = clock() + period_s
    while i < ticks:
        due = begun + i * period_s
        left = due - clock()
        if left > 0:
            sleep(left)
        started = clock()
        answered = ask(i)
        ended = clock()
        trips[i] = ended - started
        periods = (ended - due) / period_s
        late_starts += started - due > period_s / 2
        # A deadline that has just passed is still met by asking at once; older ones are not.
        passed = min(max(0, math.floor(periods) - 1), ticks - 1 - i)
        missed += (not answered or periods > 1) + passed
        i += 1 + passed
    return Paced(trips, missed, late_starts)
