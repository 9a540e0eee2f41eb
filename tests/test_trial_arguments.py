"""What an environment refuses, in a sentence, before it does harm."""

import numpy as np
import pytest

import sim
from runtime.errors import InvalidTask, UnknownName
from sim.families.halfcheetah import HalfCheetahVel
from sim.trials import TrialEnv


@pytest.fixture
def env():
    made = sim.make("halfcheetah-vel", 3, seed=0)
    made.reset()
    return made


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reset_mask": np.array([1, 0, 0])}, r"must be bool and of shape \(3,\), got int64"),
        ({"reset_mask": np.array([True])}, r"must be bool and of shape \(3,\), got bool of"),
        ({"mask": np.ones(3, bool)}, r"the options reset_mask and tasks, got \['mask'\]"),
    ],
)
def test_a_reset_that_makes_no_sense(env, options, problem):
    before = env.world.qpos.copy()
    with pytest.raises(InvalidTask, match=problem):
        env.reset(options=options)
    assert np.array_equal(before, env.world.qpos)


def test_a_list_is_a_mask(env):
    before = env.world.qpos.copy()
    env.reset(options={"reset_mask": [False, True, False]})
    assert (before != env.world.qpos).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        (np.zeros(6), r"of shape \(3, 6\), got \(6,\)"),
        (np.zeros((3, 5)), r"of shape \(3, 6\), got \(3, 5\)"),
        (np.where(np.arange(18) == 7, np.nan, 0).reshape(3, 6), r"actions of \[1\] are not finite"),
    ],
)
def test_an_action_that_makes_no_sense(env, actions, problem):
    with pytest.raises(InvalidTask, match=problem):
        env.step(actions)


def test_the_first_step_comes_after_a_reset():
    with pytest.raises(InvalidTask, match="reset the environment before its first step"):
        sim.make("bandit", 2).step(np.zeros((2, 2)))


@pytest.mark.parametrize("ids", [[7], [-1], [True, False, False]])
def test_a_change_of_no_simulation(env, ids):
    with pytest.raises(InvalidTask, match="simulations are numbered 0 to 2"):
        env.change_tasks(np.array(ids), {"target_velocity": np.zeros(len(ids))})


@pytest.mark.parametrize(
    "wrong", [{"num_envs": 2.5}, {"seed": -1}, {"seed": None}, {"num_threads": -1}]
)
def test_numbers_that_are_no_counts(wrong):
    name = next(iter(wrong))
    with pytest.raises(InvalidTask, match=f"{name} must be a whole number, at least"):
        sim.make("bandit", **wrong)


class Odd(HalfCheetahVel):
    """One mistake each, in a subclass."""


def odd(**attributes):
    return type("Mistaken", (Odd,), attributes)("odd")


@pytest.mark.parametrize(
    ("mistake", "problem"),
    [
        ({"observation": HalfCheetahVel.observation[:-1]}, r"16 observation channels, but"),
        ({"control_hz": 50.0}, "are 20 control steps per second, control_hz is 50"),
        ({"horizon": 2.5}, "horizon must be a whole number, at least 1, got 2.5"),
        ({"outputs": ("xpoz",)}, "Did you mean 'xpos'"),
        ({"body": "half_cheeta.xml"}, "there is no MJCF file .*half_cheeta.xml"),
    ],
)
def test_a_family_that_does_not_keep_its_word(mistake, problem):
    with pytest.raises((InvalidTask, UnknownName), match=problem):
        TrialEnv(odd(**mistake), 2)


def test_a_registered_name_is_taken():
    with pytest.raises(InvalidTask, match="there is a family 'bandit' already"):
        sim.register("bandit", HalfCheetahVel)
