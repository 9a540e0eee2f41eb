"""Humanoid-Dir: run along a heading that only the reward tells.

Source: `humanoid-dir` of PEARL (Rakelly et al. 2019), the same in VariBAD (Zintgraf et al. 2020)
and, with the heading as a unit vector, in ProMP (Rothfuss et al. 2019).
Body: gymnasium's Humanoid-v5; one control step is 5 physics steps of 0.003 s.
Task: a heading, uniform in [0, 2 pi] rad, counter-clockwise from the x axis it faces at start.
Observation: 45 numbers: height [m], orientation as a quaternion w x y z and joint angles [rad],
then velocities, those of the torso's position in the world's frame [m/s], its rotation in its
own [rad/s], and the joints' [rad/s].
Action: 17 motors in [-1, 1], shares of the control range of 0.4 that the MJCF gives them.
Start: the body's own pose, positions and velocities off by up to 0.01.
Reward: 0.25 * 5 v.h - 0.1 |0.4 a|^2 - min(0.5e-6 sum of squared contact forces, 10) + 5, with the
velocity v of the centre of mass over the control step [m/s] and the heading h. The 5 beside 0.25
is the originals', who divide the way made in one control step by the duration of one physics
step. The 5 at the end is paid at the step that falls too.
Ends: when the torso's height leaves [1, 2] m.
Differs: the observation is Humanoid-v5's without what a robot has no sensor for (inertias, centre
of mass velocities, actuator and contact forces of every body). The left hip bends 110 degrees, as
the right one; in older bodies 120. The contact forces are those before the last physics step (see
`MujocoFamily.outputs`), under random actions a cost of 0.1 on average and 4 at most. MuJoCo 2.0
and 2.1 had none (openai/gym issue 1541), so part of the published numbers is without that cost.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.families.locomotion import (
    motor_channels,
    squared_norm,
    state_channels,
    uniform_start,
)
from sim.family import Floats, Ids
from sim.mujoco_family import MujocoFamily, MujocoWorld
from sim.task import TaskParameter

LEGS = tuple(f"{s}_{j}" for s in ("right", "left") for j in ("hip_x", "hip_z", "hip_y", "knee"))
ARMS = tuple(f"{s}_{j}" for s in ("right", "left") for j in ("shoulder1", "shoulder2", "elbow"))
JOINTS = ("abdomen_z", "abdomen_y", "abdomen_x", *LEGS, *ARMS)
MOTORS = ("abdomen_y", "abdomen_z", "abdomen_x", *LEGS, *ARMS)
MOTOR_RANGE = 0.4
QUATERNION = slice(3, 7)  # in qpos

VELOCITY_WEIGHT = 0.25 * 5  # per m/s; see the module
CONTROL_COST = 0.1
IMPACT_COST, LARGEST_IMPACT_COST = 0.5e-6, 10.0
ALIVE_BONUS = 5.0
LOWEST_M, HIGHEST_M = 1.0, 2.0
START_NOISE = 0.01


class HumanoidWorld(MujocoWorld):
    """Simulations, and where their centres of mass were before the last step [m], (n, 2)."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.center_before = self.center().copy()

    def center(self) -> NDArray[np.float64]:
        """Horizontal place of the body's centre of mass [m], (n, 2)."""
        return self.outputs["subtree_com"][:, 0, :2]


class HumanoidDir(MujocoFamily):
    """Run along a hidden heading; see the module."""

    name = "humanoid-dir"
    summary = "humanoid, hidden heading uniform in [0, 2 pi] rad"
    task_parameters = (TaskParameter("heading", "rad", 0.0, 2 * math.pi),)
    body = "humanoid.xml"
    frame_skip = 5
    control_hz = 1 / 0.015  # 5 physics steps of 0.003 s
    horizon = 200
    outputs = ("subtree_com", "cfrc_ext")
    action = motor_channels(MOTORS)
    observation = (
        *state_channels("position", [("root_z", "m")]),
        *state_channels("orientation", [(f"root_{c}", "1") for c in "wxyz"], 1.0),
        *state_channels("position", [(joint, "rad") for joint in JOINTS]),
        *state_channels("velocity", [(f"root_{axis}", "m/s") for axis in "xyz"]),
        *state_channels("rotation", [(f"root_{axis}", "rad/s") for axis in "xyz"]),
        *state_channels("velocity", [(joint, "rad/s") for joint in JOINTS]),
    )

    def world(self, num_envs: int, num_threads: int) -> HumanoidWorld:
        parameters = [p.name for p in self.task_parameters]
        return HumanoidWorld(self.model(), num_envs, num_threads, parameters, self.outputs)

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        uniform_start(world, ids, rng, START_NOISE)
        quaternion = world.qpos[ids, QUATERNION]
        world.qpos[ids, QUATERNION] = quaternion / np.linalg.norm(quaternion, axis=1)[:, None]

    def step(self, world: Any, action: Floats) -> None:
        np.copyto(world.center_before, world.center())
        super().step(world, np.multiply(action, MOTOR_RANGE, dtype=np.float64))

    def observe(self, world: MujocoWorld) -> NDArray[np.float32]:
        return np.concatenate((world.qpos[:, 2:], world.qvel), axis=1, dtype=np.float32)

    def measure(self, world: Any) -> NDArray[np.float64]:
        """Velocity of the centre of mass along the heading [m/s], (n,)."""
        velocity = (world.center() - world.center_before) * self.control_hz
        heading = world.tasks["heading"]
        return velocity[:, 0] * np.cos(heading) + velocity[:, 1] * np.sin(heading)

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        control_cost = CONTROL_COST * MOTOR_RANGE**2 * squared_norm(action)
        forces = world.outputs["cfrc_ext"]  # (n, bodies, 6), torques [N m] and forces [N]
        impact_cost = IMPACT_COST * np.einsum("nbk,nbk->n", forces, forces)
        costs = control_cost + np.minimum(impact_cost, LARGEST_IMPACT_COST)
        return VELOCITY_WEIGHT * self.measure(world) - costs + ALIVE_BONUS

    def terminated(self, world: MujocoWorld) -> NDArray[np.bool_]:
        height = world.qpos[:, 2]
        return ~((height >= LOWEST_M) & (height <= HIGHEST_M))
