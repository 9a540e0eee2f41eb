"""Runners without a task against gymnasium's v5 bodies, step by step."""

import gymnasium
import numpy as np
import pytest

from sim.families.halfcheetah import HalfCheetahRun
from sim.families.hopper import HopperRun
from sim.families.walker import WalkerRun

FALLING = [(HopperRun(), "Hopper-v5"), (WalkerRun(), "Walker2d-v5")]
RUNNERS = [*FALLING, (HalfCheetahRun(), "HalfCheetah-v5")]
STEPS = 150


def named(pairs):
    return [pytest.param(*pair, id=pair[0].name) for pair in pairs]


def started(family, n, seed=0):
    world = family.world(n, 1)
    family.reset(world, np.arange(n), np.random.default_rng(seed))
    return world


@pytest.mark.parametrize(("family", "theirs"), named(RUNNERS))
def test_every_step_is_gymnasiums(family, theirs):
    env = gymnasium.make(theirs).unwrapped
    assert family.control_hz == pytest.approx(1 / env.dt)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    world = started(family, 2)
    env.set_state(world.qpos[0].copy(), world.qvel[0].copy())
    falls = 0
    for _ in range(STEPS):
        action = rng.uniform(-1, 1, (2, len(family.action))).astype(np.float32)
        family.step(world, action)
        expected, _, their_end, _, info = env.step(action[0].astype(np.float64))
        observed = family.observe(world)
        assert observed.dtype == np.float32
        np.testing.assert_allclose(observed[0], expected, rtol=1e-5, atol=1e-5)

        assert family.measure(world)[0] == pytest.approx(info["x_velocity"], abs=1e-9)

        ended = family.terminated(world)
        if ended is None:
            assert not their_end
            continue
        assert ended[0] == their_end
        falls += their_end
        if ended.any():
            family.reset(world, np.flatnonzero(ended), rng)
        if their_end:
            env.set_state(world.qpos[0].copy(), world.qvel[0].copy())
    assert falls > 1 or family.terminated(world) is None
    env.close()


@pytest.mark.parametrize(("family", "_"), named(FALLING))
def test_observed_velocities_are_clipped_to_ten(family, _):
    world = started(family, 2)
    positions = world.model.nq - 1
    world.qvel[0], world.qvel[1] = 30.0, -30.0
    observed = family.observe(world)[:, positions:]
    assert (observed[0] == 10).all() and (observed[1] == -10).all()
    assert (world.qvel[0] == 30).all()
    channels = family.observation[positions:]
    assert {(c.low, c.high) for c in channels} == {(-10.0, 10.0)}


@pytest.mark.parametrize(("family", "_"), named(FALLING))
def test_start_states_are_uniform_within_five_thousandths(family, _):
    world = started(family, 2000)
    for off in (world.qpos - world.model.qpos0, world.qvel):
        assert np.abs(off).max() <= 0.005
        assert off.std() == pytest.approx(0.005 / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize(("family", "_"), named(FALLING))
def test_the_bodies_are_gymnasiums(family, _):
    model = family.model()
    driven = [model.joint(model.actuator(m).trnid[0]).name for m in range(model.nu)]
    expected = [c.name.replace("_torque", "_joint") for c in family.action]
    assert driven == expected
    names = [c.name for c in family.observation]
    assert len(names) == len(set(names)) == 2 * model.nq - 1
    assert family.frame_skip * model.opt.timestep == pytest.approx(1 / family.control_hz)


def test_both_feet_of_the_walker_grip_alike():
    model = WalkerRun().model()
    assert model.geom("foot_geom").friction[0] == model.geom("foot_left_geom").friction[0] == 1.9
