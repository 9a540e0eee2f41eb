"""Playing a trial with a scripted reference."""

import numpy as np


def play(env, act, tasks, adapting=False):
    """Returns and lengths of a trial's episodes, (episodes, n) each."""
    shape = (env.episodes, env.num_envs)
    returns, lengths = np.zeros(shape), np.zeros(shape, int)
    obs, _ = env.reset(seed=1, options={"tasks": tasks})
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
