"""The maze: its sign, its boxes, its walls, and scripted references."""

import numpy as np
import pytest

import sim
from benchmarks.references import maze2d
from benchmarks.references.playing import play

RADIUS = 0.12
FREE = [  # the T and the corridor of the sign, as corners (low, high)
    ((-2.0, 0.75), (2.0, 1.5)),
    ((-0.375, -1.5), (0.375, 1.5)),
    ((-2.0, -1.5), (0.375, -0.75)),
]


def begin(side, n=1):
    env = sim.make("maze2d", n, seed=0)
    obs, _ = env.reset(options={"tasks": {"goal_side": np.full(n, side)}})
    return env, obs


def put(env, x, y):
    """Place every robot at (x, y), at rest; what it sees there."""
    env.world.qpos[:] = np.array([x, y]) - env.world.model.body("robot").pos[:2]
    env.world.qvel[:] = 0.0
    return env.family.observe(env.world)


def test_it_starts_at_rest_within_a_tenth_of_a_metre_of_the_foot_of_the_stem():
    _, obs = begin(1.0, 2000)
    assert np.abs(obs[:, :2] - [0, -1.125]).max() <= 0.1
    assert np.abs(obs[:, :2] - [0, -1.125]).max() > 0.099
    assert not obs[:, 2:].any()


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_the_sign_is_seen_near_the_grey_box_only(side):
    env, _ = begin(side)
    seen = {x: put(env, x, -1.125)[0, 4] for x in (-1.3, -1.21, -1.19, 0.0)}
    assert seen == {-1.3: side, -1.21: side, -1.19: 0.0, 0.0: 0.0}
    assert put(env, -1.4, -0.9)[0, 4] == side
    for low, high in FREE[:2]:  # neither the stem nor the crossbar is near enough
        for x in np.linspace(low[0], high[0], 9):
            for y in np.linspace(low[1], high[1], 9):
                assert put(env, x, y)[0, 4] == 0.0


def test_the_boxes_of_the_picture_are_those_of_the_reward():
    env, _ = begin(1.0)
    model = env.world.model
    boxes = np.array([model.geom(f"box_{name}").pos[:2] for name in ("left", "right")])
    assert boxes == pytest.approx(maze2d.BOXES)
    assert model.geom("box_grey").pos[:2] == pytest.approx(maze2d.SIGN)
    assert model.body("robot").pos[:2] == pytest.approx(maze2d.START)
    assert model.geom("robot").size[0] == RADIUS
    assert model.camera("track").id >= 0


def test_walls_hold_against_full_speed_in_every_direction():
    env, obs = begin(1.0, 64)
    rng = np.random.default_rng(0)
    for step in range(300):
        if step % 15 == 0:
            push = rng.choice([-1.0, 0.0, 1.0], (64, 2)).astype(np.float32)
        obs, *_ = env.step(push)
        centre = obs[:, :2].astype(float)
        slack = RADIUS - 0.02  # contacts give way by less than this
        inside = np.zeros(64, bool)
        for low, high in FREE:
            above = (centre >= np.array(low) + slack).all(axis=1)
            inside |= above & (centre <= np.array(high) - slack).all(axis=1)
        # round an inner corner the centre may be nearer to either wall than in the open
        for corner in [(-0.375, 0.75), (0.375, 0.75), (-0.375, -0.75)]:
            gap = np.linalg.norm(centre - corner, axis=1)
            inside |= (gap > slack) & (gap < 2 * RADIUS)
        assert inside.all()


def test_a_step_at_full_speed_is_a_fifth_of_a_metre():
    env, _ = begin(1.0)
    put(env, 0.0, -1.2)
    for _ in range(5):
        before, *_ = env.step(np.array([[0.0, 1.0]], np.float32))
    after, *_ = env.step(np.array([[0.0, 1.0]], np.float32))
    assert after[0, 1] - before[0, 1] == pytest.approx(0.2, rel=0.01)
    assert after[0, 3] == pytest.approx(2.0, rel=0.01)


def test_told_takes_19_steps_and_reading_the_sign_is_a_detour_worth_making():
    results = {}
    for kind in ("told", "blind", "adapting"):
        env = sim.make("maze2d", 64, seed=0)
        act = getattr(maze2d, kind)(env)
        results[kind] = play(env, act, env.family.held_out(64), kind == "adapting")
    returns, lengths = results["told"]
    assert (returns == 1).all() and lengths.max() <= 19
    assert results["blind"][0].mean() == 0.0
    returns, lengths = results["adapting"]
    assert (returns == 1).all()
    assert lengths[0].min() > 28 and lengths[1].max() <= 19
