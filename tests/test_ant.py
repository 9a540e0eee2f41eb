"""The ant against gymnasium's Ant-v5, step by step, and its tasks."""

import gymnasium
import mujoco
import numpy as np
import pytest

import sim

NAMES = ("ant-dir", "ant-dir-1rad", "ant-vel", "ant-goal", "ant-goal-ring")


def test_every_step_is_gymnasiums():
    ours = sim.make("ant-dir", 2, seed=0)
    ours.reset()
    theirs = gymnasium.make("Ant-v5", include_cfrc_ext_in_observation=False).unwrapped
    theirs.reset(seed=0)
    theirs.set_state(ours.world.qpos[0].copy(), ours.world.qvel[0].copy())
    rng = np.random.default_rng(0)
    for _ in range(150):
        action = rng.uniform(-1, 1, (2, 8)).astype(np.float32)
        obs, _, terminated, *_ = ours.step(action)
        expected, _, fallen, *_ = theirs.step(action[0].astype(np.float64))
        np.testing.assert_allclose(obs[0], expected, rtol=1e-5, atol=1e-5)
        assert terminated[0] == fallen
        if fallen:
            break


def test_tasks_are_those_of_the_papers():
    rng = np.random.default_rng(0)
    drawn = {name: sim.family(name).sample(rng, 4000) for name in NAMES}
    assert np.unique(drawn["ant-dir"]["heading"]).tolist() == [0.0, np.pi]
    assert np.unique(drawn["ant-dir-1rad"]["heading"]).tolist() == [-1.0, 1.0]
    assert 2.9 < drawn["ant-vel"]["target_velocity"].max() <= 3.0
    distance = np.hypot(drawn["ant-goal"]["goal_x"], drawn["ant-goal"]["goal_y"])
    assert (distance <= 3.0).all()
    # Uniform over the area: half of the goals lie beyond 3 / sqrt(2).
    assert np.mean(distance > 3 / np.sqrt(2)) == pytest.approx(0.5, abs=0.03)
    angle = drawn["ant-goal-ring"]["goal_angle"]
    assert angle.min() >= 0
    assert angle.max() <= np.pi
    assert sim.family("ant-goal-ring").horizon == 100


def test_contact_forces_are_mujocos():
    env = sim.make("ant-vel", 1, seed=0)
    env.reset()
    model = env.family.spec().compile()
    data, touched = mujoco.MjData(model), 0
    for _ in range(40):
        data.qpos[:], data.qvel[:] = env.world.qpos[0], env.world.qvel[0]
        data.qacc_warmstart[:] = env.world.batch.bind("qacc_warmstart")[0]
        action = env.np_random.uniform(-1, 1, (1, 8)).astype(np.float32)
        env.step(action)
        data.ctrl[:] = action[0]
        mujoco.mj_step(model, data, 4)
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        np.testing.assert_allclose(env.world.outputs["cfrc_ext"][0], data.cfrc_ext, atol=1e-3)
        touched += (data.cfrc_ext != 0).any()
    assert touched > 5
