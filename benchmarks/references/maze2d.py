"""The maze: to the goal, to a fixed box, and by way of the sign."""

import numpy as np

from benchmarks.references.candidates import towards
from sim.families.maze2d import BOXES, SIGN, START
from sim.trials import TrialEnv

REACH = 0.2
"""Metres in one control step at full speed."""


def _to_box(position, side):
    """The action (n, 2) on the way to the box on `side` (n,), from anywhere in the maze."""
    foot = np.array([-0.2, START[1]])
    head = np.stack((0.2 * side, np.full(len(side), 1.1)), axis=1)  # the corner to turn at
    target = BOXES[(side > 0).astype(int)]
    target = np.where(position[:, 1:] < 0.9, head, target)
    in_corridor = (position[:, :1] < -0.27) & (position[:, 1:] < 0)
    return towards(position, np.where(in_corridor, foot, target), REACH)


def told(env: TrialEnv):
    """The shortest way to the goal."""
    return lambda obs: _to_box(obs[:, :2], env.world.tasks["goal_side"])


def blind(env: TrialEnv):
    """The shortest way to the right box: right every other time, as any fixed choice is."""
    return lambda obs: _to_box(obs[:, :2], np.ones(len(obs)))


def adapting(env: TrialEnv):
    """To the grey box until it can be read, then to the box it tells; remembered ever after."""
    side = np.zeros(env.num_envs)

    def act(obs, prev_reward, new_episode):
        side[:] = np.where(obs[:, 4] != 0, obs[:, 4], side)
        position = obs[:, :2]
        asking = towards(position, np.broadcast_to(SIGN, position.shape), REACH)
        return np.where((side == 0)[:, None], asking, _to_box(position, side))

    return act
