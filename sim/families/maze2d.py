"""A T-shaped maze in which a grey box tells which of two coloured boxes is the goal.

Source: the maze with a sign of Kamienny et al. 2020 ("Learning adaptive exploration strategies in
dynamic environments through informed policy regularization"), whose best run takes about 19 steps.
Body: a ball of radius 0.12 m with a velocity servo per axis, in a maze of 4 x 3 m. The coloured
boxes are at the ends of the crossbar, the grey box in a corridor on the left of the start.
Task: the goal is the left (-1) or the right (+1) box.
Observation: position [m], velocity [m/s], and the sign: 0, and within 0.6 m of the grey box -1 or
+1, the side of the goal.
Action: the commanded velocity per axis, as a share of 2 m/s.
Start: at the foot of the stem, within 0.1 m of (0, -1.125) m and at rest.
Reward: 1 for touching the goal, -1 for touching the other box, else 0.
Ends: when a box is touched. Who knows the goal needs 19 steps at most; by way of the grey box it
takes about 32. In the second episode the sign need not be read again.
Differs: body and layout are this project's own (`sim/assets/maze2d.xml`).
"""

import math

import numpy as np
from numpy.typing import NDArray

from sim.family import Channel, Floats, Ids, Marker
from sim.mujoco_family import OWN_BODIES, MujocoFamily, MujocoWorld
from sim.task import TaskParameter

START = np.array([0.0, -1.125])
START_NOISE = 0.1
BOXES = np.array([[-1.8, 1.125], [1.8, 1.125]])
"""Centres of the left and the right box [m], (2, 2)."""
SIGN = np.array([-1.8, -1.125])
"""Centre of the grey box [m]."""
SIGN_RADIUS = 0.6
BOX_HALF = 0.2
ROBOT_RADIUS = 0.12


class Maze2D(MujocoFamily):
    """Read the sign, then touch the box it tells."""

    name = "maze2d"
    summary = "T-shaped maze, a grey box tells which of two coloured boxes is the goal"
    bodies = OWN_BODIES
    body = "maze2d.xml"
    frame_skip = 10
    control_hz = 10.0  # 10 physics steps of 0.01 s
    horizon = 60
    observation = (
        *(Channel(f"{axis}_position", "m", -math.inf, math.inf) for axis in "xy"),
        *(Channel(f"{axis}_velocity", "m/s", -math.inf, math.inf) for axis in "xy"),
        Channel("sign", "1", -1.0, 1.0),
    )
    action = tuple(Channel(f"{axis}_velocity", "2 m/s", -1.0, 1.0) for axis in "xy")
    task_parameters = (TaskParameter("goal_side", "1", -1.0, 1.0, choices=(-1.0, 1.0)),)

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        world.qpos[ids] = rng.uniform(-START_NOISE, START_NOISE, (len(ids), 2))
        world.qvel[ids] = 0.0

    def position(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Where the robot is [m], (n, 2); `qpos` counts from `START`."""
        return START + world.qpos

    def observe(self, world: MujocoWorld) -> NDArray[np.float32]:
        position = self.position(world)
        near = np.hypot(*(position - SIGN).T) <= SIGN_RADIUS
        sign = np.where(near, world.tasks["goal_side"], 0.0)
        return np.column_stack((position, world.qvel, sign)).astype(np.float32)

    def touched(self, world: MujocoWorld) -> NDArray[np.float64]:
        """The side of the box that the robot touches, 0 for neither, (n,)."""
        away = np.abs(self.position(world)[:, None] - BOXES)  # (n, 2 boxes, 2 axes)
        gap = np.linalg.norm(np.maximum(away - BOX_HALF, 0), axis=2)
        return (gap <= ROBOT_RADIUS) @ np.array([-1.0, 1.0])

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        return self.touched(world) * world.tasks["goal_side"]

    def terminated(self, world: MujocoWorld) -> NDArray[np.bool_]:
        return self.touched(world) != 0

    def measure(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Straight distance to the centre of the goal [m], (n,)."""
        goal = BOXES[(world.tasks["goal_side"] > 0).astype(np.intp)]
        return np.hypot(*(self.position(world) - goal).T)

    def markers(self, world: MujocoWorld, index: int) -> list[Marker]:
        x, y = BOXES[int(world.tasks["goal_side"][index] > 0)]
        return [Marker((x, y, 0.4), radius=0.1)]
