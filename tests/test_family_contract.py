"""Families that could not be trained on and evaluated are refused, and told why."""

import math

import numpy as np
import pytest

import sim
from runtime.errors import InvalidTask
from sim.families.bandit import Bandit
from sim.families.halfcheetah import HalfCheetahRun, HalfCheetahVel
from sim.family import TaskParameter
from sim.trials import TrialEnv

SPEED = TaskParameter("speed", "m/s", 0.0, 1.0)


def cheetah(**other):
    family = HalfCheetahVel("odd")
    for name, value in other.items():
        setattr(family, name, value)
    return family


def bandit(**other):
    family = Bandit("odd")
    for name, value in other.items():
        setattr(family, name, value)
    return family


def choosing(choices, held_out=()):
    parameter = TaskParameter("side", "1", 0.0, 2.0, choices=choices, held_out=held_out)
    return cheetah(task_parameters=(parameter,))


class Outside(HalfCheetahVel):
    """Draws tasks that its range does not have."""

    def sample(self, rng, n):
        return {"target_velocity": np.full(n, 3.5)}


class Elsewhere(HalfCheetahVel):
    """Draws another parameter than it says it has."""

    def sample(self, rng, n):
        return {"velocity": np.full(n, 1.0)}


class Endless(HalfCheetahVel):
    """Draws tasks that are no numbers."""

    def sample(self, rng, n):
        return {"target_velocity": np.full(n, math.nan)}


REFUSED = {
    "no steps": (
        lambda: cheetah(horizon=0),
        "odd: horizon must be a whole number, at least 1, got 0",
    ),
    "no episodes": (
        lambda: cheetah(episodes=0),
        "odd: episodes must be a whole number, at least 1, got 0",
    ),
    "no rate": (lambda: bandit(control_hz=0), "odd: control_hz must be above 0, got 0"),
    "rate nan": (lambda: bandit(control_hz=math.nan), "control_hz must be above 0, got nan"),
    "no tasks": (HalfCheetahRun, "halfcheetah-run has no task parameters: nothing varies"),
    "observed twice": (
        lambda: bandit(observation=Bandit.observation * 2),
        r"odd: observation repeats the names \['nothing'\]",
    ),
    "done twice": (
        lambda: bandit(action=Bandit().action[:1] * 2),
        r"odd: action repeats the names \['arm_0'\]",
    ),
    "drawn twice": (
        lambda: cheetah(task_parameters=(SPEED, SPEED)),
        r"odd: task_parameters repeats the names \['speed'\]",
    ),
    "observes nothing": (lambda: bandit(observation=()), "odd: observation is empty"),
    "does nothing": (lambda: bandit(action=()), "odd: action is empty"),
    "all held out": (
        lambda: choosing((0.0, 1.0), (0.0, 1.0)),
        r"'side': all of its choices \[0.0, 1.0\] are held out, none is left to train on",
    ),
    "choices outside": (
        lambda: choosing((0.0, 3.0)),
        r"'side': the choices \[3.0\] are outside \[0.0, 2.0\]",
    ),
    "no such choice": (
        lambda: choosing((0.0, 1.0), (2.0,)),
        r"'side': held-out values \[2.0\] are none of its choices \[0.0, 1.0\]",
    ),
    "range upside down": (
        lambda: TaskParameter("speed", "m/s", 2, 1),
        "'speed': low 2 must be below high 1",
    ),
    "no end": (
        lambda: TaskParameter("speed", "m/s", 0.0, math.inf),
        r"'speed': its range must be finite, got \[0.0, inf\]",
    ),
    "no such scale": (
        lambda: TaskParameter("speed", "m/s", 0.0, 1.0, scale="Log"),
        "'speed': scale must be 'linear' or 'log', got 'Log'",
    ),
    "no logarithm": (
        lambda: TaskParameter("factor", "1", 0.0, 1.0, scale="log"),
        "'factor': a log scale needs low above 0, got 0",
    ),
    "held out outside": (
        lambda: Outside("odd"),
        r"odd: held-out tasks are outside their ranges: \{'target_velocity': \(3.5",
    ),
    "other parameters": (
        lambda: Elsewhere("odd"),
        r"odd takes the task parameters \['target_velocity'\], got \['velocity'\]",
    ),
    "no numbers": (lambda: Endless("odd"), "odd: task parameter 'target_velocity' is not finite"),
    "fewer actions than motors": (
        lambda: cheetah(action=HalfCheetahVel.action[:5]),
        "odd: the body has 6 motors, the family names 5 actions: .*back_thigh_torque",
    ),
}


@pytest.fixture
def registered():
    """Register a family as "odd" for one test."""
    yield lambda build: sim.register("odd", build)
    sim.registry._FAMILIES.pop("odd", None)


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_not_be_trained_on_is_refused(case, registered):
    build, complaint = REFUSED[case]
    with pytest.raises(InvalidTask, match=complaint):
        TrialEnv(build(), 1)
    registered(build)
    with pytest.raises(InvalidTask, match=complaint):
        sim.make("odd", 1)


def test_as_it_stands_the_family_is_accepted(registered):
    registered(cheetah)
    assert sim.make("odd", 1).num_envs == TrialEnv(bandit(), 1).num_envs == 1
    assert TrialEnv(choosing((0.0, 1.0, 2.0), (1.0,)), 1).num_envs == 1
