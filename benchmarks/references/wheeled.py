"""Scripted drivers for the wheeled robot: told the goal, blind, and adapting.

The blind one cannot know the goal, and no fixed place is near more than a part of the half
circle: it stays where the mean distance to the goals is least. The adapting one drives along
the half circle until the sparse reward comes, and then searches for where it is highest.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim.families.wheeled import GOAL_RADIUS, RING_RADIUS
from sim.trials import TrialEnv

Array = NDArray[np.floating]
SWEEP_RADIUS = 1.45  # m; from here the sparse reward reaches all goals, on the shortest way
SWEEP_ANGLES = np.linspace(0.25, np.pi - 0.25, 9)  # rad, of the waypoints


def drive(obs: Array, target: Array, gain: float = 2.0) -> NDArray[np.float32]:
    """Wheel torques (n, 2) towards `target` (n, 2): turn to it, forwards or backwards."""
    heading = obs[:, 2:4]
    offset = target - obs[:, :2]
    along = np.einsum("nk,nk->n", heading, offset)
    across = heading[:, 0] * offset[:, 1] - heading[:, 1] * offset[:, 0]
    way = np.where(along < 0, -1.0, 1.0)  # backwards where that turns less
    distance = np.hypot(along, across)
    angle = np.arctan2(way * across, way * along)
    speed = np.einsum("nk,nk->n", heading, obs[:, 4:6])
    near = np.minimum(1.0, distance / 0.05)  # the direction of a goal under one's feet is noise
    forward = 1.5 * gain * (way * np.minimum(1.2, 1.2 * distance) * np.cos(angle) ** 3 - speed)
    turn = near * gain * angle - 0.5 * obs[:, 6]
    return np.clip(np.stack((forward - turn, forward + turn), axis=1), -1, 1).astype(np.float32)


def told(env: TrialEnv) -> Callable[[Array], Array]:
    """Drives to the goal and stays."""

    def act(obs: Array) -> Array:
        angle = env.tasks["goal_angle"]
        return drive(obs, RING_RADIUS * np.stack((np.cos(angle), np.sin(angle)), axis=1))

    return act


def blind(env: TrialEnv) -> Callable[[Array], Array]:
    """Drives to the point from which the goals' mean distance is least, and stays."""
    angles = np.linspace(0, np.pi, 181)
    heights = np.linspace(0, RING_RADIUS, 201)  # on the axis of symmetry
    goals = RING_RADIUS * np.stack((np.cos(angles), np.sin(angles)))
    means = np.hypot(goals[0], goals[1] - heights[:, None]).mean(axis=1)
    centre = np.array([0.0, heights[means.argmin()]])

    def act(obs: Array) -> Array:
        return drive(obs, np.broadcast_to(centre, (len(obs), 2)))

    return act


def adapting(env: TrialEnv) -> Callable[[Array, Array, NDArray[np.bool_]], Array]:
    """Sweeps the half circle for the sparse reward, and learns the goal from two of them.

    `act(obs, reward, new_trial)`, the reward that of `env.step` with `testing=True`, 0 at first.
    The reward gives the distance, so the goal is on a circle around the robot: of its two
    crossings with the half circle the first guess is the one ahead, the other if it fails.
    """
    n = env.num_envs
    waypoint = np.zeros(n, int)
    weight = np.zeros((n, len(_CANDIDATES)))  # how badly each candidate goal explains the rewards

    def act(obs: Array, reward: Array, new_trial: NDArray[np.bool_]) -> Array:
        weight[new_trial] = 0.0
        waypoint[new_trial] = 0
        cost = 0.05 * np.einsum("na,na->n", env.applied_action, env.applied_action)
        distance = np.linalg.norm(obs[:, None, :2] - _CANDIDATES, axis=2)  # (n, candidates)
        paid = reward != 0
        measured = (RING_RADIUS - reward - cost)[:, None]
        expected = np.where(distance < GOAL_RADIUS, distance, GOAL_RADIUS + 1)
        misfit = np.where(paid[:, None], np.abs(distance - measured), distance < GOAL_RADIUS - 0.05)
        del expected
        weight[:] += misfit
        found[:] = (found & ~new_trial) | paid
        goal = _CANDIDATES[weight.argmin(axis=1)]
        angle = SWEEP_ANGLES[waypoint]
        target = SWEEP_RADIUS * np.stack((np.cos(angle), np.sin(angle)), axis=1)
        reached = np.linalg.norm(obs[:, :2] - target, axis=1) < 0.3
        waypoint[reached] = np.minimum(waypoint[reached] + 1, len(SWEEP_ANGLES) - 1)
        return drive(obs, np.where(found[:, None], goal, target))

    found = np.zeros(n, bool)
    return act


_ANGLES = np.linspace(0, np.pi, 200)
_CANDIDATES = RING_RADIUS * np.stack((np.cos(_ANGLES), np.sin(_ANGLES)), axis=1)
