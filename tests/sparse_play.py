"""Playing MAESN's families, dense to train on and sparse at meta-test, with a reference."""

import numpy as np

import sim


def dense_and_sparse(name, reference, n=64):
    """Mean return of one episode, as trained on and as at meta-test."""
    env = sim.make(name, n, seed=0)
    obs, _ = env.reset()
    act = reference(env)
    dense, sparse = np.zeros(n), np.zeros(n)
    for _ in range(env.family.horizon):
        obs, reward, _, _, info = env.step(act(obs))
        dense += reward
        sparse += info["test_reward"]
    return dense.mean(), sparse.mean()


def per_episode(name, reference, n=32):
    """Mean return at meta-test of each episode of a trial, of one that adapts."""
    env = sim.make(name, n, seed=0, testing=True)
    obs, _ = env.reset()
    act = reference(env)
    reward, new, episodes = np.zeros(n), np.ones(n, bool), []
    for _ in range(env.episodes):
        total = np.zeros(n)
        for _ in range(env.family.horizon):
            obs, reward, *_ = env.step(act(obs, reward, new))
            total += reward
            new = np.zeros(n, bool)
        episodes.append(total.mean())
        obs, _ = env.reset(options={"reset_mask": np.ones(n, bool)})
        new = np.ones(n, bool)
    return episodes
