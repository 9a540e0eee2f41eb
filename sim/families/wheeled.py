"""A wheeled robot and a goal it is not told, on a half circle.

Source: Gupta et al. 2018 (MAESN), as its released code has it: the goals, both radii, the dense
reward, 200 steps, no end, the start noise.
Body: a cart on two wheels, at most 1 m/s; one control step is 5 physics steps of 0.01 s.
Task: the goal is at 2 (cos t, sin t) m, the angle t uniform in [0, pi].
Observation: x and y of the axle's midpoint [m], cosine and sine of the heading, velocity in x and
y [m/s], yaw rate [rad/s], the speeds of the left and right wheel [rad/s].
Action: the torques of the left and the right wheel, as shares of the motors' maximum.
Start: the centre, facing +x; normal deviations of 0.01 in position and 0.1 in velocity.
Reward: -|p - g| - 0.05 |a|^2, with the goal g, the axle's midpoint p [m] and the action a. At
meta-test it is sparse: 2 - |p - g| within 0.8 m of the goal, 0 elsewhere, and the same
- 0.05 |a|^2 in both places.
Ends: never.
Differs: the code's MJCF was not to be had, so this is another cart, with its own masses, friction
and speed. The code's control cost is that of the motor command, not of the action; it observes raw
positions; here the heading is a cosine and a sine, and the angles of the wheels, which grow
without bound and matter to nothing, are left out. The code's sparse reward is 2 less, everywhere.
The code draws 100 goals to train on once; here every trial draws a new one.
"""

import math

import numpy as np
from numpy.typing import NDArray

from sim.families.locomotion import squared_norm
from sim.family import Channel, Floats, Ids, Marker
from sim.mujoco_family import OWN_BODIES, MujocoFamily, MujocoWorld
from sim.task import TaskParameter

RING_RADIUS = 2.0  # m, of the half circle of goals
GOAL_RADIUS = 0.8  # m, within which the sparse reward is paid
CONTROL_COST = 0.05
GREEN = (0.2, 0.85, 0.4, 0.7)  # the goal in pictures
POSITION_NOISE, VELOCITY_NOISE = 0.01, 0.1  # standard deviations at the start
PLANAR_VELOCITIES = (0, 1, 5, 6, 7)  # of x, y, yaw and the wheels; not of z, roll and pitch


def _channels() -> tuple[Channel, ...]:
    free = math.inf
    unbounded = [("x_velocity", "m/s"), ("y_velocity", "m/s"), ("yaw_rate", "rad/s")]
    unbounded += [("left_wheel_velocity", "rad/s"), ("right_wheel_velocity", "rad/s")]
    return (
        Channel("x_position", "m", -free, free),
        Channel("y_position", "m", -free, free),
        Channel("heading_cosine", "1", -free, free),
        Channel("heading_sine", "1", -free, free),
        *(Channel(name, unit, -free, free) for name, unit in unbounded),
    )


class Wheeled(MujocoFamily):
    """Drive to a hidden goal on the half circle; see the module."""

    name = "wheeled"
    summary = "cart on two wheels, hidden goal on a half circle of radius 2 m (MAESN)"
    bodies = OWN_BODIES
    body = "wheeled.xml"
    frame_skip = 5
    control_hz = 20.0  # 5 physics steps of 0.01 s
    horizon = 200
    observation = _channels()
    action = tuple(Channel(f"{side}_wheel_torque", "1", -1.0, 1.0) for side in ("left", "right"))
    sparse_at_test = True
    task_parameters = (TaskParameter("goal_angle", "rad", 0.0, math.pi),)

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        shape = (len(ids), 3)  # x, y and heading
        position = POSITION_NOISE * rng.standard_normal(shape)
        half_heading = position[:, 2] / 2
        world.qpos[ids, :2] = position[:, :2]
        world.qpos[ids, 3] = np.cos(half_heading)
        world.qpos[ids, 6] = np.sin(half_heading)
        velocity = VELOCITY_NOISE * rng.standard_normal((len(ids), len(PLANAR_VELOCITIES)))
        world.qvel[ids[:, None], PLANAR_VELOCITIES] = velocity

    def observe(self, world: MujocoWorld) -> NDArray[np.float32]:
        observation = np.empty((len(world.qpos), 9), np.float32)
        observation[:, :2] = world.qpos[:, :2]
        w, x, y, z = world.qpos[:, 3:7].T
        cosine, sine = 1 - 2 * (y * y + z * z), 2 * (w * z + x * y)
        # Rescaled: a wheel's bump tilts the cart, which shortens its heading on the floor.
        length = np.hypot(cosine, sine)
        observation[:, 2] = cosine / length
        observation[:, 3] = sine / length
        observation[:, 4:] = world.qvel[:, PLANAR_VELOCITIES]
        return observation

    def goal(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Where the goals are [m], (n, 2)."""
        angle = world.tasks["goal_angle"]
        return RING_RADIUS * np.stack((np.cos(angle), np.sin(angle)), axis=1)

    def measure(self, world: MujocoWorld) -> NDArray[np.float64]:
        """Distance from the axle's midpoint to the goal [m], (n,)."""
        offset = world.qpos[:, :2] - self.goal(world)
        return np.sqrt(np.einsum("nk,nk->n", offset, offset))

    def markers(self, world: MujocoWorld, index: int) -> list[Marker]:
        x, y = self.goal(world)[index]
        return [Marker((x, y, 0.1), rgba=GREEN, radius=0.1)]

    def control_cost(self, action: Floats) -> NDArray[np.float64]:
        """0.05 times the squared norm of the action, (n,)."""
        return CONTROL_COST * squared_norm(action)

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        return -self.measure(world) - self.control_cost(action)

    def test_reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        distance = self.measure(world)
        found = distance <= GOAL_RADIUS
        return np.where(found, RING_RADIUS - distance, 0.0) - self.control_cost(action)
