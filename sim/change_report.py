"""Tables of a run in which the hidden task changes."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from rich.table import Table

from sim.change_windows import WINDOWS, around
from sim.robot import Moment

SHOWN = 6
"""Task parameters that a table lists, the changed ones first; families may have dozens."""


def tasks_in(moments: Sequence[Moment], decimals: int = 2) -> dict[str, str]:
    """The tasks of these steps as text by parameter, ``2.00 -> 0.80`` where one changed."""
    texts = {name: [f"{m.task[name]:.{decimals}f}" for m in moments] for name in moments[0].task}
    return {name: " -> ".join(text for text, _ in groupby(t)) for name, t in texts.items()}


def returns_table(moments: Sequence[Moment], policy: str) -> Table:
    """Hidden task and return of every episode."""
    table = Table("episode", "hidden task", "return", title=f"{policy}, return per episode")
    for episode, steps in groupby(moments, key=lambda m: m.episode):
        inside = list(steps)
        tasks = [f"{name} {text}" for name, text in tasks_in(inside).items()]
        table.add_row(
            str(episode + 1),
            _first(sorted(tasks, key=lambda t: "->" not in t)),
            f"{sum(m.reward for m in inside):.1f}",
        )
    return table


def changes_table(moments: Sequence[Moment]) -> Table:
    """The reward around every change, a row per change."""
    table = Table("step", "hidden task", *WINDOWS, title="Mean reward per step, around each change")
    times = [k for k, m in enumerate(moments) if m.changed]
    rewards = np.array([m.reward for m in moments])
    for at, means in zip(times, around(rewards, times), strict=True):
        then, now = moments[at - 1].task, moments[at].task
        what = [f"{n} {then[n]:.2f} -> {now[n]:.2f}" for n in now if now[n] != then[n]]
        cells = ["-" if np.isnan(mean) else f"{mean:.2f}" for mean in means]
        table.add_row(str(at), _first(what) or "the same drawn again", *cells)
    return table


def _first(parameters: list[str]) -> str:
    """As many as a table's cell can hold."""
    more = len(parameters) - SHOWN
    return ", ".join(parameters[:SHOWN]) + f" and {more} more" * (more > 0)
