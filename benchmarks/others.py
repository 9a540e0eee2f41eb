"""Other simulators of gymnasium's bodies, measured as `benchmarks.environment` measures ours.

Both step the family's body with its frame_skip and horizon, with random actions and with the
observations, rewards and resets of gymnasium's own task.
"""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from sim.mujoco_family import MujocoFamily

try:
    import envpool
except ImportError:  # of the extra `bench`
    envpool: Any = None

BODIES = {
    "half_cheetah": "HalfCheetah",
    "ant": "Ant",
    "hopper": "Hopper",
    "walker2d": "Walker2d",
    "humanoid": "Humanoid",
}
"""gymnasium's names, by the first letters of the MJCF's file name."""
VERSION = "v5"
SYNC_ENVS = 8
"""Simulations of `SyncVectorEnv`, which steps one after the other: its rate is that of one."""

Rate = Callable[[], float]
"""Measures control steps per second."""


def which_body(family: MujocoFamily) -> str | None:
    """gymnasium's name of the family's body; None if it is not one of gymnasium's."""
    file = family.gymnasium_body
    starts = (start for start in BODIES if file and file.name.startswith(start))
    return next((BODIES[start] for start in starts), None)


def other_simulators(
    body: str, family: MujocoFamily, num_envs: int, threads: int, steps: int
) -> dict[str, Rate]:
    """What measures control steps per second of those that are installed, by name and mode."""
    found = {"SyncVectorEnv": _gymnasium(body, family, steps)}
    if envpool is None:
        return found
    # Of one batch of all simulations in step (sync), and of batches of a half and of an eighth
    # of them as they become ready (async), the mode that is faster in a first try is taken.
    modes: dict[str, Rate] = {}
    for batch in {num_envs, max(1, num_envs // 2), max(1, num_envs // 8)}:
        if num_envs % batch == 0:
            mode = "EnvPool sync" if batch == num_envs else f"EnvPool async {batch}"
            modes[mode] = _pool(body, family, num_envs, batch, threads, steps)
    tries = {mode: max(rate(), rate()) for mode, rate in modes.items()}
    best = max(tries, key=lambda mode: tries[mode])
    return {best: modes[best], **found}


def _gymnasium(body: str, family: MujocoFamily, steps: int) -> Rate:
    """Measures `SyncVectorEnv`, on its one thread."""

    def one() -> gymnasium.Env:
        return gymnasium.make(
            f"{body}-{VERSION}", max_episode_steps=family.horizon, frame_skip=family.frame_skip
        )

    # MuJoCo 4 calls some of the attributes of gymnasium's bodies deprecated, once per copy.
    mujoco.set_mju_user_warning(lambda _: None)
    env = SyncVectorEnv([one] * SYNC_ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
    mujoco.set_mju_user_warning(None)
    actions = _actions(env.single_action_space, steps, SYNC_ENVS)

    def rate() -> float:
        started = time.perf_counter()
        env.reset(seed=1)
        for action in actions:
            env.step(action)
        return steps * SYNC_ENVS / (time.perf_counter() - started)

    return rate


def _pool(
    body: str, family: MujocoFamily, num_envs: int, batch: int, threads: int, steps: int
) -> Rate:
    """Measures EnvPool, from the reset of all until the results of all steps are in."""
    env = envpool.make(
        f"{body}-{VERSION}", env_type="gymnasium", num_envs=num_envs, batch_size=batch,
        num_threads=threads, max_episode_steps=family.horizon, frame_skip=family.frame_skip,
    )  # fmt: skip
    rounds = num_envs // batch
    actions = _actions(env.action_space, steps * rounds, batch)

    def rate() -> float:
        started = time.perf_counter()
        env.async_reset()
        stepped = 0
        for action in actions:
            info = env.recv()[-1]
            stepped += np.count_nonzero(info["elapsed_step"])
            env.send(action, info["env_id"])
        for _ in range(rounds):
            stepped += np.count_nonzero(env.recv()[-1]["elapsed_step"])
        # A step after the end of an episode resets instead; it is no control step.
        return stepped / (time.perf_counter() - started)

    return rate


def _actions(space: Any, steps: int, n: int) -> NDArray[np.float64]:
    """Uniform actions in a body's own bounds, (steps, n, A)."""
    rng = np.random.default_rng(0)
    return rng.uniform(space.low, space.high, (steps, n, *space.shape)).astype(space.dtype)
