"""The wheeled robot: how it drives, where its goals are."""

import math

import mujoco
import numpy as np
import pytest

import sim
from benchmarks.references import wheeled as reference
from sim.families.wheeled import Wheeled
from tests.sparse_play import dense_and_sparse, per_episode


def start(n=1, angle=math.pi / 2, **options):
    """An environment with all goals at `angle`."""
    env = sim.make("wheeled", n, seed=0, **options)
    env.reset(options={"tasks": {"goal_angle": np.full(n, angle)}})
    return env


def still(env):
    """Put the robots at the centre, facing +x, at rest."""
    env.world.qpos[:] = env.world.model.qpos0
    env.world.qvel[:] = 0.0
    env.world.batch.forward()


def drive(env, left, right, steps):
    action = np.tile(np.array([left, right], np.float32), (env.num_envs, 1))
    return [env.step(action)[0] for _ in range(steps)][-1]


def test_equal_torques_drive_straight_at_a_metre_per_second():
    env = start()
    still(env)
    obs = drive(env, 1.0, 1.0, 100)[0]
    x, y, cosine, _, vx, vy, yaw_rate, left, right = obs
    # Steady state: 0.5 N m of torque against 0.05 N m s of damping, on wheels of 0.1 m.
    assert vx == pytest.approx(1.0, rel=0.01)
    assert left == pytest.approx(10.0, rel=0.01) and right == pytest.approx(left, rel=1e-3)
    assert x > 3.5 and abs(y) < 0.01 and abs(vy) < 0.01
    assert cosine == pytest.approx(1.0, abs=1e-4) and abs(yaw_rate) < 0.01
    # It rolls: a wheel's angle times its radius is the way.
    assert env.world.qpos[0, 7] * 0.1 == pytest.approx(x, rel=0.02)


def test_opposite_torques_turn_on_the_spot_to_the_side_of_the_slower_wheel():
    env = start()
    still(env)
    obs = drive(env, -1.0, 1.0, 60)[0]
    # Wheels at 1 m/s, 0.15 m to either side of the centre.
    assert obs[6] == pytest.approx(1 / 0.15, rel=0.03)
    assert np.hypot(obs[0], obs[1]) < 0.1
    still(env)
    obs = drive(env, 0.2, 0.4, 20)[0]
    assert obs[3] > 0.05 and obs[1] > 0  # the faster right wheel bends the path to the left


def test_the_observation_is_the_state():
    env = start(3)
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 3, 2)).astype(np.float32)
    obs = [env.step(action)[0] for action in actions][-1]
    for i in range(3):
        data = env.world.batch.get_data(i)
        forward = np.zeros(9)
        mujoco.mju_quat2Mat(forward, data.qpos[3:7])
        heading = forward.reshape(3, 3)[:2, 0] / np.linalg.norm(forward.reshape(3, 3)[:2, 0])
        velocities = data.qvel[[0, 1, 5, 6, 7]]
        expected = np.concatenate((data.qpos[:2], heading, velocities))
        np.testing.assert_allclose(obs[i], expected, atol=1e-6)


def test_goals_are_spread_over_a_half_circle_of_two_metres():
    family = Wheeled()
    env = sim.make("wheeled", 4000, seed=0)
    env.reset()
    goals = family.goal(env.world)
    np.testing.assert_allclose(np.linalg.norm(goals, axis=1), 2.0)
    assert (goals[:, 1] >= 0).all() and abs(goals[:, 0].mean()) < 0.1
    counts, _ = np.histogram(np.arctan2(goals[:, 1], goals[:, 0]), 8, (0, np.pi))
    assert counts.min() > 420  # 500 expected
    x, y, z = family.markers(env.world, 7)[0].position
    assert (x, y) == pytest.approx(goals[7]) and z > 0


def test_start_states():
    env = sim.make("wheeled", 4000, seed=0)
    obs, _ = env.reset()
    for column in (0, 1, 3):  # x, y and, for small angles, the heading
        assert obs[:, column].std() == pytest.approx(0.01, rel=0.05)
    assert obs[:, 4:].std(axis=0) == pytest.approx(np.full(5, 0.1), rel=0.05)
    assert not env.world.qvel[:, [2, 3, 4]].any()


def test_it_stays_upright_under_the_roughest_driving():
    env = start(64)
    rng = np.random.default_rng(0)
    for _ in range(300):
        env.step(np.sign(rng.uniform(-1, 1, (64, 2))).astype(np.float32))
        up = 1 - 2 * np.square(env.world.qpos[:, 4:6]).sum(axis=1)
        assert (up > 0.95).all()


def test_the_goal_is_worth_knowing():
    told = dense_and_sparse("wheeled", reference.told)
    blind = dense_and_sparse("wheeled", reference.blind)
    assert told[0] > -90 and told[1] > 280
    assert blind[0] < -250 and blind[1] < 120


def test_the_adapting_reference_finds_the_goal_and_remembers_it():
    episodes = per_episode("wheeled", reference.adapting)
    first, second = episodes
    assert 100 < first < second - 50 and second > 280
