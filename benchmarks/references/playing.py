"""Playing a trial with a scripted reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.task import Tasks
from sim.trials import TrialEnv


def play(
    env: TrialEnv, act: Callable[..., Any], tasks: Tasks, adapting: bool = False, seed: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Returns and lengths of a trial's episodes, (episodes, n) each; `seed` of start states."""
    shape = (env.episodes, env.num_envs)
    returns, lengths = np.zeros(shape), np.zeros(shape, int)
    obs, _ = env.reset(seed=seed, options={"tasks": tasks})
    reward, new = np.zeros(env.num_envs), np.ones(env.num_envs, bool)
    episode = np.zeros(env.num_envs, int)
    while (episode < env.episodes).any():
        action = act(obs, reward, new) if adapting else act(obs)
        obs, reward, terminated, truncated, _ = env.step(action)
        live = np.flatnonzero(episode < env.episodes)
        returns[episode[live], live] += reward[live]
        lengths[episode[live], live] += 1
        new = terminated | truncated
        episode += new
        if (again := new & (episode < env.episodes)).any():
            obs, _ = env.reset(options={"reset_mask": again})
    return returns, lengths
