"""HalfCheetah against gymnasium's HalfCheetah-v5, step by step, and its tasks."""

import gymnasium
import numpy as np
import pytest

import sim


@pytest.fixture
def pair():
    """Our environment and gymnasium's, in the same state."""
    ours = sim.make("halfcheetah-vel", 2, seed=0)
    ours.reset(options={"tasks": {"target_velocity": np.array([1.5, 0.25])}})
    theirs = gymnasium.make("HalfCheetah-v5").unwrapped
    theirs.reset(seed=0)
    theirs.set_state(ours.world.qpos[0].copy(), ours.world.qvel[0].copy())
    yield ours, theirs
    theirs.close()


def test_every_step_is_gymnasiums(pair):
    ours, theirs = pair
    rng = np.random.default_rng(0)
    for _ in range(150):
        action = rng.uniform(-1, 1, (2, 6)).astype(np.float32)
        obs, reward, *_ = ours.step(action)
        expected, _, _, _, info = theirs.step(action[0].astype(np.float64))
        np.testing.assert_allclose(obs[0], expected, rtol=1e-5, atol=1e-5)
        cost = 0.05 * np.sum(np.square(action[0], dtype=np.float64))
        velocity_term = -abs(info["x_velocity"] - 1.5)
        assert reward[0] == pytest.approx(velocity_term - cost, abs=1e-6)


def test_the_named_variant_draws_targets_up_to_two():
    tasks = sim.family("halfcheetah-vel-0to2").sample(np.random.default_rng(0), 1000)
    assert 1.9 < tasks["target_velocity"].max() <= 2.0
    tasks = sim.family("halfcheetah-vel").sample(np.random.default_rng(0), 1000)
    assert 2.9 < tasks["target_velocity"].max() <= 3.0


def test_start_states_have_gymnasiums_spread():
    env = sim.make("halfcheetah-dir", 4000, seed=0)
    env.reset()
    positions = env.world.qpos - env.world.model.qpos0
    assert np.abs(positions).max() <= 0.1
    assert positions.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.02)
    assert env.world.qvel.std() == pytest.approx(0.1, rel=0.02)
