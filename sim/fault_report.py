"""The table of a run in which something went wrong."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from runtime.messages import Limit
from sim.faults import Fault
from sim.robot import Moment

AROUND = 50
"""Steps before and after a fault whose mean reward is shown."""


def faults_table(moments: Sequence[Moment], faults: Sequence[Fault]) -> Table:
    """What a fault did: silent ticks, limits that acted, mean reward before, during and after."""
    title = f"Mean reward per step, {AROUND} before and after each fault"
    table = Table(title=title)
    for heading in ("fault", "steps", "silent", "limits", "before", "during", "after"):
        table.add_column(heading, no_wrap=heading != "limits")
    for fault in faults:
        last = len(moments) - 1 if fault.last is None else min(fault.last, len(moments) - 1)
        inside = moments[fault.first : last + 1]
        limits = Counter(limit.name or "" for m in inside for limit in Limit(m.answer.limits))
        told = ", ".join(f"{name} {count}" for name, count in limits.most_common())
        parts = moments[max(0, fault.first - AROUND) : fault.first], inside
        means = [_mean(part) for part in (*parts, moments[last + 1 : last + 1 + AROUND])]
        silent = sum(m.answer.silent for m in inside)
        steps = f"{fault.first}-{last}" if inside else "never came"
        table.add_row(str(fault), steps, str(silent), told or "-", *means)
    return table


def _mean(moments: Sequence[Moment]) -> str:
    return f"{np.mean([m.reward for m in moments]):.2f}" if moments else "-"
