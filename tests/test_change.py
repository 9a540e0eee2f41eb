"""Changes of task inside a trial: when they come, what they touch, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sim
from runtime.errors import InvalidTask
from sim.change import NEVER, Change, Schedule
from sim.families.bandit import Bandit
from sim.mujoco_family import MujocoFamily
from sim.trials import TrialEnv

NAMES = sim.names()
WORDS = st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True)
VEL = sim.family("halfcheetah-vel")


SHARES = st.floats(0, 1, allow_subnormal=False)  # a policy loaded before flushes subnormals


@st.composite
def written_changes(draw):
    """A change, and a way to write it."""
    first = draw(st.integers(1, 10_000))
    last = draw(st.integers(first, 20_000))
    names = draw(st.lists(WORDS, unique=True, max_size=4))
    to = {
        n: draw(st.floats(allow_nan=False, allow_subnormal=False))
        for n in names
        if draw(st.booleans())
    }
    space = draw(st.sampled_from(["", " "]))
    what = [f"{n}{space}={space}{to[n]!r}" if n in to else n for n in names]
    when = f"{first}{space}-{space}{last}" if first < last or draw(st.booleans()) else str(first)
    text = when + (":" + f",{space}".join(what)) * bool(what)
    return Change((first, last), to, tuple(n for n in names if n not in to)), text


@given(written_changes())
def test_what_is_written_is_what_is_parsed(case):
    change, text = case
    assert Change.parse(text) == change
    assert Change.parse(str(change)) == change


@given(st.text(alphabet="0123456789-:=,. pq", max_size=20) | st.text(max_size=20))
def test_any_text_is_a_change_or_one_sentence(text):
    try:
        change = Change.parse(text)
    except InvalidTask as error:
        assert str(error)
    else:
        assert change.between is not None and 1 <= change.between[0] <= change.between[1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no change: expected STEP"),
        ("soon", "'soon' is no change"),
        ("100-", "'100-' is no change"),
        ("-100", "'-100' is no change"),
        ("1.5", "'1.5' is no change"),
        ("100:payload=heavy", "expected STEP[-STEP][:PARAMETER[=VALUE],...], as 100:payload=0"),
        ("100:payload=1,payload=2", "changes 'payload' twice at once"),
        ("100:payload,payload=2", "changes 'payload' twice at once"),
        ("0", "the first not below 1"),
        ("200-100", "got (200, 100)"),
    ],
)
def test_unreadable_changes_are_refused(text, complaint):
    with pytest.raises(InvalidTask) as refusal:
        Change.parse(text)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    ("family", "change", "complaint"),
    [
        ("halfcheetah-vel", Change((9, 9), {"payload": 1}), "it has ['target_velocity']"),
        ("halfcheetah-vel", Change((9, 9), redraw=("payload",)), "no task parameter 'payload'"),
        ("halfcheetah-vel", Change((9, 400)), "the last step is 399"),
        ("halfcheetah-vel", Change((9, 9), {"target_velocity": np.nan}), "is not finite"),
        ("halfcheetah-dir", Change((9, 9), {"direction": 0.5}), "must be one of [-1.0, 1.0]"),
    ],
)
def test_changes_that_cannot_happen_are_refused(family, change, complaint):
    with pytest.raises(InvalidTask) as refusal:
        sim.make(family, 1, changes=change)
    assert complaint in str(refusal.value)
    with pytest.raises(InvalidTask, match="share of trials"):
        Change(share=1.1)
    with pytest.raises(InvalidTask, match="the last step is 0"):
        TrialEnv(Bandit(horizon=1), 1, changes=Change())


def due(schedule):
    """Run one trial through; the steps before which each change came, by trial."""
    seen = [[[] for _ in range(len(schedule.elapsed))] for _ in schedule.changes]
    for step in range(1, schedule.steps + 1):
        for change, ids in schedule.advance():
            which = [c is change for c in schedule.changes].index(True)  # two may be equal
            for trial in ids:
                seen[which][trial].append(step)
    return seen


@given(st.integers(1, 60), st.integers(0, 40), SHARES, st.integers(0, 2**32))
@example(1, 0, 1.0, 0)
def test_a_change_comes_at_most_once_in_a_trial_and_inside_its_bounds(first, span, share, seed):
    last = first + span
    changes = (Change((first, last), share=share), Change(share=share), Change((first, first)))
    schedule = Schedule(VEL, changes, 9, 110, seed)
    schedule.restart(np.arange(9))
    for _ in range(2):
        ranged, anywhere, given_time = due(schedule)
        assert all(len(t) <= 1 and all(first <= s <= last for s in t) for t in ranged)
        assert all(len(t) <= 1 and all(1 <= s <= 109 for s in t) for t in anywhere)
        assert given_time == [[first]] * 9
        schedule.restart(np.arange(9))


def test_shares_and_times_are_as_asked():
    schedule = Schedule(VEL, (Change((50, 149), share=0.3), Change()), 20_000, 400)
    schedule.restart(np.arange(20_000))
    ranged, anywhere = schedule.times
    happens = ranged != NEVER
    assert happens.mean() == pytest.approx(0.3, abs=0.015)
    for times, first, last in ((ranged[happens], 50, 149), (anywhere, 1, 399)):
        counts = np.bincount(times)
        expected = len(times) / (last - first + 1)
        assert np.flatnonzero(counts).tolist() == list(range(first, last + 1))
        chi2 = ((counts[first:] - expected) ** 2 / expected).sum()  # of last - first degrees
        assert abs(chi2 - (last - first)) < 4 * np.sqrt(2 * (last - first))
    assert abs(np.corrcoef(happens, anywhere)[0, 1]) < 0.03


def test_a_trial_that_restarts_counts_anew_and_leaves_the_others():
    schedule = Schedule(VEL, (Change((5, 5)), Change((7, 300))), 3, 400)
    schedule.restart(np.arange(3))
    for _ in range(4):
        assert schedule.advance() == []
    before = schedule.times.copy()
    schedule.restart(np.array([1]))
    assert np.array_equal(schedule.times[:, [0, 2]], before[:, [0, 2]])
    ((_, ids),) = schedule.advance()
    assert ids.tolist() == [0, 2]
    for _ in range(4):
        came = schedule.advance()
    assert [ids.tolist() for change, ids in came if change.between == (5, 5)] == [[1]]


def two_tasks(family):
    """Two tasks that differ in every parameter, as {name: value} each."""
    drawn = family.sample(np.random.default_rng(0), 64)
    return ({k: float(pick(v)) for k, v in drawn.items()} for pick in (np.min, np.max))


def play(env, steps, tasks=None):
    """Observations, rewards and infos of a run under random actions, episodes restarted."""
    rng = np.random.default_rng(1)
    everyone = tasks and {k: np.full(env.num_envs, v) for k, v in tasks.items()}
    obs, info = env.reset(seed=5, options={"tasks": everyone} if tasks else None)
    rows, states = [], []
    for _ in range(steps):
        action = rng.uniform(-1, 1, (env.num_envs, len(env.family.action))).astype(np.float32)
        seen = obs
        obs, reward, terminated, truncated, info = env.step(action)
        rows.append(np.concatenate((seen, reward[:, None]), axis=1))
        if isinstance(env.family, MujocoFamily):
            states.append(np.concatenate((env.world.qpos, env.world.qvel), axis=1))
        done = terminated | truncated
        if done.any():
            obs, _ = env.reset(options={"reset_mask": done})
    return np.array(rows), np.array(states), info


@pytest.mark.parametrize("name", NAMES)
def test_nothing_differs_before_a_change_and_something_does_after(name):
    family = sim.family(name)
    first, second = two_tasks(family)
    n = 4 if isinstance(family, MujocoFamily) else 400  # a goal is seldom found by chance
    at = family.horizon // 3
    steps = min(family.horizon, at + 60)
    plain, states, _ = play(sim.make(name, n, episodes=steps), steps, first)
    changing = sim.make(name, n, episodes=steps, changes=Change((at, at), second))
    changed, states_changed, info = play(changing, steps, first)
    assert np.array_equal(plain[:at], changed[:at])
    assert np.array_equal(states[:at], states_changed[:at])  # the last one is after the change
    assert not np.array_equal(plain[at:], changed[at:])
    assert all((changing.tasks[k] == v).all() for k, v in second.items())
    expected = family.task_features({k: np.full(n, v) for k, v in second.items()})
    assert np.array_equal(info["task"], expected)


@pytest.mark.parametrize("name", ["halfcheetah-vel", "halfcheetah-dir", "bandit"])
def test_where_only_the_goal_changes_only_rewards_do(name):
    family = sim.family(name)
    first, second = two_tasks(family)
    steps = family.horizon * family.episodes
    plain, states, _ = play(sim.make(name, 4), steps, first)
    changes = (Change((10, 10), second), Change((20, 30)))
    changed, states_changed, _ = play(sim.make(name, 4, changes=changes), steps, first)
    assert np.array_equal(states, states_changed)  # start states of a second episode, too
    assert np.array_equal(plain[..., :-1], changed[..., :-1])
    assert not np.array_equal(plain[10:, :, -1], changed[10:, :, -1])


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_changes_at_any_number_of_threads(name):
    changes = (Change(), Change((2, 9), share=0.5))
    runs = [play(sim.make(name, 5, threads, changes=changes), 40)[0] for threads in (1, 2)]
    assert np.array_equal(*runs)
    times = []
    for seed in (0, 0, 1):
        env = sim.make(name, 50, seed=seed, changes=changes)
        env.reset()
        times.append(env.schedule.times)
    assert np.array_equal(times[0], times[1]) and not np.array_equal(times[0], times[2])


def test_two_changes_in_a_trial_last_over_its_later_episodes_and_end_with_it():
    changes = (
        Change((3, 3), {"target_velocity": 0.5}),
        Change((250, 250), {"target_velocity": 2.5}),
    )
    env = sim.make("halfcheetah-vel", 2, episodes=3, changes=changes)
    for trial in range(2):
        if trial == 0:
            env.reset(options={"tasks": {"target_velocity": np.full(2, 1.0)}})
        first = env.tasks["target_velocity"].copy()
        assert not np.isin(first, [0.5, 2.5]).any()
        for step in range(600):
            expected = first if step < 3 else 0.5 if step < 250 else 2.5
            assert (env.tasks["target_velocity"] == expected).all()
            *_, truncated, info = env.step(np.zeros((2, 6), np.float32))
            assert info["changed"].all() == (step + 1 in (3, 250)) == info["changed"].any()
            if truncated.all():
                env.reset(options={"reset_mask": truncated})


def test_values_and_redraws_may_be_mixed_and_the_rest_stays():
    env = TrialEnv(
        Bandit(arms=3), 50, changes=Change((1, 1), {"probability_0": 0.25}, ("probability_2",))
    )
    env.reset()
    before = {k: v.copy() for k, v in env.tasks.items()}
    env.step(np.zeros((50, 3), np.float32))
    assert (env.tasks["probability_0"] == 0.25).all()
    assert np.array_equal(env.tasks["probability_1"], before["probability_1"])
    assert (env.tasks["probability_2"] != before["probability_2"]).all()


class Fragile(Bandit):
    """An episode ends as soon as the second arm is pulled."""

    def step(self, world, action):
        super().step(world, action)
        world.broken = np.argmax(action, axis=1) == 1

    def terminated(self, world):
        return world.broken


def test_steps_count_over_episodes_that_end_early():
    env = TrialEnv(Fragile(), 2, episodes=3, changes=Change((4, 4), {"probability_0": 0.0}))
    env.reset()
    pulls = np.zeros((2, 2), np.float32)
    for step in range(1, 8):
        pulls[:, 0], pulls[0, 1] = 0.5, step == 2  # the first ends its episode after two steps
        _, _, terminated, _, info = env.step(pulls)
        assert info["changed"].tolist() == [step == 4] * 2
        if terminated.any():
            _, info = env.reset(options={"reset_mask": terminated})
            assert info["episode"].tolist() == [1, 0]
    for _ in range(2):  # its third episode ends: a new trial, which changes in its own fourth step
        pulls[0, 1] = 1
        env.step(pulls)
        _, info = env.reset(options={"reset_mask": np.array([True, False])})
    assert info["new_task"].tolist() == [True, False] and env.tasks["probability_0"][0] > 0
    pulls[0, 1] = 0
    came = [env.step(pulls)[-1]["changed"][0] for _ in range(6)]
    assert np.flatnonzero(came).tolist() == [3]


class Few(Bandit):
    """Success probabilities of which one is kept for evaluation."""

    def __init__(self):
        super().__init__("few")
        self.task_parameters = tuple(
            replace(p, choices=(0.1, 0.5, 0.7, 0.9), held_out=(0.7, 0.9))
            for p in self.task_parameters
        )


@pytest.mark.parametrize(("testing", "expected"), [(False, {0.1, 0.5}), (True, {0.7, 0.9})])
def test_a_redraw_is_of_held_out_tasks_at_test_and_of_the_others_in_training(testing, expected):
    env = TrialEnv(Few(), 200, changes=Change((1, 1)), testing=testing)
    env.reset()
    env.step(np.zeros((200, 2), np.float32))
    assert all(set(values) == expected for values in env.tasks.values())
