"""Changes of task as people ask for them: of a running robot, in evaluation and in training."""

import re

import numpy as np
import pytest

from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig, InvalidTask
from sim.change import NEVER, Change
from sim.change_windows import around, windows
from sim.cli import main as simrobot
from sim.families.bandit import Bandit
from sim.robot import SimulatedRobot, drive, parse_task
from tests.conftest import SHIPPED
from tests.test_commands import run
from training.cli import main as metatrain
from training.config import NetworkConfig, RL2Config
from training.evaluate import evaluate
from training.presets import rl2_preset
from training.rl2 import RL2Trainer
from training.rollout import collect

VEL = "halfcheetah-vel-rl2-gru"


@pytest.fixture(scope="module")
def shipped():
    """A daemon that serves the shipped bundles."""
    with DaemonProcess(SHIPPED) as process:
        yield process


def test_a_served_policy_adapts_to_changes_it_is_not_told_of(shipped):
    changes = (
        Change((300, 300), {"target_velocity": 0.8}),
        Change((500, 500), {"target_velocity": 1.6}),
    )
    robot = SimulatedRobot("halfcheetah-vel", 0, {"target_velocity": 2.0}, changes)
    with shipped.client() as client:
        moments = list(drive(robot, client.open(VEL), 600))
    assert [k for k, m in enumerate(moments) if m.changed] == [300, 500]
    target = np.array([m.task["target_velocity"] for m in moments])
    assert (target == np.repeat([2.0, 0.8, 1.6], [300, 200, 100])).all()
    error = np.abs(np.array([m.measure for m in moments]) - target)
    for at, end in ((300, 400), (500, 600)):
        assert error[at - 60 : at].mean() < 0.25
        assert error[at : at + 5].mean() > 0.5  # it cannot know
        assert error[at + 40 : end].mean() < 0.25


def test_a_robot_with_changes_runs_through_a_daemon(shipped):
    status, output, complaint = run(
        "sim", "run", "halfcheetah-vel", "--policy", VEL, "--task", "target_velocity=2",
        "--change", "300:target_velocity=0.8", "--change", "420-440:target_velocity",
        "--endpoint", shipped.endpoint,
    )  # fmt: skip
    assert status == 0, complaint
    assert re.search(r"│ 1 +│ target_velocity 2.00 +│", output)
    assert re.search(r"│ 2 +│ target_velocity 2.00 -> 0.80 +│", output)
    assert re.search(r"│ 3 +│ target_velocity 0.80 -> \d.\d\d +│", output)
    number = r"\s+(-?\d+\.\d\d)\s+│"
    rows = re.findall(rf"│ (\d+)\s+│ target_velocity (\S+).*?│{number}{number}{number}", output)
    (at, old, before, first, later), (second_at, *_) = rows
    assert (at, old) == ("300", "2.00") and 420 <= int(second_at) <= 440
    assert float(before) > -0.4 and float(later) > -0.4  # reward is -|v - v*| - 0.05 |a|^2
    assert float(first) < float(before) - 0.3


@pytest.mark.parametrize(
    ("family", "change", "complaint"),
    [
        ("halfcheetah-vel", "soon", "'soon' is no change: expected STEP[-STEP]"),
        ("halfcheetah-vel", "9:payload=0", "'payload' to change; it has ['target_velocity']"),
        ("halfcheetah-vel", "400", "a change before step 400 may never happen, the last step"),
        ("halfcheetah-dir", "9:direction=2", "'direction' must be one of [-1.0, 1.0]"),
        ("halfcheetah-vle", "9", "Did you mean 'halfcheetah-vel'"),
    ],
)
def test_bad_changes_get_one_sentence(capsys, family, change, complaint):
    arguments = ["run", family, "--episodes", "2", "--change", "5", "--change", change]
    assert simrobot([*arguments, "--endpoint", "ipc:///nowhere/adaptd"]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1
    if family == "halfcheetah-vle":
        return
    assert metatrain(["train", "rl2", family, *arguments[4:], "--change-probability", "0.5"]) == 2
    assert complaint in capsys.readouterr().err


def test_a_task_with_a_parameter_twice_is_refused():
    with pytest.raises(InvalidTask, match="gives 'probability_0' twice"):
        parse_task("probability_0=0.8,probability_1=1,probability_0=0.3", "bandit")
    assert parse_task("probability_1=1, probability_0=0.3", "bandit")["probability_0"] == 0.3


def test_windows_end_at_the_neighbouring_changes():
    assert windows(100, 0, 400) == (slice(40, 100), slice(100, 120), slice(160, 400))
    assert windows(100, 90, 110) == (slice(90, 100), slice(100, 110), slice(110, 110))
    values = np.arange(200.0)
    first, second, never, late = around(values, [50, 100, NEVER, 200])
    assert first[:2].tolist() == [24.5, 59.5] and np.isnan(first[2])  # changed again too soon
    assert second.tolist() == [74.5, 109.5, 179.5]
    assert np.isnan(never).all() and np.isnan(late).all()


def test_a_policy_is_evaluated_around_changes_and_as_before_until_the_first():
    policy = RL2Trainer(rl2_preset("halfcheetah-vel").model_copy(update={"threads": 1})).policy
    changes = (Change((250, 250), {"target_velocity": 50.0}), Change((380, 390)))
    plain = evaluate(policy, "halfcheetah-vel", tasks=4, episodes=2, threads=1)
    changed = evaluate(policy, "halfcheetah-vel", tasks=4, episodes=2, threads=1, changes=changes)
    for (name, one), (_, other) in zip(plain.rows(), changed.rows(), strict=True):
        assert not one.around_changes
        assert np.array_equal(one.values[0], other.values[0]), name
        assert (one.values[1] > other.values[1] + 100 * 40).all()
        first, second = other.around_changes
        assert first.change is changes[0] and first.rewards.shape == (3, 4)
        assert (first.rewards[0] > -10).all()
        assert (first.rewards[1:] < -40).all() and (second.rewards[0] < -40).all()
        assert (second.rewards[1] > -10).all() and np.isnan(second.rewards[2]).all()
        assert np.isnan(second.summary()[2]["mean"]) and first.summary()[1]["ci95"] > 0


def test_the_evaluation_command_shows_the_reward_around_each_change(tmp_path, capsys):
    folder = str(tmp_path / "run")
    small = ["--env-steps", "1600", "--trials", "16", "--threads", "1", "--memory-size", "8"]
    changing = ["--change", "20:probability_0=0", "--change-probability", "1"]
    assert metatrain(["train", "rl2", "bandit", "--run", folder, *small, *changing]) == 0
    capsys.readouterr()
    nothing_pays = "25:probability_0=0,probability_1=0"
    arguments = ["evaluate", folder, "--episodes", "1", "--change", nothing_pays]
    assert metatrain([*arguments, "--change", "40"]) == 0
    output = capsys.readouterr().out
    first, second = output[output.index("Change 25:") :].split("Change 40")
    rows = re.findall(r"^ +(\S.*?)  +(\d\.\d\d) ± \S+ +(\d\.\d\d) ± \S+ +-", first, re.M)
    assert [name for name, *_ in rows] == ["adapting", "memory cleared"]
    assert all(float(before) > 0.2 and float(after) == 0 for _, before, after in rows)
    assert len(re.findall(r" 0\.00 ± 0\.00 +0\.\d\d ±", second)) == 2
    assert metatrain([*arguments, "--change", "50"]) == 2
    assert "the last step is 49" in capsys.readouterr().err


def test_training_sees_the_changes_it_was_configured_with():
    config = RL2Config(
        family="bandit", trials=200, change_probability=0.5, threads=1,
        change=("10:probability_0=0", "20-30:probability_1"),
        network=NetworkConfig(memory_size=8, hidden_sizes=(8,)),
    )  # fmt: skip
    assert RL2Config.model_validate(config.model_dump(mode="json")) == config
    trainer = RL2Trainer(config)
    trials = collect(trainer.shards, trainer.policy, 50)
    moved = (trials.task[1:] != trials.task[:-1]).numpy()  # (49, trials, 2)
    for parameter, first, last in ((0, 10, 10), (1, 20, 30)):
        steps, changed = np.nonzero(moved[:, :, parameter])
        assert first <= steps.min() + 1 and steps.max() + 1 <= last
        assert 70 <= len(changed) == len(set(changed)) <= 130
    assert (trials.task[10:, moved[9, :, 0], 0] == -1).all()


class Brief(Bandit):
    """Of a trial's two episodes of 50 steps, each ends after 10."""

    episodes = 2

    def world(self, num_envs, num_threads):
        world = super().world(num_envs, num_threads)
        world.age = np.zeros(num_envs, int)
        return world

    def reset(self, world, ids, rng):
        super().reset(world, ids, rng)
        world.age[ids] = 0

    def step(self, world, action):
        super().step(world, action)
        world.age += 1

    def terminated(self, world):
        return world.age >= 10


def test_the_training_log_says_how_many_trials_changed():
    common = {
        "trials": 200, "threads": 1, "change_probability": 1.0,
        "network": NetworkConfig(memory_size=8, hidden_sizes=(8,)),
    }  # fmt: skip
    brief = f"{__name__}:Brief"  # steps 0 to 19 of 100 are made
    rows = {
        (family, change): RL2Trainer(RL2Config(family=family, change=change, **common)).iterate()
        for family, change in (("bandit", ()), (brief, ()), (brief, ("15",)), (brief, ("20",)))
    }
    shares = [row["changed_share"] for row in rows.values()]
    assert shares[0] == 1 and shares[1] == pytest.approx(19 / 99, abs=0.11)
    assert shares[2:] == [1, 0]
    unchanging = RL2Config(family=brief, **{**common, "change_probability": 0.0})
    assert "changed_share" not in RL2Trainer(unchanging).iterate()


def test_a_configuration_whose_changes_cannot_happen_is_refused():
    with pytest.raises(InvalidConfig, match="change_probability, the share of trials"):
        RL2Config(family="bandit", change=("10",))
    with pytest.raises(InvalidTask, match="no task parameter 'payload'"):
        RL2Config(family="bandit", change=("10:payload",), change_probability=0.5)
    with pytest.raises(InvalidTask, match="the last step is 99"):
        RL2Config(family="bandit", episodes=2, change=("100",), change_probability=0.5)
    assert RL2Config(family="bandit").changes() == ()
    assert RL2Config(family="bandit", change_probability=0.2).changes() == (Change(share=0.2),)
