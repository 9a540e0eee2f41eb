"""Bandits: independent pulls, and scripted references against known answers."""

import numpy as np
import pytest

import sim
from benchmarks.references import bandit
from benchmarks.references.playing import play


@pytest.mark.parametrize(("name", "arms", "pulls"), [("bandit-5", 5, 100), ("bandit-10", 10, 100)])
def test_the_named_variants(name, arms, pulls):
    family = sim.family(name)
    assert len(family.action) == len(family.task_parameters) == arms
    assert family.horizon == pulls and family.episodes == 1


def test_pulls_are_independent_of_one_another():
    env = sim.make("bandit", 4000, seed=0)
    env.reset(options={"tasks": {f"probability_{k}": np.full(4000, 0.5) for k in range(2)}})
    action = np.tile(np.array([1, 0], np.float32), (4000, 1))
    first, second = env.step(action)[1], env.step(action)[1]
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0, abs=0.07)
    assert np.corrcoef(first[:-1], first[1:])[0, 1] == pytest.approx(0, abs=0.07)


@pytest.mark.parametrize(("name", "arms"), [("bandit", 2), ("bandit-5", 5), ("bandit-10", 10)])
def test_references(name, arms):
    n, results = 3000, {}
    for kind in ("told", "blind", "adapting"):
        env = sim.make(name, n)
        act = getattr(bandit, kind)(env)
        tasks = env.family.held_out(n)
        results[kind] = play(env, act, tasks, kind == "adapting")[0].mean() / env.family.horizon
    # the largest of k uniform numbers is k / (k + 1) on average, any one of them 1 / 2
    assert results["told"] == pytest.approx(arms / (arms + 1), abs=0.02)
    assert results["blind"] == pytest.approx(0.5, abs=0.02)
    assert results["blind"] + 0.1 < results["adapting"] < results["told"]


def test_thompson_sampling_earns_what_its_recursion_says():
    """Two pulls of two arms, worked out by hand.

    The first pull pays 1/2. After a success that arm's posterior is Beta(2, 1); its draw beats
    a uniform one with probability 2/3 and pays 2/3, the other arm pays 1/2: 2/3 2/3 + 1/3 1/2
    = 11/18. After a failure it is Beta(1, 2): it wins with 1/3 and pays 1/3: 1/3 1/3 + 2/3 1/2
    = 4/9. So the second pull pays (11/18 + 4/9) / 2 = 19/36.
    """
    n = 40_000
    env = sim.make("bandit", n, seed=0)
    obs, _ = env.reset()
    act = bandit.adapting(env)
    new, reward, paid = np.ones(n, bool), np.zeros(n), []
    for _ in range(2):
        obs, reward, *_ = env.step(act(obs, reward, new))
        new = np.zeros(n, bool)
        paid.append(reward.mean())
    assert paid == pytest.approx([1 / 2, 19 / 36], abs=0.01)


def test_the_picture_shows_the_arms_and_the_last_pull():
    env = sim.make("bandit-5", 1, seed=0)
    env.reset()
    before = env.family.draw(env.world, 0)
    assert before.shape == (240, 320, 3) and before.dtype == np.uint8
    env.step(np.eye(5, dtype=np.float32)[[4]])
    changed = np.nonzero((env.family.draw(env.world, 0) != before).any(axis=2))
    assert changed[0].min() > 180 and changed[1].min() > 240  # a dot below the last bar
