"""Steps of single simulations to compare with `tests.rewards_by_hand`.

Half of the simulations of an environment begin where the definition has a bound that random
motion would hardly meet (`NEAR`): at a goal's edge, about to fall. They get small actions.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests import rewards_by_hand as hand
from tests.rewards_by_hand import Moment, Paid, Step, formula_of, grid_goal, polar

SHARES = (0.9, 0.98, 1.02, 1.1)
"""Of a bound's distance: where the simulations 1, 3, 5 and 7 begin."""
SHOWN = ("qpos", "qvel", "xipos", "cfrc_ext")
"""Of MuJoCo's fields, what a step is judged by."""


# Where a simulation is put, by how much of a bound's distance it keeps: `share` is just below
# 1 or just above. They write the state of simulation i in place.


def _ant_falls(world: Any, i: int, task: dict[str, float], share: float) -> None:
    world.qpos[i, 2] = share  # the bound is at 1 m


def _ant_near(world: Any, i: int, task: dict[str, float], share: float) -> None:
    x, y = polar(2.0, task["goal_angle"])
    world.qpos[i, :3] = x, y - 0.8 * share, share


def _humanoid_falls(world: Any, i: int, task: dict[str, float], share: float) -> None:
    world.qpos[i, 2] = (2.0 if share > 1 else 1.2) * share
    if share < 0.95:
        world.qvel[i, 2] = -60.0  # hits the floor harder than is counted


def _falls_forward(steepest: float) -> Callable[..., None]:
    def put(world: Any, i: int, task: dict[str, float], share: float) -> None:
        world.qpos[i, 2] = steepest * share

    return put


def _wheeled_near(world: Any, i: int, task: dict[str, float], share: float) -> None:
    x, y = polar(2.0, task["goal_angle"])
    world.qpos[i, :2] = x, y - 0.8 * share


def _block_near(world: Any, i: int, task: dict[str, float], share: float) -> None:
    first = 3 + 3 * int(task["block"])
    world.qpos[i, first : first + 2] = task["goal_x"] - 0.2 * share, task["goal_y"]


def _grid_near(world: Any, i: int, task: dict[str, float], share: float) -> None:
    world.cell[i] = grid_goal(task["goal"])


def _maze_near(world: Any, i: int, task: dict[str, float], share: float) -> None:
    side = task["goal_side"] * (1 if share < 0.95 else -1)
    world.qpos[i] = side * (1.6 - 0.12 * share), 2.25


def _point_sparse_near(world: Any, i: int, task: dict[str, float], share: float) -> None:
    x, y = polar(1.0, task["goal_angle"])
    world.position[i] = x, y - 0.2 * share


def _point_nav_near(world: Any, i: int, task: dict[str, float], share: float) -> None:
    world.position[i] = task["goal_x"] + 0.01 * share, task["goal_y"]


NEAR: dict[Callable[[Step], Paid], Callable[..., None]] = {
    hand.hopper_run: _falls_forward(0.2),
    hand.walker_run: _falls_forward(1.0),
    hand.ant_direction: _ant_falls,
    hand.ant_velocity: _ant_falls,
    hand.ant_goal: _ant_falls,
    hand.ant_goal_ring: _ant_near,
    hand.humanoid_direction: _humanoid_falls,
    hand.wheeled: _wheeled_near,
    hand.block_push: _block_near,
    hand.grid_nav: _grid_near,
    hand.maze2d: _maze_near,
    hand.point_sparse: _point_sparse_near,
    hand.point_nav: _point_nav_near,
}


def _moments(env: Any) -> Callable[[], list[Moment]]:
    """What says the state of every simulation of `env` now."""
    world = env.world
    if hasattr(world, "batch"):
        fields = {name: world.batch.bind(name) for name in SHOWN}
    else:
        fields = {n: getattr(world, n) for n in ("position", "cell") if hasattr(world, n)}
    return lambda: [
        {name: rows[i].copy() for name, rows in fields.items()} for i in range(env.num_envs)
    ]


def _tasks(env: Any) -> list[dict[str, float]]:
    return [{k: float(v[i]) for k, v in env.tasks.items()} for i in range(env.num_envs)]


def _masses(env: Any) -> list[NDArray[np.float64]]:
    """Of the bodies of every simulation, whose dynamics may be its own [kg]."""
    if not hasattr(env.world, "batch"):
        return [np.empty(0)] * env.num_envs
    return [env.world.batch.get_model(i).body_mass.copy() for i in range(env.num_envs)]


def _begin(env: Any, mask: NDArray[np.bool_]) -> None:
    """Start an episode in the simulations `mask`, the odd ones of them near a bound."""
    env.reset(options={"reset_mask": mask})
    near = NEAR.get(formula_of(env.family.name))
    for i in np.flatnonzero(mask):
        if near and i % 2:
            near(env.world, i, _tasks(env)[i], SHARES[i // 2 % len(SHARES)])
    if hasattr(env.world, "batch"):
        env.world.batch.forward(np.flatnonzero(mask))


def played(env: Any, steps: int) -> Iterator[tuple[Step, float, float | None, bool]]:
    """Random steps of all simulations: each with the reward, test reward and end it had."""
    moments, rng = _moments(env), np.random.default_rng(7)
    n, done = env.num_envs, np.ones(env.num_envs, bool)
    size = np.where(np.arange(n) % 2, 0.1, 1.5)[:, None]  # what is above 1 is to be clipped
    for _ in range(steps):
        if done.any():
            _begin(env, done)
            tasks, mass = _tasks(env), _masses(env)
        before = moments()
        action = size * rng.uniform(-1, 1, (n, len(env.family.action))).astype(np.float32)
        _, reward, terminated, truncated, info = env.step(action)
        after, sparse = moments(), info.get("test_reward", [None] * n)
        # The bounds are clipped to in single precision, as the environment takes actions.
        applied = np.clip(action.astype(np.float32), -1, 1).astype(np.float64)
        for i in range(n):
            step = Step(before[i], after[i], applied[i], tasks[i], mass[i])
            yield step, reward[i], sparse[i], bool(terminated[i])
        done = terminated | truncated


def scattered(env: Any, rounds: int) -> Iterator[tuple[Step, bool]]:
    """States far off the start, without a step: each with whether the family says it ended.

    Half of them are off in a single coordinate, some of which are not finite.
    """
    env.reset()
    moments, rng, n = _moments(env), np.random.default_rng(8), env.num_envs
    action, mass, tasks = np.zeros(len(env.family.action)), _masses(env), _tasks(env)
    start = np.concatenate((env.world.qpos, env.world.qvel), axis=1)
    positions, rows = env.world.qpos.shape[1], np.arange(n)
    reach = np.where(np.arange(start.shape[1]) < positions, 3.0, 150.0)
    for _ in range(rounds):
        off = reach * rng.uniform(-1, 1, start.shape)
        off[:, positions:] *= rng.random((n, 1)) < 0.2
        single = rng.integers(0, start.shape[1], n)
        alone = np.zeros_like(off)
        alone[rows, single] = reach[single] * rng.uniform(-1, 1, n)
        alone[rows[::20], single[::20]] *= rng.choice([np.nan, np.inf], len(rows[::20]))
        state = start + np.where(rows[:, None] % 2, off, alone)
        env.world.qpos[:], env.world.qvel[:] = np.split(state, [positions], axis=1)
        ended = env.family.terminated(env.world)
        for i, moment in enumerate(moments()):
            step = Step(moment, moment, action, tasks[i], mass[i])
            yield step, ended is not None and bool(ended[i])
