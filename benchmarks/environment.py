"""What the environment costs: control steps per second beside those of other simulators.

    python -m benchmarks.environment [FAMILY ...] [--num-envs 256] [--threads 2] [--repeats 5]

Every repeat measures all of them in turn on `STEPS` random actions after a reset of all:

- the environment: `TrialEnv.step`, and its resets of the simulations that are done;
- bare `Batch.step` of the body, from the very states that the environment steps from, without
  resets; where a family adds to the body (a sensor, a goal), the body is gymnasium's own;
- EnvPool and gymnasium's `SyncVectorEnv` where they have the body, with the family's
  frame_skip and horizon, and their own observations, rewards and resets.
"""

import sys
import time

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import sim
from benchmarks.others import envpool, other_simulators, which_body
from runtime.benchmark.spread import in_turn, spread
from runtime.errors import AdaptdError, InvalidConfig
from sim.bare import Bare, random_actions
from sim.mujoco_family import MujocoFamily
from sim.trials import TrialEnv

STEPS = 60
SHARE_WANTED = 0.85
"""Of bare `Batch.step`, at 256 simulations."""
TIMES_ENVPOOL_WANTED = {"HalfCheetah": 1.5, "Ant": 1.1}


def main(
    families: tyro.conf.Positional[tuple[str, ...]] = (),
    num_envs: int = 256,
    threads: int = 2,
    repeats: int = 5,
) -> None:
    """Print control steps per second of the environment and of what it is compared with.

    Args:
        families: which; all with physics if none is given.
        num_envs: simulations stepped together.
        threads: threads that step them; `SyncVectorEnv` has one.
        repeats: of each measurement; fewer than 5 say little.

    Raises:
        UnknownName: there is no such family.
        InvalidConfig: one of them has no physics.
    """
    for name in families:
        if not isinstance(sim.family(name), MujocoFamily):
            raise InvalidConfig(f"{name} has no physics, there is no Batch.step to compare it with")
    names = families or tuple(n for n in sim.names() if isinstance(sim.family(n), MujocoFamily))
    title = f"thousands of control steps per second, {num_envs} simulations, {threads} threads"
    table = Table(title=title, box=None)
    for heading in ("", "rate", "environment to it", "wanted"):
        table.add_column(heading)
    for name in track(names, "measuring", console=Console(stderr=True), transient=True):
        _measure(name, num_envs, threads, repeats, table)
    console = Console()
    console.print(table)
    console.print(f"median (lowest to highest) of {repeats} alternating repeats")


def _measure(name: str, num_envs: int, threads: int, repeats: int, table: Table) -> None:
    """Add the rows of one family."""
    env = sim.make(name, num_envs, threads, seed=0)
    assert isinstance(env.family, MujocoFamily)  # as `main` saw
    actions = random_actions(env, STEPS)
    body = which_body(env.family)
    rates = {"bare Batch.step": Bare(name, num_envs, threads, actions).rate}
    if body:
        rates |= other_simulators(body, env.family, num_envs, threads, STEPS)
    measured = in_turn(
        lambda: _environment(env, actions), lambda: [rate() for rate in rates.values()], repeats
    )
    ours = np.array([a for a, _ in measured])
    table.add_row(f"[bold]{name}", spread(ours / 1000, ".1f"))
    for what, theirs in zip(rates, np.array([b for _, b in measured]).T, strict=True):
        table.add_row(f"  {what}", *_comparison(ours, theirs, _wanted(what, body)))
    if body and envpool is None:
        table.add_row("  EnvPool", "not installed: pip install 'adaptd\\[bench]'")


def _wanted(what: str, body: str | None) -> float | None:
    """The environment's rate as a share of another's that is wanted; None if none is."""
    if what.startswith("EnvPool"):
        return TIMES_ENVPOOL_WANTED.get(body or "")
    return None if what == "SyncVectorEnv" else SHARE_WANTED


def _comparison(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], wanted: float | None
) -> tuple[str, str, str]:
    """Their rate, our rate in per cent of it, and whether that is what is wanted."""
    share = ours / theirs
    verdict = ""
    if wanted is not None:
        verdict = f"{100 * wanted:.0f} %: {'met' if np.median(share) >= wanted else 'missed'}"
    return spread(theirs / 1000, ".1f"), spread(100 * share, ".0f") + " %", verdict


def _environment(env: TrialEnv, actions: NDArray[np.float32]) -> float:
    """Control steps per second of the environment, its resets included."""
    started = time.perf_counter()
    env.reset(seed=1)
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        done = terminated | truncated
        if done.any():
            env.reset(options={"reset_mask": done})
    return actions.shape[0] * env.num_envs / (time.perf_counter() - started)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except AdaptdError as error:
        print(f"environment: {error}", file=sys.stderr)
        sys.exit(2)
