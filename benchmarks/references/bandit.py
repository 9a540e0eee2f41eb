"""Bandits: the best arm, any arm, and Thompson sampling (Thompson 1933)."""

import numpy as np

from sim.trials import TrialEnv


def _pull(arm, arms):
    """The action that pulls `arm` (n,), (n, arms)."""
    return np.eye(arms, dtype=np.float32)[arm]


def told(env: TrialEnv):
    """Pull the arm that is most likely to pay."""
    arms = len(env.family.action)
    return lambda obs: _pull(np.argmax(np.stack(list(env.tasks.values())), axis=0), arms)


def blind(env: TrialEnv):
    """Pull the first arm: without a memory no arm is better than another."""
    arms = len(env.family.action)
    return lambda obs: _pull(np.zeros(len(obs), int), arms)


def adapting(env: TrialEnv, seed: int = 0):
    """Thompson sampling from a uniform prior: pull the best arm of a draw from the posterior."""
    n, arms = env.num_envs, len(env.family.action)
    rng = np.random.default_rng(seed)
    paid, failed = np.ones((n, arms)), np.ones((n, arms))
    pulled = np.zeros((n, arms))

    def act(obs, prev_reward, new_episode):
        nonlocal pulled
        paid[:] += pulled * prev_reward[:, None]
        failed[:] += pulled * (1 - prev_reward)[:, None]
        pulled = _pull(np.argmax(rng.beta(paid, failed), axis=1), arms)
        return pulled

    return act
