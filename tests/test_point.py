"""The point families: motion, goals, and scripted references."""

import math

import numpy as np
import pytest

import sim
from benchmarks.references import point
from benchmarks.references.playing import play


def sparse(angle, **options):
    env = sim.make("point-sparse", len(angle), **options)
    env.reset(options={"tasks": {"goal_angle": np.array(angle)}})
    return env


def test_an_action_of_one_moves_a_tenth_of_a_metre_per_axis_and_more_is_clipped():
    env = sparse([1.0])
    obs, *_ = env.step(np.array([[1.0, -0.5]], np.float32))
    assert obs[0] == pytest.approx([0.1, -0.05])
    obs, *_ = env.step(np.array([[7.0, 0.0]], np.float32))
    assert obs[0] == pytest.approx([0.2, -0.05])
    obs, _ = env.reset()
    assert obs.tolist() == [[0.0, 0.0]]


def test_goals_are_spread_over_the_upper_half_of_the_unit_circle():
    env = sim.make("point-sparse", 4000, seed=0)
    env.reset()
    x, y = env.world.goal.T
    assert x**2 + y**2 == pytest.approx(np.ones(4000))
    assert y.min() >= 0 and x.min() < -0.999 and x.max() > 0.999
    # uniform in the angle: the mean of sin over [0, pi] is 2 / pi
    assert y.mean() == pytest.approx(2 / math.pi, abs=0.02)


def test_navigation_goals_fill_the_square():
    tasks = sim.family("point-nav").sample(np.random.default_rng(0), 4000)
    for values in tasks.values():
        assert values.min() == pytest.approx(-0.5, abs=0.01)
        assert values.max() == pytest.approx(0.5, abs=0.01)
        assert values.std() == pytest.approx(1 / math.sqrt(12), rel=0.03)


@pytest.fixture(scope="module", params=["point-sparse", "point-nav"])
def played(request):
    results = {}
    for kind in ("told", "blind", "adapting"):
        env = sim.make(request.param, 60, testing=True)
        act = getattr(point, kind)(env)
        results[kind] = play(env, act, env.family.held_out(60), kind == "adapting")
    return request.param, results


def test_told_beats_blind_widely(played):
    name, results = played
    told, blind = (results[kind][0].mean() for kind in ("told", "blind"))
    assert told > blind + (10 if name == "point-sparse" else 30)
    if name == "point-nav":
        assert results["told"][1].max() <= 5  # half a metre is five steps of a tenth


def test_searching_beats_blind_and_comes_to_know_the_goal(played):
    name, results = played
    adapted, told, blind = (results[k][0].mean(axis=1) for k in ("adapting", "told", "blind"))
    assert adapted[-1] > blind[-1]
    assert adapted[-1] == pytest.approx(told[-1], rel=0.1)
    assert adapted[0] < told[0] - 0.5
    if name == "point-sparse":  # one episode cannot sweep the half circle, three can
        paid = results["adapting"][0] > 0
        assert paid[0].mean() < 0.6 and paid[:3].any(axis=0).all()


@pytest.mark.parametrize("name", ["point-sparse", "point-nav"])
def test_the_picture_shows_goal_and_point_where_they_are(name):
    env = sim.make(name, 2, seed=0)
    env.reset()
    before = env.family.draw(env.world, 1)
    assert before.shape == (240, 320, 3) and before.dtype == np.uint8
    env.step(np.array([[0.0, 0.0], [1.0, 1.0]], np.float32))
    after = env.family.draw(env.world, 1)
    rows, _ = np.nonzero((before != after).any(axis=2))
    assert len(rows)
    blue = np.flatnonzero((after == (38, 92, 153)).all(axis=2))
    row, column = np.mean(np.unravel_index(blue, after.shape[:2]), axis=1)
    assert column > 160 and row < np.mean(rows)  # it moved to the right and up
