"""HalfCheetah families: a target velocity, a direction, or a body to run with.

Source: the rewards of the meta-RL literature (Finn et al. 2017, MAML; Rothfuss et al. 2019, ProMP;
Rakelly et al. 2019, PEARL; Zintgraf et al. 2020, VariBAD).
Body: gymnasium's HalfCheetah-v5; one control step is 5 physics steps of 0.01 s.
Observation: 17 numbers, gymnasium's: positions without the absolute x [m, rad], then velocities
[m/s, rad/s].
Action: 6 motors, as shares of 30 to 120 N m.
Start: the body's own pose, positions off by up to 0.1, velocities normal with deviation 0.1.
Reward: as below, with the mean forward velocity v over the control step [m/s] and the action a.
Ends: never.
Differs: gymnasium's own task has a control cost of 0.1. The MAML paper draws the target velocity
from U[0, 2], later code from U[0, 3], so both are families. Some code observes the absolute x.

======================= =========================================== ========================
family                  task                                        reward
======================= =========================================== ========================
halfcheetah-vel         target velocity v* ~ U[0, 3] m/s            -|v - v*| - 0.05 |a|^2
halfcheetah-vel-0to2    target velocity v* ~ U[0, 2] m/s            the same
halfcheetah-dir         direction d, +1 or -1                       d v - 0.05 |a|^2
halfcheetah-rand-params mass, inertia, friction, damping            v - 0.05 |a|^2
======================= =========================================== ========================
"""

import numpy as np
from numpy.typing import NDArray

from sim.families.locomotion import PlanarRunner, motor_channels, planar_channels
from sim.family import Floats, Ids
from sim.mujoco_family import MujocoWorld
from sim.task import TaskParameter

JOINTS = ("back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot")


class HalfCheetah(PlanarRunner):
    """The body, without a task."""

    body = "half_cheetah.xml"
    frame_skip = 5
    control_hz = 20.0  # 5 physics steps of 0.01 s
    observation = planar_channels(JOINTS)
    action = motor_channels(JOINTS)
    control_cost_weight = 0.05
    start_noise = 0.1

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        shape = (len(ids), world.model.nq)
        noise = self.start_noise
        world.qpos[ids] = world.model.qpos0 + rng.uniform(-noise, noise, shape)
        world.qvel[ids] = noise * rng.standard_normal(shape)  # normal, as gymnasium's


class HalfCheetahRun(HalfCheetah):
    """Run forward: reward v - 0.05 |a|^2. No task of its own, a body to vary the dynamics of."""

    name = "halfcheetah-run"
    summary = "half cheetah, running forward"
    task_parameters = ()


class HalfCheetahVel(HalfCheetah):
    """Run at a hidden target velocity: reward -|v - v*| - 0.05 |a|^2."""

    def __init__(self, name: str = "halfcheetah-vel", low: float = 0.0, high: float = 3.0):
        self.name = name
        self.summary = f"half cheetah, hidden target velocity uniform in [{low:g}, {high:g}] m/s"
        self.task_parameters = (TaskParameter("target_velocity", "m/s", low, high),)

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        error = np.abs(self.forward_velocity(world) - world.tasks["target_velocity"])
        return -error - self.control_cost(action)


class HalfCheetahDir(HalfCheetah):
    """Run forward or backward, whichever is rewarded: reward d v - 0.05 |a|^2."""

    name = "halfcheetah-dir"
    summary = "half cheetah, hidden direction, forward (+1) or backward (-1)"
    task_parameters = (TaskParameter("direction", "1", -1.0, 1.0, choices=(-1.0, 1.0)),)

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        return world.tasks["direction"] * self.forward_velocity(world) - self.control_cost(action)
