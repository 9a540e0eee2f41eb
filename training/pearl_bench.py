"""Where PEARL's training time goes: gradient steps per second, and the share of each part."""

import time

import numpy as np
from rich.console import Console
from rich.table import Table

from runtime.benchmark.spread import spread
from training.bench import Stopwatch
from training.pearl import PEARLTrainer

PARTS = ("simulate", "act", "draw", "forward", "backward", "update", "other")
"""Of an iteration: physics; policy and replay while collecting; batches drawn from replay; losses;
their gradients; optimiser and target critics; all else. On a GPU, where a gradient step is one
graph, `backward` is all of it."""


def bench_pearl(trainer: PEARLTrainer, iterations: int, console: Console) -> None:
    """Train for some iterations, and print where the time went.

    Args:
        trainer: fresh.
        iterations: that are measured, after one that is not.
        console: where to print.
    """
    trainer.iterate()  # the first one also looks around and fills caches
    watches = {name: Stopwatch() for name in ("simulate", "draw", "forward", "update")}
    env, learner = trainer.env, trainer.learner
    env.step = watches["simulate"].timing(env.step)
    env.reset = watches["simulate"].timing(env.reset)
    trainer.batch = watches["draw"].timing(trainer.batch)
    learner.losses = watches["forward"].timing(learner.losses)
    learner.update = watches["update"].timing(learner.update)
    rows = []
    for _ in range(iterations):
        for watch in watches.values():
            watch.spent = 0.0
        started = time.perf_counter()
        row = trainer.iterate()
        whole = time.perf_counter() - started
        spent = {name: watch.spent for name, watch in watches.items()}
        spent["act"] = row["time/collect_s"] - spent["simulate"]
        spent["other"] = whole - row["time/collect_s"] - row["time/learn_s"]
        spent["backward"] = row["time/learn_s"] - sum(
            spent[part] for part in ("draw", "forward", "update")
        )
        shares = [100 * spent[part] / whole for part in PARTS]
        rows.append((row["time/gradient_steps_per_s"], row["time/steps_per_s"], *shares))
    console.print(_table(trainer, np.array(rows).T))


def _table(trainer: PEARLTrainer, measured: np.ndarray) -> Table:
    config = trainer.config
    title = (
        f"{trainer.method} on {config.family}: {config.meta_batch} tasks of {config.sac.batch} "
        f"transitions and {config.network.context} of context, {config.threads} "
        f"{'threads' if config.threads > 1 else 'thread'} on {config.device}"
    )
    table = Table("", "median (lowest to highest)", title=title, box=None)
    table.add_row("gradient steps/s", spread(measured[0], ",.1f"))
    table.add_row("environment steps/s", spread(measured[1]))
    for name, share in zip(PARTS, measured[2:], strict=True):
        table.add_row(f"{name}, share of the time", spread(share, ".1f") + " %")
    return table
