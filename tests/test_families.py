"""Properties of every registered task family."""

import json

import numpy as np
import pytest

import sim
from runtime.errors import InvalidTask, UnknownName
from sim.families.bandit import Bandit
from sim.mujoco_family import MujocoFamily
from sim.registry import VARIATIONS
from sim.task import TaskParameter
from tests.reward_steps import played, scattered
from tests.rewards_by_hand import CHANCE, formula_of

NAMES = [
    *sim.names(),
    *("halfcheetah-vel+" + v for v in VARIATIONS),
    "ant-dir+payload+delay+noise",
    "hopper-rand-params+weak-motor",
    "humanoid-dir+mass",  # which moves the centre of mass
    "wheeled+delay",  # which has a test reward
]
PHYSICAL = [n for n in NAMES if isinstance(sim.family(n), MujocoFamily)]
SPARSE = ["grid-nav", "maze2d"]
"""Families in which random actions seldom meet the goal; their own tests hold what they pay."""

ALL_TRAINED = ["ant-dir", "ant-dir-1rad", "halfcheetah-dir", "maze2d"]
"""Families of two tasks, both to train on and to be tested on, as in the papers."""


def random_actions(env, steps, seed=0):
    shape = (steps, env.num_envs, len(env.family.action))
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def play(env, actions):
    """First tasks, observations and rewards of a run, with episodes started as they end."""
    obs, info = env.reset()
    rows = [obs, info["task"]]
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        rows += [obs, reward[:, None]]
        done = terminated | truncated
        if done.any():
            env.reset(options={"reset_mask": done})
    return np.concatenate(rows, axis=1)


def test_a_family_of_ones_own_can_be_registered():
    sim.register("bandit-7", lambda: Bandit("bandit-7", arms=7))
    try:
        assert sim.make("bandit-7").single_action_space.shape == (7,)
    finally:
        del sim.registry._FAMILIES["bandit-7"]


@pytest.mark.parametrize("name", NAMES)
def test_spaces_and_channels_agree(name):
    env = sim.make(name, 3)
    assert env.family.name == name
    obs, info = env.reset()
    assert obs.dtype == np.float32
    assert env.observation_space.contains(obs)
    assert env.single_action_space.shape == (len(env.family.action),)
    assert info["task"].shape == (3, len(env.family.task_parameters))
    assert env.family.summary and env.family.control_hz > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_everything_at_any_number_of_threads(name):
    runs = []
    for threads in (1, 2):
        env = sim.make(name, 5, threads, seed=3)
        runs.append(play(env, random_actions(env, 30)))
    assert np.array_equal(*runs)
    other = sim.make(name, 5, seed=4)
    assert not np.array_equal(runs[0], play(other, random_actions(other, 30)))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SPARSE])
def test_the_reward_depends_on_the_task(name):
    family = sim.family(name)
    first = family.sample(np.random.default_rng(0), 64)
    assert all(len(np.unique(values)) > 1 for values in first.values())
    rewards = []
    for place in (0.0, 0.4):  # of the way through the range: an angle's two ends are the same
        env = sim.make(name, 4, seed=1)
        tasks = {}
        for p in family.task_parameters:
            value = p.choices[int(place > 0)] if p.choices else p.low + place * (p.high - p.low)
            tasks[p.name] = np.full(4, value)
        env.reset(seed=1, options={"tasks": tasks})
        rewards.append([env.step(a)[1] for a in random_actions(env, 20)])
    assert not np.allclose(*rewards)


@pytest.mark.parametrize("name", NAMES)
def test_rewards_and_ends_are_those_of_the_definition(name):
    formula, seen = formula_of(name), []
    if formula in CHANCE:
        return compare_chances(formula, sim.make(name, 200, seed=2))
    for step, reward, test_reward, terminated in played(sim.make(name, 8, seed=2), 40):
        paid = formula(step)
        assert reward == pytest.approx(paid.reward, abs=1e-9)
        assert test_reward == pytest.approx(paid.test_reward, abs=1e-9)
        assert terminated == bool(paid.terminated)
        ends = () if paid.terminated is None else (paid.terminated,)
        seen.append((*paid.cases, *ends))
    for number, case in enumerate(zip(*seen, strict=True)):
        assert set(case) == {True, False}, f"case {number} of {formula.__name__}"


def compare_chances(formula, env):
    """Rewards of 0 or 1 have the probabilities that the formula says."""
    chance, paid = np.array([(formula(step).reward, r) for step, r, *_ in played(env, 40)]).T
    assert set(paid) == {0.0, 1.0}
    # Right on average, and more often where more probable; within four standard deviations.
    for weight in (np.ones_like(chance), chance - 0.5):
        deviation = np.sqrt((weight**2 * chance * (1 - chance)).sum())
        assert abs((weight * (paid - chance)).sum()) < 4 * deviation


@pytest.mark.parametrize("name", PHYSICAL)
def test_an_episode_ends_in_those_states_in_which_the_definition_ends_it(name):
    formula = formula_of(name)
    for step, ended in scattered(sim.make(name, 100, seed=2), 40):
        assert ended == bool(formula(step).terminated), step.after


@pytest.mark.parametrize("name", NAMES)
def test_where_there_is_a_test_reward_it_is_paid_at_test(name):
    env = sim.make(name, 4, seed=2, testing=True)
    for _, reward, test_reward, _ in played(env, 10):
        assert reward == (reward if test_reward is None else test_reward)


@pytest.mark.parametrize("name", PHYSICAL)
def test_a_control_step_takes_as_long_as_the_rate_says(name):
    env = sim.make(name, 1)
    env.reset()
    env.step(random_actions(env, 1)[0])
    assert env.world.batch.get_data(0).time == pytest.approx(1 / env.family.control_hz)


def test_a_family_without_a_formula_is_noticed():
    with pytest.raises(AssertionError, match=r"'bandit-7' is registered and .* FORMULAS"):
        formula_of("bandit-7+payload")


@pytest.mark.parametrize("name", NAMES)
def test_held_out_tasks_are_fixed_by_their_seed_and_within_the_ranges(name):
    family = sim.family(name)
    one, again, other = family.held_out(30, 0), family.held_out(30, 0), family.held_out(30, 1)
    for p in family.task_parameters:
        assert np.array_equal(one[p.name], again[p.name])
        assert (one[p.name] >= p.low).all() and (one[p.name] <= p.high).all()
        if p.choices:
            assert np.unique(one[p.name]).tolist() == sorted(p.held_out or p.choices)
            continue
        assert not np.array_equal(one[p.name], other[p.name])


@pytest.mark.parametrize("name", NAMES)
def test_training_draws_no_held_out_task(name):
    family = sim.family(name)
    held_out = family.held_out(1000)
    trained_on = family.sample(np.random.default_rng(0), 10_000)
    drawn = [np.stack(list(tasks.values()), axis=1) for tasks in (held_out, trained_on)]
    shared = set(map(tuple, drawn[0])) & set(map(tuple, drawn[1]))
    assert bool(shared) == (name in ALL_TRAINED)
    for p in family.task_parameters:
        if p.held_out:
            assert not np.isin(trained_on[p.name], p.held_out).any()
            assert np.unique(trained_on[p.name]).tolist() == sorted({*p.choices} - {*p.held_out})
        if not p.choices:
            assert not np.intersect1d(held_out[p.name], trained_on[p.name]).size


@pytest.mark.parametrize("name", NAMES)
def test_resetting_some_leaves_the_others_untouched(name):
    env = sim.make(name, 4, seed=0)
    env.reset()
    for action in random_actions(env, 5):
        before, *_ = env.step(action)
    mask = np.array([True, False, True, False])
    after, info = env.reset(options={"reset_mask": mask})
    assert np.array_equal(before[~mask], after[~mask])
    assert info["episode"].tolist() == [info["episode"][0], 0, info["episode"][0], 0]
    if name in PHYSICAL:
        assert not np.array_equal(before[mask], after[mask])


@pytest.mark.parametrize("name", NAMES)
def test_paused_simulations_leave_the_others_as_they_are(name):
    runs = []
    for pause in (False, True):
        env = sim.make(name, 5, seed=2)
        env.reset()
        if pause:
            env.pause(np.array([True, False, False, True, False]))
        rows = [np.concatenate(env.step(a)[:2], axis=None) for a in random_actions(env, 3)]
        obs, _ = env.reset(options={"reset_mask": np.array([True, False, False, False, False])})
        runs.append((np.array([env.step(a)[0] for a in random_actions(env, 3)]), obs, rows))
    assert np.array_equal(runs[0][0][:, [1, 2, 4]], runs[1][0][:, [1, 2, 4]])
    assert np.array_equal(runs[0][1][[0, 1, 2, 4]], runs[1][1][[0, 1, 2, 4]])
    if name in PHYSICAL and "noise" not in name:  # the third has stood still
        assert not np.array_equal(runs[0][0][:, 3], runs[1][0][:, 3])


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_keeps_its_task_over_its_episodes_and_then_draws_another(name):
    env = sim.make(name, 2, seed=0, episodes=2)
    everyone = np.ones(2, bool)
    _, first = env.reset()
    assert first["new_task"].all()
    _, second = env.reset(options={"reset_mask": everyone})
    assert second["episode"].tolist() == [1, 1] and not second["new_task"].any()
    assert np.array_equal(first["task"], second["task"])
    for _ in range(8):  # a family with few tasks may draw the same one again
        _, third = env.reset(options={"reset_mask": everyone})
        assert third["new_task"].all() == (third["episode"] == 0).all()
        if not np.array_equal(first["task"], third["task"]):
            break
    assert not np.array_equal(first["task"], third["task"])


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_is_truncated_at_the_horizon(name):
    env = sim.make(name, 2, seed=0)
    env.reset()
    actions = random_actions(env, env.family.horizon)
    for t, action in enumerate(actions, start=1):
        _, _, terminated, truncated, _ = env.step(action)
        assert (truncated == ((t >= env.family.horizon) & ~terminated)).all()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_becomes_nan_in_ten_thousand_random_steps(name):
    env = sim.make(name, 50, 2, seed=0)
    assert np.isfinite(play(env, random_actions(env, 200))).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_task_survives_json(name):
    family = sim.family(name)
    tasks = family.sample(np.random.default_rng(0), 3)
    copy = json.loads(json.dumps({k: v.tolist() for k, v in tasks.items()}))
    checked = family.check_tasks({k: np.array(v) for k, v in copy.items()}, 3)
    assert all(np.array_equal(checked[k], tasks[k]) for k in tasks)


@pytest.mark.parametrize("name", NAMES)
def test_task_features_span_minus_one_to_one(name):
    family = sim.family(name)
    ends = {p.name: np.array([p.low, p.high]) for p in family.task_parameters}
    assert np.array_equal(family.task_features(ends)[0], -np.ones(len(ends)))
    assert np.array_equal(family.task_features(ends)[1], np.ones(len(ends)))


def test_actions_are_clipped_before_anything_sees_them():
    runs = []
    for scale in (1.0, 5.0):
        env = sim.make("halfcheetah-vel", 2, seed=0)
        env.reset()
        obs, reward, *_ = env.step(np.full((2, 6), scale, np.float32))
        runs.append((obs, reward))
        assert np.array_equal(env.applied_action, np.ones((2, 6)))
    assert np.array_equal(runs[0][0], runs[1][0]) and np.array_equal(runs[0][1], runs[1][1])


def test_a_task_can_change_inside_an_episode():
    env = sim.make("halfcheetah-vel", 2, seed=0)
    obs, _ = env.reset()
    env.change_tasks(np.array([1]), {"target_velocity": np.array([2.5])})
    assert env.tasks["target_velocity"][1] == 2.5
    assert env.task_features()[1, 0] == pytest.approx(2 * 2.5 / 3 - 1)
    assert np.array_equal(obs, env.family.observe(env.world))


def test_bad_input_is_told_what_exists():
    with pytest.raises(UnknownName, match="Did you mean 'halfcheetah-vel'"):
        sim.make("halfcheetah-vle")
    with pytest.raises(InvalidTask, match="num_envs must be a whole number, at least 1, got 0"):
        sim.make("bandit", 0)
    with pytest.raises(InvalidTask, match="episodes must be a whole number, at least 1"):
        sim.make("bandit", 1, episodes=0)
    with pytest.raises(InvalidTask, match="low 2 must be below high 1"):
        TaskParameter("speed", "m/s", 2, 1)
    env = sim.make("halfcheetah-vel", 1)
    with pytest.raises(InvalidTask, match="takes the task parameters"):
        env.reset(options={"tasks": {"speed": np.zeros(1)}})
    with pytest.raises(InvalidTask, match=r"must be one of \[-1.0, 1.0\]"):
        sim.make("halfcheetah-dir", 1).reset(options={"tasks": {"direction": np.array([0.3])}})
    with pytest.raises(InvalidTask, match="is not finite"):
        env.reset(options={"tasks": {"target_velocity": np.array([np.nan])}})
