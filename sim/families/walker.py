"""Walker2d: two legs in the plane, walking forward without falling, on a body that varies.

Source: as the hopper's, with gymnasium's Walker2d-v5 (`sim/families/hopper.py`).
Body: gymnasium's; one control step is 4 physics steps of 0.002 s.
Task: factors 1.5^U[-3, 3] on mass, inertia and friction, 1.3^U[-3, 3] on damping, each by itself.
Observation: 17 numbers: positions without the absolute x [m, rad], then velocities clipped to 10
[m/s, rad/s].
Action: 6 motors, as shares of 100 N m.
Start: the body's own pose, positions and velocities off by up to 0.005.
Reward: v + 1 - 1e-3 |a|^2, with v the forward velocity of the torso over the control step [m/s].
Ends: when the torso's height is not within (0.8, 2) m or its pitch not within 1 rad.
Differs: in the alive bonus, as the hopper. rand_param_envs makes 5 physics steps of 0.004 s, and
its right foot has a friction of 0.9 where both have 1.9 here.
"""

import numpy as np
from numpy.typing import NDArray

from sim.families.locomotion import PlanarRunner, motor_channels, planar_channels
from sim.mujoco_family import MujocoWorld

JOINTS = ("thigh", "leg", "foot", "thigh_left", "leg_left", "foot_left")
LOWEST_M, HIGHEST_M = 0.8, 2.0
STEEPEST_RAD = 1.0


class Walker(PlanarRunner):
    """The body, without a task."""

    body = "walker2d_v5.xml"
    frame_skip = 4
    control_hz = 125.0  # 4 physics steps of 0.002 s
    velocity_limit = 10.0
    observation = planar_channels(JOINTS, velocity_limit)
    action = motor_channels(JOINTS)
    control_cost_weight = 1e-3
    alive_bonus = 1.0
    start_noise = 0.005

    def terminated(self, world: MujocoWorld) -> NDArray[np.bool_]:
        height, pitch = world.qpos[:, 1], world.qpos[:, 2]
        # Every comparison is false for a nan, which thereby terminates.
        upright = (height > LOWEST_M) & (height < HIGHEST_M) & (np.abs(pitch) < STEEPEST_RAD)
        return ~upright


class WalkerRun(Walker):
    """Walk forward. No task of its own, a body to vary the dynamics of."""

    name = "walker-run"
    summary = "walker, running forward"
    task_parameters = ()
