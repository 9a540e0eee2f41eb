"""Ant families: a heading, a velocity or a goal to find.

Source: as in the table; ant-goal-ring is MAESN's (Gupta et al. 2018), ant-goal PEARL's and
VariBAD's.
Body: gymnasium's Ant-v5; one control step is 5 physics steps of 0.01 s.
Observation: 27 numbers: height [m], orientation as a quaternion and joint angles [rad], then
velocities [m/s, rad/s]. The goal families add the absolute x and y in front.
Action: 8 motors, as shares of 150 N m.
Start: gymnasium's: positions off by up to 0.1, velocities normal with deviation 0.1.
Reward: as below, with the velocity v [m/s] and position p [m] of the torso, the heading h as a
unit vector, the goal g and the contact cost c = 0.0005 times the sum of the squared external
contact forces, each clipped to [-1, 1]. At meta-test ant-goal-ring's 4 - |p - g|_1 counts
only within 0.8 m of the goal.
Ends: when the torso's height leaves [0.2, 1] m ("falls").
Differs: contact forces, which some published code observes too, are left out: a robot does not
have them. In c they are those of `MujocoFamily.outputs`; it is about 0.001. MAESN's own ant has
motors a fifth as strong, a step of 0.01 s, 200 of them, and at meta-test a constant outside the
radius that tells something about the goal's angle.

============= ===================================== ================================== =====
family        task                                  reward                             ends
============= ===================================== ================================== =====
ant-dir       heading 0 or pi (Rakelly et al. 2019) v.h - 0.5 |a|^2 - c + 1            falls
ant-dir-1rad  heading +1 or -1 rad (Zintgraf 2020)  the same                           falls
ant-vel       v* ~ U[0, 3] m/s (Finn et al. 2017)   1.05 - |v - v*| - 0.005 |a|^2 - c  falls
ant-goal      goal uniform in a disc of radius 3 m  -|p - g|_1 - 0.1 |a|^2 - c         never
ant-goal-ring goal on a half circle of radius 2 m   4.05 - |p - g|_1 - 0.005 |a|^2 - c falls
============= ===================================== ================================== =====
"""

import math
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from sim.families.locomotion import motor_channels, squared_norm, state_channels
from sim.family import Channel, Floats, Ids, Marker
from sim.mujoco_family import MujocoFamily, MujocoWorld
from sim.task import TaskParameter, Tasks

LEGS = ("front_left", "front_right", "back_left", "back_right")
JOINTS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "ankle"))
# In the order of the body's motors.
MOTORS = tuple(
    f"{leg}_{joint}"
    for leg in ("back_right", "front_left", "front_right", "back_left")
    for joint in ("hip", "ankle")
)
CONTACT_COST = 5e-4
START_NOISE = 0.1
HEIGHTS = (0.2, 1.0)
QUATERNION = slice(3, 7)  # in qpos
DISC, RING, SPARSE_RADIUS = 3.0, 2.0, 0.8  # m


def _observation_channels(place: bool) -> tuple[Channel, ...]:
    joints = [(joint, "rad") for joint in JOINTS]
    positions = [(f"torso_{c}", "m") for c in ("xyz" if place else "z")]
    return (
        *state_channels("position", positions),
        *state_channels("orientation", [(f"torso_{c}", "1") for c in "wxyz"], 1.0),
        *state_channels("position", joints),
        *state_channels("velocity", [(f"torso_{c}", "m/s") for c in "xyz"]),
        *state_channels("rotation", [(f"torso_{c}", "rad/s") for c in "xyz"]),
        *state_channels("velocity", [(joint, "rad/s") for joint in JOINTS]),
    )


class Ant(MujocoFamily):
    """The body, without a task."""

    body = "ant.xml"
    frame_skip = 5
    outputs = ("cfrc_ext",)
    control_hz = 20.0  # 5 physics steps of 0.01 s
    horizon = 200
    observation = _observation_channels(place=False)
    action = motor_channels(MOTORS)
    falls = True
    """Whether an episode ends when the torso's height leaves `HEIGHTS`."""
    hidden_places = 2
    """Coordinates of the position that are not observed: x and y."""

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        positions = rng.uniform(-START_NOISE, START_NOISE, (len(ids), world.model.nq))
        start = world.model.qpos0 + positions
        start[:, QUATERNION] /= np.linalg.norm(start[:, QUATERNION], axis=1, keepdims=True)
        world.qpos[ids] = start
        world.qvel[ids] = START_NOISE * rng.standard_normal((len(ids), world.model.nv))

    def observe(self, world: MujocoWorld) -> NDArray[np.float32]:
        parts = (world.qpos[:, self.hidden_places :], world.qvel)
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def terminated(self, world: MujocoWorld) -> NDArray[np.bool_] | None:
        if not self.falls:
            return None
        height = world.qpos[:, 2]
        return ~((height >= HEIGHTS[0]) & (height <= HEIGHTS[1]))

    def velocity(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Mean velocity of the torso over the last control step [m/s], (n, 2)."""
        return (world.qpos[:, :2] - world.qpos_before[:, :2]) * self.control_hz

    def cost(self, world: MujocoWorld, action: Floats, weight: float) -> NDArray[np.float64]:
        """`weight` times the squared norm of the action, and the contact cost, (n,)."""
        forces = np.clip(world.outputs["cfrc_ext"], -1.0, 1.0)
        contact = np.einsum("nbf,nbf->n", forces, forces)
        return weight * squared_norm(action) + CONTACT_COST * contact


class AntDir(Ant):
    """Run along a hidden heading, +`angle` or -`angle` away from x; pi is forward or backward."""

    def __init__(self, name: str = "ant-dir", headings: tuple[float, float] = (0.0, math.pi)):
        self.name = name
        first, second = (f"{math.degrees(h):.3g}" for h in headings)
        self.summary = f"ant, hidden heading, {first} or {second} degrees"
        self.task_parameters = (
            TaskParameter("heading", "rad", min(headings), max(headings), choices=headings),
        )

    def forward_velocity(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Velocity along the hidden heading [m/s], (n,)."""
        heading, velocity = world.tasks["heading"], self.velocity(world)
        return velocity[:, 0] * np.cos(heading) + velocity[:, 1] * np.sin(heading)

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        return self.forward_velocity(world) - self.cost(world, action, 0.5) + 1.0

    def measure(self, world: MujocoWorld) -> NDArray[np.float64]:
        return self.forward_velocity(world)


class AntVel(Ant):
    """Walk along x at a hidden target velocity."""

    name = "ant-vel"
    summary = "ant, hidden target velocity uniform in [0, 3] m/s"
    task_parameters = (TaskParameter("target_velocity", "m/s", 0.0, 3.0),)

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        error = np.abs(self.velocity(world)[:, 0] - world.tasks["target_velocity"])
        return 1.05 - error - self.cost(world, action, 0.005)

    def measure(self, world: MujocoWorld) -> NDArray[np.float64]:
        return self.velocity(world)[:, 0]


class _Goal(Ant):
    """Go to a hidden goal."""

    observation = _observation_channels(place=True)
    hidden_places = 0

    @abstractmethod
    def goal(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Where the goals are [m], (n, 2)."""

    def offset(self, world: MujocoWorld) -> NDArray[np.float64]:
        """From the torso to the goal [m], (n, 2)."""
        return self.goal(world) - world.qpos[:, :2]

    def measure(self, world: MujocoWorld) -> NDArray[np.float64]:
        return np.linalg.norm(self.offset(world), axis=1)

    def markers(self, world: MujocoWorld, index: int) -> list[Marker]:
        return [Marker((*self.goal(world)[index], 0.3), radius=0.3)]


class AntGoal(_Goal):
    """Go to a goal that is uniform in a disc."""

    name = "ant-goal"
    summary = "ant, hidden goal uniform in a disc of radius 3 m"
    task_parameters = tuple(TaskParameter(f"goal_{axis}", "m", -DISC, DISC) for axis in "xy")
    drawn_together = ("goal_x", "goal_y")
    falls = False

    def goal(self, world: MujocoWorld) -> NDArray[np.float64]:
        return np.stack((world.tasks["goal_x"], world.tasks["goal_y"]), axis=1)

    def sample(self, rng: np.random.Generator, n: int) -> Tasks:
        distance = DISC * np.sqrt(rng.random(n))  # the root spreads them evenly over the area
        angle = rng.uniform(-np.pi, np.pi, n)
        return {"goal_x": distance * np.cos(angle), "goal_y": distance * np.sin(angle)}

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        return -np.abs(self.offset(world)).sum(axis=1) - self.cost(world, action, 0.1)


class AntGoalRing(_Goal):
    """MAESN's ant: a goal on a half circle, dense reward to train on, sparse at meta-test."""

    name = "ant-goal-ring"
    summary = "ant, hidden goal on a half circle of radius 2 m; sparse reward at meta-test"
    horizon = 100
    sparse_at_test = True
    task_parameters = (TaskParameter("goal_angle", "rad", 0.0, math.pi),)

    def goal(self, world: MujocoWorld) -> NDArray[np.float64]:
        angle = world.tasks["goal_angle"]
        return RING * np.stack((np.cos(angle), np.sin(angle)), axis=1)

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        near = 4.0 - np.abs(self.offset(world)).sum(axis=1)
        return near + 0.05 - self.cost(world, action, 0.005)

    def test_reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        near = 4.0 - np.abs(self.offset(world)).sum(axis=1)
        found = self.measure(world) <= SPARSE_RADIUS
        return np.where(found, near, 0.0) + 0.05 - self.cost(world, action, 0.005)
