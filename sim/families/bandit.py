"""Bandits: the smallest task families that need a memory.

Source: `bandit-5` and `bandit-10` are those of Duan et al. 2016 (RL2); `bandit` has 2 arms and
half as many pulls. A trial is one episode.
Task: success probabilities from U[0, 1], independently per arm.
Observation: a constant zero; there is neither physics nor state.
Action: one element per arm; the arm of the largest is pulled.
Reward: 1 with the arm's probability, else 0.
Ends: never.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.family import Channel, Floats, Ids, TaskFamily
from sim.picture import FLOOR, GOAL, INK, ROBOT, Canvas
from sim.task import TaskParameter, Tasks


@dataclass
class BanditWorld:
    """Success probabilities (n, arms), and of the last pull the arm and the reward (n,)."""

    probability: NDArray[np.float64]
    last_arm: NDArray[np.intp]
    """-1 before the first pull."""
    last_reward: NDArray[np.float64]
    rng: np.random.Generator


class Bandit(TaskFamily):
    """`arms` arms that pay 1 with probabilities drawn from U[0, 1], independently per task."""

    control_hz = 20.0
    episodes = 1
    observation = (Channel("nothing", "1", 0.0, 0.0),)

    def __init__(self, name: str = "bandit", arms: int = 2, horizon: int = 50):
        self.name = name
        self.horizon = horizon
        self.summary = f"{arms}-armed Bernoulli bandit, success probabilities uniform in [0, 1]"
        self.action = tuple(Channel(f"arm_{k}", "1", -1.0, 1.0) for k in range(arms))
        self.task_parameters = tuple(
            TaskParameter(f"probability_{k}", "1", 0.0, 1.0, least=0.0, most=1.0)
            for k in range(arms)
        )

    def world(self, num_envs: int, num_threads: int) -> BanditWorld:
        return BanditWorld(
            np.zeros((num_envs, len(self.action))),
            np.full(num_envs, -1),
            np.zeros(num_envs),
            np.random.default_rng(0),
        )

    def apply(self, world: BanditWorld, ids: Ids, tasks: Tasks) -> None:
        for column, parameter in enumerate(self.task_parameters):
            world.probability[ids, column] = tasks[parameter.name]

    def reset(self, world: BanditWorld, ids: Ids, rng: np.random.Generator) -> None:
        world.last_arm[ids] = -1
        world.last_reward[ids] = 0.0
        world.rng = rng  # the environment's stream: pulls are reproducible by its seed

    def step(self, world: BanditWorld, action: Floats) -> None:
        arm = np.argmax(action, axis=1)
        chance = world.probability[np.arange(len(arm)), arm]
        world.last_arm[:] = arm
        world.last_reward[:] = world.rng.random(len(arm)) < chance

    def observe(self, world: BanditWorld) -> NDArray[np.float32]:
        return np.zeros((len(world.last_reward), 1), np.float32)

    def reward(self, world: BanditWorld, action: Floats) -> NDArray[np.float64]:
        return world.last_reward.copy()

    def draw(self, world: BanditWorld, index: int) -> NDArray[np.uint8]:
        """The arms of simulation `index` as bars, as high as they are probable, (240, 320, 3).

        A dot marks the arm pulled last, orange if it paid.
        """
        canvas = Canvas((-0.1, -0.2), (1.5, 1.0))
        width = 1.4 / len(self.action)
        for arm, chance in enumerate(world.probability[index]):
            left, right = (arm + 0.1) * width, (arm + 0.9) * width
            canvas.rectangle((left, 0.0), (right, 0.95), FLOOR)
            canvas.rectangle((left, 0.0), (right, 0.95 * chance), ROBOT)
        if world.last_arm[index] >= 0:
            middle = ((world.last_arm[index] + 0.5) * width, -0.1)
            canvas.disc(middle, 0.04, GOAL if world.last_reward[index] else INK)
        return canvas.image
