"""Hopper: one leg, hopping forward without falling, on a body that varies.

Source: the rand_param_envs package that ProMP, PEARL and VariBAD vary the dynamics with (Rothfuss
et al. 2019). Observation, start and end are gymnasium's Hopper-v5, which in these is the same.
Body: gymnasium's; one control step is 4 physics steps of 0.002 s.
Task: factors 1.5^U[-3, 3] on mass, inertia and friction, 1.3^U[-3, 3] on damping, each by itself.
Observation: 11 numbers: positions without the absolute x [m, rad], then velocities clipped to 10
[m/s, rad/s].
Action: 3 motors, as shares of 200 N m.
Start: the body's own pose, positions and velocities off by up to 0.005.
Reward: v + 1 - 1e-3 |a|^2, with v the forward velocity of the torso over the control step [m/s].
Ends: when the torso's height is not above 0.7 m or its pitch not within 0.2 rad, when a
coordinate other than x and z, or a velocity, reaches 100, or when the state is not finite.
Differs: the 1 for being alive is paid at the step that falls too, as in rand_param_envs;
gymnasium's own task withholds it there. rand_param_envs makes 4 physics steps of 0.004 s.
"""

import numpy as np
from numpy.typing import NDArray

from sim.families.locomotion import PlanarRunner, motor_channels, planar_channels
from sim.mujoco_family import MujocoWorld

JOINTS = ("thigh", "leg", "foot")
LOWEST_M = 0.7
STEEPEST_RAD = 0.2
LARGEST = 100.0  # of any coordinate but x and z, and of any velocity


class Hopper(PlanarRunner):
    """The body, without a task."""

    body = "hopper.xml"
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
        # Every comparison is false for a nan, so what is compared is also finite.
        bounded = (np.abs(world.qpos[:, 2:]) < LARGEST).all(axis=1)
        bounded &= (np.abs(world.qvel) < LARGEST).all(axis=1)
        upright = (height > LOWEST_M) & (np.abs(pitch) < STEEPEST_RAD)
        return ~(upright & bounded & np.isfinite(world.qpos[:, :2]).all(axis=1))


class HopperRun(Hopper):
    """Hop forward. No task of its own, a body to vary the dynamics of."""

    name = "hopper-run"
    summary = "hopper, running forward"
    task_parameters = ()
