"""Where a method's training time goes: environment steps per second, and the share of each part."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from runtime.benchmark.spread import spread
from sim.bare import Bare, random_actions
from sim.mujoco_family import MujocoFamily
from training.trainer import TrialTrainer

BARE_STEPS = 60
"""Control steps of each measurement of bare `Batch.step`."""


def bench(trainer: TrialTrainer, iterations: int, console: Console) -> None:
    """Train for some iterations, and print where the time went beside bare `Batch.step`.

    After every iteration the main rank alone steps as many simulations by as many threads as
    all ranks have, and nothing else, so that what slows the machine slows both.

    Args:
        trainer: fresh; all its ranks call this.
        iterations: that are measured, after one that is not.
        console: where the main rank prints.
    """
    watch = Stopwatch()
    for shard in trainer.shards:
        shard.env.step = watch.timing(shard.env.step)
        shard.env.reset = watch.timing(shard.env.reset)
    step_alone = _bare(trainer)
    trainer.iterate()  # the first one also looks around and fills caches
    rows = []
    for _ in range(iterations):
        watch.spent = 0.0
        started = time.perf_counter()
        row = trainer.iterate()
        whole = time.perf_counter() - started
        collect, learn = row["time/collect_s"], row["time/learn_s"]
        parts = np.array([watch.spent, collect - watch.spent, learn, whole - collect - learn])
        rate = step_alone.rate() if step_alone else float("nan")
        trainer.ranks.any(False)  # all wait for the main rank's measurement
        rows.append((row["time/steps_per_s"], rate, *(100 * parts / whole)))
    if trainer.ranks.main:
        console.print(_table(trainer, np.array(rows).T))


class Stopwatch:
    """Adds up the time spent in the functions that it wraps."""

    def __init__(self) -> None:
        self.spent = 0.0

    def timing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.spent += time.perf_counter() - started

        return timed


def _bare(trainer: TrialTrainer) -> Bare | None:
    """`Batch.step` alone, in the main rank, where the family has physics."""
    env, config = trainer.shards[0].env, trainer.config
    if not trainer.ranks.main or not isinstance(env.family, MujocoFamily):
        return None
    threads = config.threads * trainer.ranks.count
    actions = random_actions(env, BARE_STEPS).repeat(config.shards, axis=1)
    return Bare(config.family, config.trials, threads, actions)


def _table(trainer: TrialTrainer, measured: np.ndarray) -> Table:
    config, ranks = trainer.config, trainer.ranks
    steps_per_s, bare, simulate, infer, learn, other = measured
    title = (
        f"{trainer.method} on {config.family}: {config.trials} trials, {ranks.count} "
        f"{'ranks' if ranks.count > 1 else 'rank'} of {config.threads} "
        f"{'threads' if config.threads > 1 else 'thread'} on {config.device}, "
        f"{config.ppo.epochs} epochs of {config.ppo.minibatches} minibatches of chunks of "
        f"{config.ppo.chunk} steps"
    )
    table = Table("", "median (lowest to highest)", title=title, box=None)
    table.add_row("environment steps/s", spread(steps_per_s))
    if np.isfinite(bare).all():
        table.add_row("bare Batch.step, steps/s", spread(bare))
        table.add_row("share of bare Batch.step", spread(100 * steps_per_s / bare, ".1f") + " %")
    for name, share in (
        ("simulate", simulate), ("infer", infer), ("learn", learn), ("other", other)
    ):  # fmt: skip
        table.add_row(f"{name}, share of the time", spread(share, ".1f") + " %")
    return table
