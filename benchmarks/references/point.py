"""Points: straight to the goal, a fixed behaviour, and a search that uses what is paid.

For `point-sparse` the rewards are those of a test (``testing=True``).
"""

import math

import numpy as np

from benchmarks.references.candidates import Candidates, towards
from sim.families.point import REACH, SPARSE_RADIUS, PointSparse
from sim.trials import TrialEnv


def told(env: TrialEnv):
    """Straight to the goal."""
    return lambda obs: towards(obs, env.world.goal, REACH)


def blind(env: TrialEnv):
    """Where the goals are on average: the top of the half circle, the square's centre."""
    target = np.array([0.0, 1.0 if isinstance(env.family, PointSparse) else 0.0])
    return lambda obs: towards(obs, target, REACH)


def adapting(env: TrialEnv):
    """Rule out goals by what was paid; go to the nearest that is left.

    The sparse reward rules out all goals within its radius, or all but one on either side, so
    this sweeps the half circle. The dense one leaves a circle around the position.
    """
    if isinstance(env.family, PointSparse):
        angle = np.linspace(0, math.pi, 721)
        places = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    else:
        axis = np.linspace(-0.5, 0.5, 101)
        places = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    tolerance = np.ptp(places[:, 0]) / 100
    goals = Candidates(env.num_envs, len(places))

    def act(obs, prev_reward, new_episode):
        distance = np.linalg.norm(obs[:, None] - places, axis=2)
        if isinstance(env.family, PointSparse):
            found = (prev_reward > 0)[:, None]
            near = np.abs(1 - distance - prev_reward[:, None]) < tolerance
            agree = np.where(found, near, distance > SPARSE_RADIUS)
        else:
            agree = np.abs(distance + prev_reward[:, None]) < tolerance
        goals.keep(agree, ~new_episode)
        return towards(obs, places[goals.nearest(distance)], REACH)

    return act
