"""A family that is learned in seconds: say the number that the reward hides.

Observation: the last action. Reward: three times a target in [-1, 1], less the distance of the
action from it: so that one step tells the target.
"""

import numpy as np

from sim.family import Channel, TaskFamily
from sim.task import TaskParameter

NAME = "tests.hidden_target:HiddenTarget"


class World:
    def __init__(self, n):
        self.said, self.target = np.zeros(n), np.zeros(n)


class HiddenTarget(TaskFamily):
    name = NAME
    summary = "say the hidden number"
    observation = (Channel("said", "1", -1.0, 1.0),)
    action = (Channel("say", "1", -1.0, 1.0),)
    task_parameters = (TaskParameter("target", "1", -1.0, 1.0),)
    control_hz, horizon = 10.0, 10

    def world(self, num_envs, num_threads):
        return World(num_envs)

    def apply(self, world, ids, tasks):
        world.target[ids] = tasks["target"]

    def reset(self, world, ids, rng):
        world.said[ids] = 0.0

    def step(self, world, action):
        world.said = action[:, 0].astype(float)

    def observe(self, world):
        return world.said[:, None].astype(np.float32)

    def reward(self, world, action):
        return 3 * world.target - np.abs(action[:, 0] - world.target)
