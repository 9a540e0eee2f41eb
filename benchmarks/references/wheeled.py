"""Scripted drivers for the wheeled robot: told the goal, blind, and adapting.

The blind one cannot know the goal, and no fixed place is near more than a part of the half
circle: it stays where the mean distance to the goals is least. The adapting one drives along
the half circle until the sparse reward comes, and works out from it where the goal is.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim.families.wheeled import CONTROL_COST, GOAL_RADIUS, RING_RADIUS
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
    forward = 1.5 * gain * (way * np.minimum(1.2, 2 * distance) * np.cos(angle) ** 3 - speed)
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
    """Sweeps the half circle until the sparse reward comes, then drives to what explains it.

    Every reward says how far the goal is, or that it is not near; the goal that contradicts the
    rewards of the trial so far the least is driven to, in this episode and the next ones.
    `act(obs, reward, new_episode)`: the reward that of `env.step` with `testing=True`.
    """
    n = env.num_envs
    angles = np.linspace(0, np.pi, 200)
    goals = RING_RADIUS * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    contradiction = np.zeros((n, len(goals)))
    found = np.zeros(n, bool)
    waypoint, episode = np.zeros(n, int), np.full(n, -1)

    def learn(obs: Array, reward: Array, new_episode: NDArray[np.bool_]) -> None:
        distance = np.linalg.norm(obs[:, None, :2] - goals, axis=2)  # (n, goals)
        cost = CONTROL_COST * np.square(env.applied_action).sum(axis=1)
        paid = reward + cost > 1  # what the goal pays, at least 1.2 of it
        error = np.abs(distance - (RING_RADIUS - reward - cost)[:, None])
        error = np.where(paid[:, None], error, distance < GOAL_RADIUS - 0.05)
        contradiction[~new_episode] += error[~new_episode]
        found[:] |= paid & ~new_episode

    def act(obs: Array, reward: Array, new_episode: NDArray[np.bool_]) -> Array:
        episode[new_episode] = (episode[new_episode] + 1) % env.episodes
        fresh = new_episode & (episode == 0)
        contradiction[fresh], found[fresh] = 0.0, False
        waypoint[fresh] = 0  # else the sweep goes on where it was
        learn(obs, reward, new_episode)
        angle = SWEEP_ANGLES[waypoint]
        target = SWEEP_RADIUS * np.stack((np.cos(angle), np.sin(angle)), axis=1)
        reached = np.linalg.norm(obs[:, :2] - target, axis=1) < 0.3
        waypoint[reached] = np.minimum(waypoint[reached] + 1, len(SWEEP_ANGLES) - 1)
        goal = goals[contradiction.argmin(axis=1)]
        return drive(obs, np.where(found[:, None], goal, target))

    return act
