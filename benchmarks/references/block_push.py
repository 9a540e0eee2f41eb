"""Scripted pushers for the five blocks: told which and where to, blind, and adapting.

All of them push in the same way: align the fork with a block from behind, drive on until it
lies between the tines, and move both. The blind one pushes the blocks one after the other to
the middle of where their goals may be, the best it can do for all; the adapting one does so
until the sparse reward comes, and pushes that block first in the next episodes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim.families.block_push import BLOCKS, GOAL_X, LANE_WIDTH
from sim.trials import TrialEnv

Array = NDArray[np.floating]
CLEARANCE = 0.12  # m, from the fork to the rearmost block, at which the tines reach none
FAST = 0.5  # m/s
LANES = np.array([2, 1, 0, 3, 4])  # the order in which they are tried


def push(obs: Array, block: NDArray[np.integer], goal: Array) -> NDArray[np.float32]:
    """Forces (n, 3) that bring `block` (n,) to `goal` (n, 2), at any stage of it."""
    rows = np.arange(len(obs))[:, None]
    fork, speed = obs[:, :2], obs[:, 18:20]
    place = obs[rows, 3 * (1 + block[:, None]) + (0, 1)]
    ahead, aside = (place - fork).T
    behind = obs[:, 3:18:3].min(axis=1) - CLEARANCE
    entering = fork[:, 0] > behind + 0.02
    held = (ahead > 0.0) & (ahead < 0.075) & (np.abs(aside) < 0.05)
    aligned = (ahead > 0.04) & (np.abs(aside) < np.where(entering, 0.035, 0.015))
    retreat = ~aligned & (fork[:, 0] > behind + 0.05)
    x = np.where(aligned, place[:, 0] - 0.03, behind)
    y = np.where(retreat, fork[:, 1], place[:, 1])
    goto = np.stack((x, y), axis=1)
    wanted = np.where(held[:, None], 5 * (goal - place), 6 * (goto - fork))
    # A block is pushed forward only: where it is past the goal, the fork stays.
    wanted[:, 0] = np.where(held, np.maximum(wanted[:, 0], 0.0), wanted[:, 0])
    wanted *= np.minimum(1, FAST / np.maximum(np.abs(wanted).max(axis=1, keepdims=True), 1e-9))
    force = 2.5 * wanted + 4 * (wanted - speed)
    torque = -4 * obs[:, 2] - 0.5 * obs[:, 20]
    return np.clip(np.column_stack((force, torque)), -1, 1).astype(np.float32)


def told(env: TrialEnv) -> Callable[[Array], Array]:
    """Pushes the right block to the goal."""

    def act(obs: Array) -> Array:
        tasks = env.tasks
        goal = np.stack((tasks["goal_x"], tasks["goal_y"]), axis=1)
        return push(obs, tasks["block"].astype(int), goal)

    return act


class _Rounds:
    """Pushes the blocks in turn, each to the middle of its lane's goals."""

    PATIENCE = 100  # steps for one block

    def __init__(self, n: int):
        self.turn = np.zeros(n, int)
        self.waited = np.zeros(n, int)
        self.order = np.tile(LANES, (n, 1))
        self.block_of_lane = np.zeros((n, BLOCKS), int)
        self.rows = np.arange(n)

    def begin(self, new: NDArray[np.bool_], obs: Array) -> None:
        """Episodes start: which block lies in which lane."""
        self.block_of_lane[new] = obs[new, 4:18:3].argsort(axis=1)
        self.turn[new] = self.waited[new] = 0

    def lane(self) -> NDArray[np.integer]:
        return self.order[self.rows, self.turn]

    def block(self) -> NDArray[np.integer]:
        return self.block_of_lane[self.rows, self.lane()]

    def act(self, obs: Array, stay: NDArray[np.bool_]) -> Array:
        block = self.block()
        across = LANE_WIDTH * (self.lane() - (BLOCKS - 1) / 2)
        goal = np.stack((np.full(len(obs), np.mean(GOAL_X)), across), axis=1)
        place = obs[self.rows[:, None], 3 * (1 + block[:, None]) + (0, 1)]
        self.waited += 1
        over = (np.abs(place - goal).max(axis=1) < 0.03) | (self.waited > self.PATIENCE)
        self.turn += over & ~stay & (self.turn < BLOCKS - 1)
        self.waited[over] = 0
        return push(obs, block, goal)


def blind(env: TrialEnv) -> Callable[[Array], Array]:
    """Pushes one block after the other to the middle of its lane's goals."""
    rounds = _Rounds(env.num_envs)
    steps = 0

    def act(obs: Array) -> Array:
        nonlocal steps
        if steps % env.family.horizon == 0:
            rounds.begin(np.ones(len(obs), bool), obs)
        steps += 1
        return rounds.act(obs, np.zeros(len(obs), bool))

    return act


def adapting(env: TrialEnv) -> Callable[[Array, Array, NDArray[np.bool_]], Array]:
    """As `blind`, but stays with the block that earns the sparse reward, and starts with it.

    Where none has, the next episode goes on with the lanes not yet tried.
    `act(obs, reward, new_episode)`: the reward that of `env.step` with `testing=True`.
    """
    n = env.num_envs
    rounds = _Rounds(n)
    known = np.zeros(n, bool)
    episode = np.full(n, -1)

    def act(obs: Array, reward: Array, new_episode: NDArray[np.bool_]) -> Array:
        rewarded = (reward > 0) & ~new_episode & ~known
        known[:] |= rewarded
        # In the next episode the lane at hand comes first: the right one, or one not yet done.
        for i in np.flatnonzero(rewarded | (new_episode & ~known)):
            rounds.order[i] = np.roll(rounds.order[i], -rounds.turn[i])
            rounds.turn[i] = 0
        episode[new_episode] = (episode[new_episode] + 1) % env.episodes
        fresh = new_episode & (episode == 0)
        known[fresh] = False
        rounds.order[fresh] = LANES
        rounds.begin(new_episode, obs)
        return rounds.act(obs, known)

    return act
