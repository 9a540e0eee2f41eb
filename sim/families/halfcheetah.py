"""HalfCheetah families: a target velocity, or a direction to run in.

Body and observation are those of gymnasium's HalfCheetah-v5 (17 numbers: positions
without the absolute x, then velocities). The rewards are those of the meta-RL
literature, whose control cost is 0.05 per unit of squared action where gymnasium's
own task has 0.1 (Finn et al. 2017; Rothfuss et al. 2019, ProMP; Rakelly et al. 2019,
PEARL; Zintgraf et al. 2020, VariBAD).
"""

import math

import numpy as np
from numpy.typing import NDArray

from sim.family import Channel, Floats, Ids, TaskParameter
from sim.mujoco_family import MujocoFamily, MujocoWorld

JOINTS = ("back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot")
CONTROL_COST = 0.05
START_NOISE = 0.1


def _observation_channels() -> tuple[Channel, ...]:
    free = math.inf
    positions = [("root_z", "m"), ("root_pitch", "rad"), *((j, "rad") for j in JOINTS)]
    velocities = [("root_x", "m/s"), ("root_z", "m/s"), ("root_pitch", "rad/s")]
    velocities += [(j, "rad/s") for j in JOINTS]
    return (
        *(Channel(f"{name}_position", unit, -free, free) for name, unit in positions),
        *(Channel(f"{name}_velocity", unit, -free, free) for name, unit in velocities),
    )


class HalfCheetah(MujocoFamily):
    """The body, without a task."""

    body = "half_cheetah.xml"
    frame_skip = 5
    control_hz = 20.0  # 5 physics steps of 0.01 s
    horizon = 200
    observation = _observation_channels()
    action = tuple(Channel(f"{joint}_torque", "1", -1.0, 1.0) for joint in JOINTS)

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        shape = (len(ids), world.model.nq)
        world.qpos[ids] = world.model.qpos0 + rng.uniform(-START_NOISE, START_NOISE, shape)
        world.qvel[ids] = START_NOISE * rng.standard_normal(shape)

    def observe(self, world: MujocoWorld) -> NDArray[np.float32]:
        return np.concatenate((world.qpos[:, 1:], world.qvel), axis=1, dtype=np.float32)

    def forward_velocity(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Mean forward velocity over the last control step [m/s], (n,)."""
        return (world.qpos[:, 0] - world.qpos_before[:, 0]) * self.control_hz

    def measure(self, world: MujocoWorld) -> NDArray[np.float64]:
        return self.forward_velocity(world)

    def control_cost(self, action: Floats) -> NDArray[np.float64]:
        """0.05 times the squared norm of the action, (n,)."""
        return CONTROL_COST * np.einsum("na,na->n", action, action)


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
