"""What the environment costs over bare `Batch.step`, for every family with physics.

    python -m benchmarks.environment [--num-envs 256] [--threads 2] [--repeats 7]

Both step the same body at the same states and actions; the two alternate.
"""

import time
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import sim
from runtime.benchmark.spread import alternate, spread
from sim.mujoco_family import MujocoFamily
from sim.trials import TrialEnv

STEPS = 60


def main(num_envs: int = 256, threads: int = 2, repeats: int = 7) -> None:
    """Print control steps per second with and without the environment."""
    title = f"control steps per second, {num_envs} simulations, {threads} threads"
    table = Table(title=title, box=None)
    table.add_column("family", no_wrap=True)
    for heading in ("environment", "bare Batch.step", "overhead"):
        table.add_column(heading)
    for name in sim.names():
        if isinstance(sim.family(name), MujocoFamily):
            table.add_row(name, *_measure(name, num_envs, threads, repeats))
    console = Console()
    console.print(table)
    console.print(f"median (lowest to highest) of {repeats} alternating repeats; target: <= 15 %")


def _measure(name: str, num_envs: int, threads: int, repeats: int) -> tuple[str, str, str]:
    env = sim.make(name, num_envs, threads, seed=0)
    rng = np.random.default_rng(0)
    shape = (STEPS, num_envs, len(env.family.action))
    actions = rng.uniform(-1, 1, shape).astype(np.float32)
    ours, bare = alternate(
        lambda: _environment(env, actions), lambda: bare_steps(env, actions), repeats
    )
    overhead = bare / ours - 1
    return spread(ours), spread(bare), spread(100 * overhead, ".1f") + " %"


def _environment(env: TrialEnv, actions: np.ndarray) -> float:
    env.reset(seed=1)
    started = time.perf_counter()
    for action in actions:
        env.step(action)
    return actions.shape[0] * env.num_envs / (time.perf_counter() - started)


def bare_steps(env: TrialEnv, actions: np.ndarray) -> float:
    """Control steps per second of `Batch.step` alone, on the same states and actions."""
    env.reset(seed=1)
    batch: Any = env.world.batch
    ctrl, frame_skip = env.world.ctrl, env.family.frame_skip  # type: ignore[attr-defined]
    started = time.perf_counter()
    for action in actions:
        ctrl[:] = action
        batch.step(nstep=frame_skip)
    return actions.shape[0] * env.num_envs / (time.perf_counter() - started)


if __name__ == "__main__":
    tyro.cli(main)
