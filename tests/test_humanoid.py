"""Humanoid-Dir against gymnasium's Humanoid-v5 and bare MuJoCo."""

import gymnasium
import mujoco
import numpy as np
import pytest

import sim
from sim.families.humanoid import JOINTS, MOTORS

UNSENSED = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
STEPS = 150


def task(heading, n=1):
    return {"tasks": {"heading": np.full(n, heading)}}


@pytest.fixture
def gymnasiums():
    unsensed = {f"include_{part}_in_observation": False for part in UNSENSED}
    env = gymnasium.make("Humanoid-v5", **unsensed).unwrapped
    env.reset(seed=0)
    yield env
    env.close()


@pytest.mark.parametrize("heading", [0.0, 2.0])
def test_every_step_is_gymnasiums_but_for_the_reward(gymnasiums, heading):
    ours, theirs = sim.make("humanoid-dir", 2, seed=0), gymnasiums
    assert ours.family.control_hz == pytest.approx(1 / theirs.dt)
    rng = np.random.default_rng(0)
    falls, begin = 0, True
    for _ in range(STEPS):
        if begin:
            ours.reset(options=task(heading, 2))
            theirs.set_state(ours.world.qpos[0].copy(), ours.world.qvel[0].copy())
        action = rng.uniform(-1, 1, (2, 17)).astype(np.float32)
        obs, _, terminated, *_ = ours.step(action)
        control = 0.4 * action[0].astype(np.float64)
        expected, _, their_end, _, info = theirs.step(control)
        np.testing.assert_allclose(obs[0], expected, rtol=1e-5, atol=1e-5)
        assert terminated[0] == their_end
        begin = bool(their_end)
        falls += begin
        way = np.array([info["x_velocity"], info["y_velocity"]]) * 0.015
        along = way @ [np.cos(heading), np.sin(heading)]
        assert ours.family.measure(ours.world)[0] == pytest.approx(along / 0.015, abs=1e-9)
    assert falls > 1


def test_contact_forces_are_those_before_the_last_physics_step():
    """Exactly MuJoCo's, on a body without the sensor that makes `Batch` work them out."""
    env = sim.make("humanoid-dir", 1, seed=0)
    env.reset()
    model = env.family.spec().compile()
    assert model.nsensor == 0
    body, before_last = mujoco.MjData(model), mujoco.MjData(model)
    body.qpos[:], body.qvel[:] = env.world.qpos[0], env.world.qvel[0]
    touched = 0
    for _ in range(STEPS):  # it falls and stays down, nobody resets it
        action = env.np_random.uniform(-1, 1, (1, 17)).astype(np.float32)
        env.step(action)
        body.ctrl[:] = 0.4 * action[0].astype(np.float64)
        mujoco.mj_step(model, body, 4)
        for field in ("qpos", "qvel", "ctrl", "qacc_warmstart"):
            getattr(before_last, field)[:] = getattr(body, field)
        mujoco.mj_forward(model, before_last)
        mujoco.mj_rnePostConstraint(model, before_last)
        mujoco.mj_step(model, body, 1)
        assert np.array_equal(env.world.qpos[0], body.qpos)
        assert np.array_equal(env.world.outputs["cfrc_ext"][0], before_last.cfrc_ext)
        touched += before_last.cfrc_ext.any()
    assert touched > STEPS / 2


def test_names_are_those_of_the_body():
    family = sim.family("humanoid-dir")
    model = family.model()
    assert tuple(model.joint(j).name for j in range(1, model.njnt)) == JOINTS
    driven = [model.joint(model.actuator(m).trnid[0]).name for m in range(model.nu)]
    assert tuple(driven) == MOTORS
    assert (model.actuator_ctrlrange == [-0.4, 0.4]).all()
    names = [c.name for c in family.observation]
    assert len(names) == 45 and names[5] == "abdomen_z_position"
    assert names[22] == "root_x_velocity" and names[28] == "abdomen_z_velocity"


def test_headings_go_all_the_way_round():
    headings = sim.family("humanoid-dir").sample(np.random.default_rng(0), 10_000)["heading"]
    assert 0 <= headings.min() < 0.01 and 2 * np.pi - 0.01 < headings.max() <= 2 * np.pi
    assert abs(np.exp(1j * headings).mean()) < 0.03


def test_start_states_have_gymnasiums_spread_and_a_unit_quaternion():
    env = sim.make("humanoid-dir", 1000, seed=0)
    env.reset()
    off = env.world.qpos - env.world.model.qpos0
    assert np.abs(off[:, 7:]).max() <= 0.01 and np.abs(env.world.qvel).max() <= 0.01
    assert off[:, 7:].std() == pytest.approx(0.01 / np.sqrt(3), rel=0.02)
    assert env.world.qvel.std() == pytest.approx(0.01 / np.sqrt(3), rel=0.02)
    norms = np.linalg.norm(env.world.qpos[:, 3:7], axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-12)
