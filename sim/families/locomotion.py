"""What locomotion bodies share: channels, start noise, and running in the vertical plane."""

import math
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sim.family import Channel, Floats, Ids
from sim.mujoco_family import MujocoFamily, MujocoWorld


def motor_channels(joints: Iterable[str]) -> tuple[Channel, ...]:
    """One action in [-1, 1] per motor, as a share of its largest torque."""
    return tuple(Channel(f"{joint}_torque", "1", -1.0, 1.0) for joint in joints)


def state_channels(
    kind: str, elements: Iterable[tuple[str, str]], limit: float = math.inf
) -> tuple[Channel, ...]:
    """Channels called `<name>_<kind>`, of (name, unit) each, in [-limit, limit]."""
    return tuple(Channel(f"{name}_{kind}", unit, -limit, limit) for name, unit in elements)


def planar_channels(joints: Iterable[str], limit: float = math.inf) -> tuple[Channel, ...]:
    """Observation of a body in the vertical plane: positions without x, then velocities.

    `limit` is that of every observed velocity [m/s or rad/s].
    """
    hinges = [("root_pitch", "rad"), *((joint, "rad") for joint in joints)]
    turning = [(name, "rad/s") for name, _ in hinges]
    return (
        *state_channels("position", [("root_z", "m"), *hinges]),
        *state_channels("velocity", [("root_x", "m/s"), ("root_z", "m/s"), *turning], limit),
    )


def squared_norm(action: Floats) -> NDArray[np.float64]:
    """|a|^2 of every simulation's action, (n,)."""
    return np.einsum("na,na->n", action, action, dtype=np.float64)


def uniform_start(world: MujocoWorld, ids: Ids, rng: np.random.Generator, noise: float) -> None:
    """The model's own state, each coordinate and velocity off by up to `noise`."""
    model = world.model
    world.qpos[ids] = model.qpos0 + rng.uniform(-noise, noise, (len(ids), model.nq))
    world.qvel[ids] = rng.uniform(-noise, noise, (len(ids), model.nv))


class PlanarRunner(MujocoFamily):
    """A body in the vertical plane whose coordinates begin with x, z and pitch.

    Without a task it is paid for running forward: v + `alive_bonus` - `control_cost_weight`
    |a|^2, with v its mean forward velocity over the control step.
    """

    control_cost_weight: ClassVar[float]
    alive_bonus: ClassVar[float] = 0.0
    """Paid every step, the one that ends the episode too."""
    start_noise: ClassVar[float]
    """Start positions and velocities are off by up to this [m, rad, m/s, rad/s]."""
    velocity_limit: ClassVar[float] = math.inf
    """Observed velocities are clipped to this [m/s, rad/s]."""
    horizon = 200

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        uniform_start(world, ids, rng, self.start_noise)

    def observe(self, world: MujocoWorld) -> NDArray[np.float32]:
        velocities = np.clip(world.qvel, -self.velocity_limit, self.velocity_limit)
        return np.concatenate((world.qpos[:, 1:], velocities), axis=1, dtype=np.float32)

    def forward_velocity(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Mean forward velocity over the last control step [m/s], (n,)."""
        return (world.qpos[:, 0] - world.qpos_before[:, 0]) * self.control_hz

    def measure(self, world: MujocoWorld) -> NDArray[np.float64]:
        return self.forward_velocity(world)

    def control_cost(self, action: Floats) -> NDArray[np.float64]:
        """`control_cost_weight` times the squared norm of the action, (n,)."""
        return self.control_cost_weight * squared_norm(action)

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        return self.forward_velocity(world) + self.alive_bonus - self.control_cost(action)
