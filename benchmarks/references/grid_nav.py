"""The grid: the shortest way to the goal, a fixed round, and a search that then returns."""

import numpy as np

from benchmarks.references.candidates import Candidates
from sim.families.grid_nav import GOALS, MOVES, SIZE
from sim.trials import TrialEnv


def _cell(obs):
    """Columns and rows (n, 2) of an observation."""
    return np.rint((obs + 1) * (SIZE - 1) / 2).astype(int)


def _move(cell, goal):
    """The action (n, 5) of one move from `cell` to `goal` (n, 2), along the columns first."""
    way = np.sign(goal - cell)
    way[:, 1] *= way[:, 0] == 0
    return (way[:, None] == MOVES).all(axis=2).astype(np.float32)


def told(env: TrialEnv):
    """The shortest way to the goal, then stay."""
    return lambda obs: _move(_cell(obs), env.world.goal)


def blind(env: TrialEnv):
    """Along the bottom to the left corner and up the edge: no fixed way meets more goals."""

    def act(obs):
        cell = _cell(obs)
        corner = np.zeros_like(cell)
        top = np.array([0, SIZE - 1])
        half = np.array([SIZE // 2, SIZE - 1])
        goal = np.where(cell[:, :1] > 0, corner, np.where(cell[:, 1:] < SIZE - 1, top, half))
        return _move(cell, np.where((cell[:, 1] == SIZE - 1)[:, None], half, goal))

    return act


def adapting(env: TrialEnv):
    """To the nearest goal not yet ruled out, until one pays; from then on to that one."""
    goals = Candidates(env.num_envs, len(GOALS))

    def act(obs, prev_reward, new_episode):
        cell = _cell(obs)
        here = (cell[:, None] == GOALS).all(axis=2)
        goals.keep(here == (prev_reward > 0)[:, None], ~new_episode)
        distance = np.abs(cell[:, None] - GOALS).sum(axis=2)
        return _move(cell, GOALS[goals.nearest(distance)])

    return act
