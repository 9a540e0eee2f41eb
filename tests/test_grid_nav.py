"""The grid: goals, moves, walls, and scripted references."""

import numpy as np
import pytest

import sim
from benchmarks.references import grid_nav
from benchmarks.references.playing import play

STAY, UP, RIGHT, DOWN, LEFT = range(5)
CORNERS = {0: (0, 0), 10: (0, 10), 20: (10, 10), 30: (10, 0)}


def walk(env, moves):
    """Cells and rewards of a walk of one simulation, by the numbers of its moves."""
    cells, rewards = [], []
    for move in moves:
        action = np.full((1, 5), -0.3, np.float32)
        action[0, move] = 0.1
        obs, reward, *_ = env.step(action)
        cells.append(tuple(np.rint(5 * obs[0] + 5).astype(int)))
        rewards.append(reward[0])
    return cells, rewards


def begin(goal):
    env = sim.make("grid-nav", 1)
    obs, _ = env.reset(options={"tasks": {"goal": np.array([goal])}})
    assert obs.tolist() == [[0.0, -1.0]]  # bottom middle
    return env


def test_there_are_31_goals_on_three_edges_numbered_around():
    env = sim.make("grid-nav", 31)
    env.reset(options={"tasks": {"goal": np.arange(31)}})
    cells = [tuple(c) for c in env.world.goal.tolist()]
    assert set(cells) == {(x, y) for x in range(11) for y in range(11) if x in (0, 10) or (y == 10)}
    assert len(set(cells)) == 31
    assert all(cells[k] == corner for k, corner in CORNERS.items())
    steps = np.abs(np.diff(env.world.goal, axis=0)).sum(axis=1)
    assert (steps == 1).all()


def test_every_sixth_goal_is_held_out():
    assert set(sim.family("grid-nav").held_out(50)["goal"]) == {2, 8, 14, 20, 26}


def test_moves_and_walls():
    env = begin(20)
    assert walk(env, [UP, RIGHT, DOWN, LEFT, STAY])[0] == [(5, 1), (6, 1), (6, 0), (5, 0), (5, 0)]
    assert walk(env, [DOWN])[0] == [(5, 0)]
    assert walk(env, [LEFT] * 7)[0][4:] == [(0, 0)] * 3


def test_references_are_worth_what_can_be_counted_by_hand():
    goals = np.arange(31.0)
    results = {}
    for kind in ("told", "blind", "adapting"):
        env = sim.make("grid-nav", 31)
        act = getattr(grid_nav, kind)(env)
        results[kind], _ = play(env, act, {"goal": goals}, kind == "adapting")
    cells = np.array(
        [(0, k) for k in range(11)]
        + [(k, 10) for k in range(1, 10)]
        + [(10, 10 - k) for k in range(11)]
    )
    distance = np.abs(cells - (5, 0)).sum(axis=1)
    expected = (20 - distance + 1) - 0.1 * (distance - 1)
    assert results["told"] == pytest.approx(np.tile(expected, (3, 1)))
    # the fixed round passes goals 0 to 15 once each
    assert results["blind"][0] == pytest.approx(np.where(goals <= 15, 1 - 1.9, -2.0))
    # the search is done after two episodes: the left half, then the right half
    adapting = results["adapting"]
    found = [(np.flatnonzero(episode > 0)).tolist() for episode in adapting]
    assert set(found[0]) <= set(range(16)) and found[2] == list(range(31))
    assert adapting[2] == pytest.approx(expected)
    assert adapting.mean() > results["blind"].mean() + 5


def test_the_picture_shows_the_goal():
    env = begin(20)
    image = env.family.draw(env.world, 0)
    assert image.shape == (240, 320, 3) and image.dtype == np.uint8
    rows, columns = np.nonzero((image == (226, 120, 48)).all(axis=2))
    assert rows.max() < 40 and columns.min() > 230  # the top right corner
