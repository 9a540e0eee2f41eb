"""Five blocks, one of which is to be pushed to a goal; which, and where to, is hidden.

Source: Gupta et al. 2018 (MAESN), as its released code has it: lanes, ranges, task, dense reward,
sparse radius, a fork moved by three motors, a fixed start.
Body: a fork of at most 0.5 m/s, blocks of 6 cm; one control step is 5 physics steps of 0.01 s.
Task: the table has five lanes along x, 0.2 m wide, from y = -0.5 to 0.5 m. The blocks are dealt
to the lanes at random, one to each, and start at x in [0.35, 0.65] m. One of them counts. Its
goal is in its own lane, at x in [0.75, 0.95] m and anywhere across. Where a task changes inside
an episode, the blocks stay where they are, so the new goal may lie across from its block.
Observation: 36 numbers: the positions [m] and yaw [rad] of the fork and of the five blocks, then
their velocities.
Action: force on the fork in x and y and torque about z, as shares of the motors' maximum.
Start: fork at 0, blocks as the task says: every episode of a trial starts the same.
Reward: -5 |b - g|, with b the place of the block that counts and g its goal [m]. At meta-test it
is sparse: within 0.2 m of the goal 5 (|g| - |b - g|), elsewhere 0.
Ends: never.
Differs: the body is another, at 20 control steps per second instead of 100. The blocks also turn,
the fork turns by at most half a turn, nothing leaves the table. A block lies within its lane as a
whole, so that none overlap; in the code only its centre does. The code's sparse reward is 5 |g|
less, so not 0 outside the radius. The code draws 100 arrangements to train on once; here every
trial draws a new one.
"""

import math

import numpy as np
from numpy.typing import NDArray

from sim.family import HELD_OUT_STREAM, Channel, Floats, Ids, Marker
from sim.mujoco_family import OWN_BODIES, MujocoFamily, MujocoWorld
from sim.task import TaskParameter, Tasks

BLOCKS = 5
LANE_WIDTH = 0.2  # m; lane i covers y from (i - 2.5) to (i - 1.5) widths
HALF_BLOCK = 0.03  # m
START_X = (0.35, 0.65)  # m
GOAL_X = (0.75, 0.95)  # m
GOAL_RADIUS = 0.2  # m, within which the sparse reward is paid
SCALE = 5.0  # of the reward, per metre
GREEN = (0.2, 0.85, 0.4, 0.7)  # the goal in pictures


def _channels() -> tuple[Channel, ...]:
    free = math.inf
    bodies = ("fork", *(f"block_{k}" for k in range(BLOCKS)))
    coordinates = (("x", "m"), ("y", "m"), ("yaw", "rad"))
    return tuple(
        Channel(f"{body}_{coordinate}_{quantity}", unit + per, -free, free)
        for quantity, per in (("position", ""), ("velocity", "/s"))
        for body in bodies
        for coordinate, unit in coordinates
    )


def _task_parameters() -> tuple[TaskParameter, ...]:
    edge = BLOCKS * LANE_WIDTH / 2
    across = (-edge + HALF_BLOCK, edge - HALF_BLOCK)
    starts = [
        TaskParameter(f"block_{k}_{axis}", "m", *ends)
        for k in range(BLOCKS)
        for axis, ends in (("x", START_X), ("y", across))
    ]
    return (
        TaskParameter("block", "1", 0.0, BLOCKS - 1.0, choices=tuple(map(float, range(BLOCKS)))),
        TaskParameter("goal_x", "m", *GOAL_X),
        TaskParameter("goal_y", "m", -edge, edge),
        *starts,
    )


class BlockPush(MujocoFamily):
    """Push the right block to the goal; see the module."""

    name = "block-push"
    summary = "fork and five blocks, hidden which to push to which hidden goal (MAESN)"
    bodies = OWN_BODIES
    body = "block_push.xml"
    frame_skip = 5
    control_hz = 20.0  # 5 physics steps of 0.01 s
    horizon = 200
    observation = _channels()
    action = tuple(
        Channel(f"fork_{name}", "1", -1.0, 1.0) for name in ("x_force", "y_force", "torque")
    )
    sparse_at_test = True
    task_parameters = _task_parameters()
    drawn_together = tuple(p.name for p in task_parameters)

    def sample(self, rng: np.random.Generator, n: int) -> Tasks:
        return self._arrange(rng, rng.integers(0, BLOCKS, n))

    def held_out(self, n: int, seed: int = 0) -> Tasks:
        # Dealt before the goal is drawn, which lies in the lane of the block.
        return self._arrange(np.random.default_rng([HELD_OUT_STREAM, seed]), np.arange(n) % BLOCKS)

    def _arrange(self, rng: np.random.Generator, block: NDArray[np.integer]) -> Tasks:
        """Tasks in which the blocks `block` (n,) count."""
        n = len(block)
        lane = rng.permuted(np.tile(np.arange(BLOCKS), (n, 1)), axis=1)  # (n, blocks)
        x = rng.uniform(*START_X, (n, BLOCKS))
        y = _across(lane) + rng.uniform(HALF_BLOCK, LANE_WIDTH - HALF_BLOCK, (n, BLOCKS))
        tasks = {"block": block.astype(np.float64), "goal_x": rng.uniform(*GOAL_X, n)}
        tasks["goal_y"] = _across(lane[np.arange(n), block]) + rng.uniform(0, LANE_WIDTH, n)
        for k in range(BLOCKS):
            tasks[f"block_{k}_x"], tasks[f"block_{k}_y"] = x[:, k], y[:, k]
        return tasks

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        for k in range(BLOCKS):
            for column, axis in enumerate("xy", 3 * (1 + k)):
                world.qpos[ids, column] = world.tasks[f"block_{k}_{axis}"][ids]

    def observe(self, world: MujocoWorld) -> NDArray[np.float32]:
        return np.concatenate((world.qpos, world.qvel), axis=1, dtype=np.float32)

    def goal(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Where the goals are [m], (n, 2)."""
        return np.stack((world.tasks["goal_x"], world.tasks["goal_y"]), axis=1)

    def measure(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Distance from the block that counts to its goal [m], (n,)."""
        x = 3 * (1 + world.tasks["block"].astype(np.intp))  # its column in `qpos`
        rows = np.arange(len(x))
        return np.hypot(
            world.qpos[rows, x] - world.tasks["goal_x"],
            world.qpos[rows, x + 1] - world.tasks["goal_y"],
        )

    def markers(self, world: MujocoWorld, index: int) -> list[Marker]:
        x, y = self.goal(world)[index]
        column = 3 * (1 + int(world.tasks["block"][index]))
        above = (*world.qpos[index, column : column + 2], 0.1)
        return [
            Marker((x, y, 0.03), rgba=GREEN, radius=0.03),
            Marker(above, rgba=GREEN, radius=0.015),  # over the block that counts
        ]

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        return -SCALE * self.measure(world)

    def test_reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        distance = self.measure(world)
        full = np.hypot(world.tasks["goal_x"], world.tasks["goal_y"])
        return np.where(distance <= GOAL_RADIUS, SCALE * (full - distance), 0.0)


def _across(lane: NDArray[np.integer]) -> NDArray[np.float64]:
    """The lower edge in y of lanes [m]."""
    return LANE_WIDTH * (lane.astype(np.float64) - BLOCKS / 2)
