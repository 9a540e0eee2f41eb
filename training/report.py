"""Evaluations as tables in a terminal."""

from collections.abc import Sequence

from rich.table import Table

from training.evaluate import Evaluation, References, over_seeds
from training.evaluate_change import change_tables, table_of_ways


def evaluation_tables(evaluation: Evaluation | References) -> list[Table]:
    """Return per episode of each way of acting; the reward around each change of task."""
    table = _table(evaluation, "")
    for name, returns in evaluation.rows():
        table.add_row(name, *map(cell, returns.summary()))
    if not isinstance(evaluation, Evaluation):
        return [table]
    changed = [(name, r.around_changes) for name, r in evaluation.rows() if "random" not in name]
    return [table, *change_tables(changed, evaluation.tasks)]


def seeds_table(seeds: Sequence[int], evaluations: Sequence[Evaluation | References]) -> Table:
    """Means over training seeds, then each seed's row of the first way of acting."""
    first = evaluations[0]
    table = _table(first, f", mean over {len(seeds)} training seeds")
    rows = [evaluation.rows() for evaluation in evaluations]
    for name, _ in rows[0]:  # the reference that is told the task is one for all
        theirs = [returns for each in rows for other, returns in each if other == name]
        table.add_row(name, *map(cell, over_seeds(theirs)))
    table.add_section()
    for seed, each in zip(seeds, rows, strict=True):
        name, returns = each[0]
        table.add_row(f"{name}, seed {seed}", *map(cell, returns.summary()))
    return table


def cell(stat: dict[str, float]) -> str:
    """Mean and interval of a return."""
    return f"{stat['mean']:.1f} ± {stat['ci95']:.1f}"


def _table(evaluation: Evaluation | References, of: str) -> Table:
    episodes = len(evaluation.random.values)
    headings = [f"episode {i + 1}" for i in range(episodes)]
    title = f"Return on {evaluation.tasks} held-out tasks{of}, 95 % interval"
    return table_of_ways(headings, title)
