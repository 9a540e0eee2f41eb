"""Walker2d: two legs in the plane, walking forward without falling.

Body, observation (17 numbers: positions without the absolute x, then velocities clipped to
10), start states and termination are those of gymnasium's Walker2d-v5, which in these are
those of the rand_param_envs package that ProMP, PEARL and VariBAD vary the dynamics with
(Rothfuss et al. 2019). Two differences: one control step is 4 physics steps of 0.002 s as in
gymnasium, where rand_param_envs makes 5 of 0.004 s; and both feet have a friction of 1.9, where
the right one of rand_param_envs has 0.9. Actions are shares of the motors' 100 N m; an episode
has 200 steps.

Reward: v + 1 - 1e-3 |a|^2, with v the forward velocity of the torso over the control step
[m/s]. The 1 for being alive is paid at the step that falls too, as in rand_param_envs;
gymnasium's own task withholds it there.

Terminates when the torso's height is not within (0.8, 2) m or its pitch not within 1 rad.
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
