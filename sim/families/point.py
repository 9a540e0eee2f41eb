"""A point in the plane, moved by displacements: goals on a half circle, or in a square.

Source: `point-sparse` is PEARL's sparse point robot (Rakelly et al. 2019), `point-nav` the 2-D
navigation of MAML (Finn et al. 2017).
Task: `point-sparse`: a goal on the unit half circle, its angle uniform in [0, pi]. `point-nav`: a
goal uniform in the square [-0.5, 0.5] x [-0.5, 0.5] m.
Observation: the position [m].
Action: a displacement; an element of 1 is 0.1 m along its axis in one control step, the bound of
the sources. There is no inertia and no noise.
Start: the origin, in every episode.
Reward: minus the distance to the goal [m]. At meta-test `point-sparse` pays 1 minus the distance
within 0.2 m of the goal and 0 elsewhere.
Ends: `point-nav` when both coordinates are within 0.01 m of the goal's; `point-sparse` never.
Differs: PEARL places its goals evenly on the half circle and splits them into training and test.
To pass within 0.2 m of every goal takes two to three episodes of 20 steps, so a trial has four.
MAML's published code is followed where the paper's text says the squared distance.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.family import Channel, Floats, Ids, TaskFamily
from sim.picture import FLOOR, GOAL, INK, PAPER, ROBOT, Canvas
from sim.task import TaskParameter, Tasks

REACH = 0.1
"""Displacement per axis in one control step at an action of 1 [m]."""
SPARSE_RADIUS = 0.2
ARRIVED = 0.01


@dataclass
class PointWorld:
    """Positions and goals, (n, 2) each [m]."""

    position: NDArray[np.float64]
    goal: NDArray[np.float64]


class Point(TaskFamily):
    """The point, without a task; a subclass writes `world.goal`."""

    control_hz = 10.0
    observation = tuple(Channel(f"{axis}_position", "m", -math.inf, math.inf) for axis in "xy")
    action = tuple(Channel(f"{axis}_step", "0.1 m", -1.0, 1.0) for axis in "xy")

    def world(self, num_envs: int, num_threads: int) -> PointWorld:
        return PointWorld(np.zeros((num_envs, 2)), np.zeros((num_envs, 2)))

    def reset(self, world: PointWorld, ids: Ids, rng: np.random.Generator) -> None:
        world.position[ids] = 0.0

    def step(self, world: PointWorld, action: Floats) -> None:
        world.position += REACH * np.asarray(action, np.float64)

    def observe(self, world: PointWorld) -> NDArray[np.float32]:
        return world.position.astype(np.float32)

    def reward(self, world: PointWorld, action: Floats) -> NDArray[np.float64]:
        return -self.distance(world)

    def distance(self, world: PointWorld) -> NDArray[np.float64]:
        """Distance to the goal [m], (n,)."""
        return np.hypot(*(world.position - world.goal).T)

    def measure(self, world: PointWorld) -> NDArray[np.float64]:
        return self.distance(world)

    def _draw_on(self, canvas: Canvas, world: PointWorld, index: int, size: float) -> None:
        """Add the start, and the point as a disc of radius `size` [m]."""
        canvas.disc((0.0, 0.0), size / 3, INK)
        canvas.disc(world.position[index], size, ROBOT)


class PointSparse(Point):
    """Goals on the unit half circle; paid near them only when tested."""

    name = "point-sparse"
    summary = "point, hidden goal on the unit half circle, reward within 0.2 m of it when tested"
    horizon = 20
    episodes = 4
    sparse_at_test = True
    task_parameters = (TaskParameter("goal_angle", "rad", 0.0, math.pi),)

    def apply(self, world: PointWorld, ids: Ids, tasks: Tasks) -> None:
        angle = tasks["goal_angle"]
        world.goal[ids] = np.stack((np.cos(angle), np.sin(angle)), axis=1)

    def test_reward(self, world: PointWorld, action: Floats) -> NDArray[np.float64]:
        distance = self.distance(world)
        return np.where(distance <= SPARSE_RADIUS, 1 - distance, 0.0)

    def draw(self, world: PointWorld, index: int) -> NDArray[np.uint8]:
        """Simulation `index` as a picture, (240, 320, 3)."""
        canvas = Canvas((-1.5, -0.5), (1.5, 1.5))
        canvas.ring((0.0, 0.0), 1.0, FLOOR)
        canvas.rectangle((-1.5, -1.5), (1.5, -0.02), PAPER)  # half a circle remains
        canvas.disc(world.goal[index], SPARSE_RADIUS, GOAL)
        self._draw_on(canvas, world, index, 0.06)
        return canvas.image


class PointNav(Point):
    """Goals in a square; an episode ends on arrival."""

    name = "point-nav"
    summary = "point, hidden goal uniform in a square of side 1 m, ends on arrival"
    horizon = 100
    task_parameters = tuple(TaskParameter(f"goal_{axis}", "m", -0.5, 0.5) for axis in "xy")

    def apply(self, world: PointWorld, ids: Ids, tasks: Tasks) -> None:
        world.goal[ids] = np.stack((tasks["goal_x"], tasks["goal_y"]), axis=1)

    def terminated(self, world: PointWorld) -> NDArray[np.bool_]:
        return np.abs(world.position - world.goal).max(axis=1) < ARRIVED

    def draw(self, world: PointWorld, index: int) -> NDArray[np.uint8]:
        """Simulation `index` as a picture, (240, 320, 3)."""
        canvas = Canvas((-0.8, -0.6), (0.8, 0.6))
        canvas.rectangle((-0.5, -0.5), (0.5, 0.5), FLOOR)
        canvas.disc(world.goal[index], 0.04, GOAL)
        self._draw_on(canvas, world, index, 0.03)
        return canvas.image
