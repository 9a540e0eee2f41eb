"""Where training's time goes: environment steps per second and the shares of each part.

python -m benchmarks.training [--family halfcheetah-vel] [--iterations 8]
"""

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.environment import STEPS, Bare, random_actions
from runtime.benchmark.spread import spread
from training.presets import rl2_preset
from training.rl2 import RL2Trainer


def main(family: str = "halfcheetah-vel", iterations: int = 8) -> None:
    """Print steps per second of whole iterations, and of collecting and learning."""
    trainer = RL2Trainer(rl2_preset(family))
    env = trainer.env
    step_alone = Bare(family, env.num_envs, trainer.config.threads, random_actions(env, STEPS))
    trainer.iterate()  # the first one also fills caches
    rows, bare = [], []
    for _ in range(iterations):
        rows.append(trainer.iterate())
        bare.append(step_alone.rate())
    rate = np.array([row["time/steps_per_s"] for row in rows])
    collect = np.array([row["time/collect_s"] for row in rows])
    learn = np.array([row["time/learn_s"] for row in rows])
    title = f"RL2 with a GRU on {family}, {trainer.config.threads} threads, {env.num_envs} trials"
    table = Table("what", "median (lowest to highest)", title=title)
    table.add_row("environment steps/s, all told", spread(rate))
    table.add_row("bare Batch.step, steps/s", spread(np.array(bare)))
    table.add_row("share of bare Batch.step", spread(100 * rate / np.array(bare), ".1f") + " %")
    share = 100 * collect / (collect + learn)
    table.add_row("time collecting (simulate and infer)", spread(share, ".0f") + " %")
    table.add_row("time learning", spread(100 - share, ".0f") + " %")
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
