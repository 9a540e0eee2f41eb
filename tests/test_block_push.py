"""Block pushing: contact, which tasks there are."""

import numpy as np
import pytest

import sim
from benchmarks.references import block_push as reference
from runtime.errors import InvalidTask
from tests.sparse_play import dense_and_sparse, per_episode

FAR = [(0.9, -0.4), (0.9, -0.2), (0.9, 0.0), (0.9, 0.2), (0.9, 0.4)]


def task(n=1, block=0, goal=(0.85, 0.1), starts=FAR):
    values = {"block": block, "goal_x": goal[0], "goal_y": goal[1]}
    for k, (x, y) in enumerate(starts):
        values |= {f"block_{k}_x": x, f"block_{k}_y": y}
    return {name: np.full(n, float(value)) for name, value in values.items()}


def start(**arguments):
    env = sim.make("block-push", 1, seed=0)
    obs, _ = env.reset(options={"tasks": task(**arguments)})
    return env, obs


def places(env):
    """Of the blocks [m], (n, 5, 2)."""
    return np.stack((env.world.qpos[:, 3::3], env.world.qpos[:, 4::3]), axis=2)


def drive(env, action, steps):
    action = np.tile(np.array(action, np.float32), (env.num_envs, 1))
    return [env.step(action)[0] for _ in range(steps)][-1]


def test_an_episode_starts_where_the_task_says_and_at_rest():
    env = sim.make("block-push", 8, seed=0)
    everyone = np.ones(8, bool)
    first, _ = env.reset()
    for k in range(5):
        assert np.array_equal(env.world.qpos[:, 3 + 3 * k], env.tasks[f"block_{k}_x"])
        assert np.array_equal(env.world.qpos[:, 4 + 3 * k], env.tasks[f"block_{k}_y"])
    assert not env.world.qpos[:, :3].any() and not env.world.qvel.any()
    assert not env.world.qpos[:, 5::3].any()
    drive(env, (1, 0.3, 0), 60)
    second, info = env.reset(options={"reset_mask": everyone})
    assert not info["new_task"].any() and np.array_equal(first, second)


def test_the_fork_moves_as_its_motors_say():
    env, _ = start()
    obs = drive(env, (1, 0, 0), 25)[0]
    assert obs[18] == pytest.approx(0.5, rel=0.01)  # 2 N against 4 N s/m of damping
    obs = drive(env, (0, -1, 0), 20)[0]
    assert obs[19] == pytest.approx(-0.5, rel=0.02) and abs(obs[18]) < 0.01
    obs = drive(env, (0, 0, 1), 10)[0]
    assert obs[2] > 0.3


def test_a_block_moves_by_contact_only():
    env, _ = start(starts=[(0.4, 0.0), *FAR[1:]])
    drive(env, (1, 0, 0), 12)
    assert env.world.qpos[0, 0] + 0.015 < 0.37  # the back of the fork has not arrived
    np.testing.assert_allclose(places(env)[0, 0], (0.4, 0.0), atol=1e-6)
    drive(env, (1, 0, 0), 20)
    x, y = places(env)[0, 0]
    assert x > 0.5 and abs(y) < 0.005
    assert x == pytest.approx(env.world.qpos[0, 0] + 0.015 + 0.03, abs=0.005)
    np.testing.assert_allclose(places(env)[0, 3:], FAR[3:], atol=1e-6)  # nobody touched them
    drive(env, (-1, 0, 0), 20)
    left_at = places(env)[0, 0, 0]
    drive(env, (-1, 0, 0), 10)
    assert places(env)[0, 0, 0] == pytest.approx(left_at, abs=1e-4)  # it cannot be pulled


@pytest.mark.parametrize("drawn", ["training", "held out"])
def test_every_lane_has_one_block_and_the_goal_lies_ahead_of_the_right_one(drawn):
    family, n = sim.family("block-push"), 5000
    rng = np.random.default_rng(0)
    tasks = family.sample(rng, n) if drawn == "training" else family.held_out(n)
    x = np.stack([tasks[f"block_{k}_x"] for k in range(5)], axis=1)
    y = np.stack([tasks[f"block_{k}_y"] for k in range(5)], axis=1)
    lane = np.floor((y + 0.5) / 0.2).astype(int)
    assert np.array_equal(np.sort(lane, axis=1), np.tile(np.arange(5), (n, 1)))
    assert len(np.unique(lane, axis=0)) == 120  # every permutation
    assert x.min() >= 0.35 and x.max() <= 0.65 and x.std() == pytest.approx(0.3 / 12**0.5, rel=0.02)
    block = tasks["block"].astype(int)
    assert np.bincount(block, minlength=5).min() > 900
    goal_lane = np.floor((tasks["goal_y"] + 0.5) / 0.2).astype(int)
    assert np.array_equal(goal_lane, lane[np.arange(n), block])
    assert tasks["goal_x"].min() >= 0.75 and tasks["goal_x"].max() <= 0.95
    gap = np.abs(np.diff(np.sort(y, axis=1), axis=1))
    assert gap.min() >= 0.06  # the blocks' width: none overlap


def test_neither_the_goal_nor_which_block_counts_is_observed():
    _, first = start(block=0, goal=(0.8, -0.4))
    _, second = start(block=3, goal=(0.9, 0.3))
    assert np.array_equal(first, second)


def test_a_block_that_does_not_exist_is_refused():
    with pytest.raises(InvalidTask, match="'block' must be one of"):
        start(block=5)


def test_blocks_stay_on_the_table():
    env = sim.make("block-push", 32, seed=0)
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(40):  # long pushes in all directions
        obs = drive(env, rng.uniform(-1, 1, 3), 15)
        x, y = places(env)[..., 0], places(env)[..., 1]
        assert x.min() > -0.3 and x.max() < 1.2 and np.abs(y).max() < 0.75
        assert np.isfinite(obs).all()


def test_the_task_is_worth_knowing():
    told = dense_and_sparse("block-push", reference.told)
    blind = dense_and_sparse("block-push", reference.blind)
    assert told[0] > -85 and told[1] > 680
    assert blind[0] < -200 and blind[1] < 400


def test_the_adapting_reference_finds_the_block_and_remembers_it():
    episodes = per_episode("block-push", reference.adapting)
    assert 150 < episodes[0] < episodes[1] - 150
