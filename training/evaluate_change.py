"""Evaluation of adaptation to a change of task inside a trial: the reward before and after it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Column, Table

from sim.change import Change
from sim.change_windows import WINDOWS, around
from training import bootstrap


@dataclass(frozen=True)
class AroundChange:
    """Mean reward per step around one change, (windows, tasks), of one way of acting.

    The windows are those of `sim.change_windows`; nan where a trial ended before one.
    """

    change: Change
    rewards: NDArray[np.float64]

    def summary(self) -> list[dict[str, float]]:
        """Mean over tasks, with half the width of its bootstrapped 95 % interval, per window.

        Both are nan for a window that fewer than two trials reached.
        """
        rows = []
        for reached in (row[np.isfinite(row)] for row in self.rewards):
            nothing = {"mean": float("nan"), "ci95": float("nan")}
            rows.append(bootstrap.statistic(reached) if len(reached) > 1 else nothing)
        return rows


def around_changes(
    changes: tuple[Change, ...], times: NDArray[np.int64], rewards: NDArray[np.float64]
) -> tuple[AroundChange, ...]:
    """The reward around each change.

    Args:
        changes: which.
        times: the step before which each came in each trial, or `NEVER`, (changes, tasks).
        rewards: of every step, (T, tasks); nan where a trial was over.
    """
    lengths = np.isfinite(rewards).sum(axis=0)
    per_task = [around(rewards[: lengths[k], k], times[:, k]) for k in range(rewards.shape[1])]
    means = np.stack(per_task, axis=-1)  # (changes, windows, tasks)
    return tuple(AroundChange(c, m) for c, m in zip(changes, means, strict=True))


def change_tables(rows: list[tuple[str, tuple[AroundChange, ...]]], tasks: int) -> list[Table]:
    """A table per change, with a row for each of the named ways of acting."""
    tables = []
    for k, each in enumerate(rows[0][1]):
        title = f"Change {each.change}: mean reward per step on {tasks} held-out tasks"
        table = table_of_ways(WINDOWS, title)
        for name, around_each in rows:
            stats = around_each[k].summary()
            table.add_row(name, *("-" if np.isnan(s["mean"]) else _cell(s) for s in stats))
        tables.append(table)
    return tables


def table_of_ways(headings: Sequence[str], title: str) -> Table:
    """An empty table of ways of acting, narrow enough for a terminal of 80 columns."""
    way = Column("acting", no_wrap=True)
    narrow = {"box": box.SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True}
    return Table(way, *headings, title=title, min_width=len(title), **narrow)


def _cell(stat: dict[str, float]) -> str:
    return f"{stat['mean']:.2f} ± {stat['ci95']:.2f}"
