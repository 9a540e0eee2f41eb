"""MuJoCo's `Batch.step` alone: what simulation costs at least, for benchmarks to compare with."""

import time
import warnings

import mujoco
import numpy as np
from numpy.typing import NDArray

import sim
from sim.mujoco_family import MujocoFamily, MujocoWorld
from sim.trials import TrialEnv


def random_actions(env: TrialEnv, steps: int) -> NDArray[np.float32]:
    """Uniform actions of all simulations, (steps, n, A)."""
    shape = (steps, env.num_envs, len(env.family.action))
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


class Bare:
    """`Batch.step` alone, on the states that an environment of the family steps from."""

    def __init__(self, name: str, num_envs: int, threads: int, actions: NDArray[np.float32]):
        """
        Args:
            name: a family with physics.
            num_envs: simulations stepped together.
            threads: threads that step them.
            actions: (steps, n, A), as random actions of a fresh environment.
        """
        env = sim.make(name, num_envs, threads, seed=0)
        assert isinstance(env.family, MujocoFamily)
        self._frame_skip = env.family.frame_skip
        self._actions = actions
        self._states = _states(env, actions)
        self._world = MujocoWorld(_plain_model(env.family), num_envs, threads, [])

    def rate(self) -> float:
        """Control steps per second; writing the states is not in the time."""
        world, spent = self._world, 0.0
        for action, (qpos, qvel) in zip(self._actions, self._states, strict=True):
            world.qpos[:], world.qvel[:], world.ctrl[:] = qpos, qvel, action
            started = time.perf_counter()
            world.batch.step(nstep=self._frame_skip)
            spent += time.perf_counter() - started
        return self._actions.shape[0] * len(world.qpos) / spent


def _states(
    env: TrialEnv, actions: NDArray[np.float32]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Positions and velocities before each step of an episode of random actions."""
    env.reset(seed=1)
    states = []
    for action in actions:
        states.append((env.world.qpos.copy(), env.world.qvel.copy()))
        _, _, terminated, truncated, _ = env.step(action)
        done = terminated | truncated
        if done.any():
            env.reset(options={"reset_mask": done})
    return states


def _plain_model(family: MujocoFamily) -> mujoco.MjModel:
    """The body as gymnasium ships it, if it ships it; else the family's."""
    file = family.gymnasium_body
    if file is None:
        return family.model()
    with warnings.catch_warnings():
        # gymnasium's bodies use attributes that MuJoCo 4 calls deprecated; they still work.
        warnings.filterwarnings("ignore", "compiler attribute .* is deprecated", UserWarning)
        return mujoco.MjSpec.from_file(str(file)).compile()
