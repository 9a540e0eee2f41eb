"""Training as a whole: it learns to adapt, resumes exactly, and stops when numbers break."""

import json
import re
from importlib.metadata import version

import pytest
import torch
from rich.console import Console

from runtime.errors import InvalidConfig, TrainingDiverged
from training import checkpoint
from training.arguments import check_settings
from training.cli import main
from training.config import NetworkConfig, RL2Config
from training.evaluate import evaluate
from training.methods import load_trainer
from training.presets import rl2_preset
from training.rl2 import RL2Trainer
from training.train import Run, train


def run_training(config, folder, **options):
    trainer = RL2Trainer(config)
    train(trainer, folder, QUIET, **options)
    return trainer


QUIET = Console(quiet=True)


def small(**changes):
    """A configuration that takes a second."""
    base = rl2_preset("bandit").model_copy(
        update={
            "trials": 16,
            "env_steps": 16 * 50 * 7,  # the first look and six iterations
            "threads": 1,
            "checkpoint_every": 2,
            "network": NetworkConfig(memory_size=8, hidden_sizes=(8,)),
        }
    )
    return base.model_copy(update=changes)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_bandit_is_learned_and_memory_is_what_does_it(cell):
    network = NetworkConfig(cell=cell, memory_size=32, hidden_sizes=(32,))
    config = rl2_preset("bandit").model_copy(
        update={"env_steps": 600_000, "threads": 1, "network": network, "seed": 1}
    )
    trainer = RL2Trainer(config)
    while not trainer.finished:
        trainer.iterate()
    result = evaluate(trainer.policy, "bandit", tasks=400, episodes=1, threads=1)
    adapting, cleared, random = (r.values.mean() for _, r in result.rows())
    assert random == pytest.approx(25, abs=1.5)  # 50 pulls of arms that pay half the time
    # The best that is possible is about 32. Seeds and cells that were tried got 27.7 to 31.0,
    # the least of them with the GRU and seed 0; this one is in the middle.
    assert adapting > random + 2.5
    assert adapting > cleared + 2


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    ("family", "cell"), [("bandit", "gru"), ("bandit", "lstm"), ("halfcheetah-vel", "gru")]
)
def test_resumed_training_is_the_uninterrupted_one_to_the_bit(tmp_path, family, cell):
    network = NetworkConfig(cell=cell, memory_size=8, hidden_sizes=(8,))
    config = small(family=family, network=network, change_probability=0.5)
    if family != "bandit":
        config = config.model_copy(update={"trials": 4, "env_steps": 4 * 400 * 5})
    whole = run_training(config, tmp_path / "whole")
    run = tmp_path / "halves"
    first = RL2Trainer(config)
    for _ in range(3):
        first.iterate()
    checkpoint.save(Run(run).checkpoints, 3, first.tensors(), first.facts())
    halves = run_training(config, run, resume=True)
    assert halves.env_steps == whole.env_steps
    assert same(halves.tensors(), whole.tensors())
    assert halves.facts() == whole.facts()


def test_the_run_folder_tells_the_whole_story(tmp_path):
    run_training(small(), tmp_path / "run")
    run = Run(tmp_path / "run")
    assert [row["iteration"] for row in run.curve()] == [1, 2, 3, 4, 5, 6]
    assert json.loads((run.folder / "config.json").read_text())["family"] == "bandit"
    assert [p.name for p in checkpoint.checkpoints(run.checkpoints)] == [
        "000002",
        "000004",
        "000006",
    ]
    assert any(p.name.startswith("events.out") for p in run.folder.iterdir())
    origin = json.loads((run.folder / "origin.json").read_text())
    assert origin["libraries"]["torch"] == version("torch") and origin["commit"]
    assert load_trainer(run.folder).finished


def test_a_run_folder_is_not_overwritten_nor_resumed_with_other_settings(tmp_path):
    run_training(small(), tmp_path)
    with pytest.raises(InvalidConfig, match="holds a run already"):
        run_training(small(), tmp_path)
    origin = (tmp_path / "origin.json").read_text()
    with pytest.raises(InvalidConfig, match="holds a run already"):
        run_training(small(), tmp_path, arguments=["something", "else"])
    assert (tmp_path / "origin.json").read_text() == origin
    with pytest.raises(InvalidConfig, match=r"\['seed'\] differ"):
        run_training(small(seed=9), tmp_path, resume=True)
    with pytest.raises(InvalidConfig, match="holds no checkpoint"):
        run_training(small(), tmp_path / "nothing", resume=True)


def test_a_nan_stops_training_and_is_named():
    trainer = RL2Trainer(small())
    trainer.iterate()
    trials = trainer._trials(1)
    trainer.policy.action_head[0].weight.data.fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match=r"policy loss is not finite at iteration 1"):
        trainer._learn(trials)
    with pytest.raises(TrainingDiverged, match=r"policy's action_head.0.weight is not finite"):
        trainer.iterate()
    trainer = RL2Trainer(small())
    trainer.shards[0].env.family.reward = lambda world, action: world.last_reward * float("nan")
    with pytest.raises(TrainingDiverged, match="the simulator's reward is not finite"):
        trainer.iterate()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", "rl3", "bandit"], "there is no method 'rl3'. Did you mean 'rl2'?"),
        (["train", "rl2", "bandid"], "there is no task family 'bandid'. Did you mean 'bandit'?"),
        (["trian", "rl2"], "there is no command 'trian'. Did you mean 'train'?"),
        (["evaluate", "/nowhere"], "/nowhere holds no checkpoint"),
        (["export", "/nowhere", "--name", "x"], "/nowhere holds no checkpoint"),
        (["train", "rl2", "bandit", "--trials", "0"], "greater than 0"),
        (
            ["train", "rl2", "bandit", "--family", "halfcheetah-vel"],
            "contradicts the family bandit",
        ),
        (["train", "rl2"], "name a method and a task family"),
    ],
)
def test_bad_commands_get_one_sentence(capsys, arguments, complaint):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("--learning-rat=1e-3", "--learning-rate"),
        ("--ppo.epochz", "--epochs"),
        ("--ppo.epochs", "--epochs"),
        ("--no-privileged_critics", "--privileged-critic"),
        ("--presets", "--preset"),
        ("--told-share", None),  # a setting of another method
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest(capsys, setting, nearest):
    assert main(["train", "rl2", "bandit", setting, "1"]) == 2
    said = capsys.readouterr().err
    name = setting.partition("=")[0]
    assert said.startswith(f"metatrain: there is no setting '{name}'.") and said.count("\n") == 1
    assert nearest is None or f"Did you mean '{nearest}'?" in said
    assert "--env-steps" in said  # all are listed


@pytest.mark.parametrize("arguments", [["more"], ["--trials"], ["--trials", "many"], ["-x"]])
def test_what_makes_no_sense_is_refused_without_a_traceback(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["train", "rl2", "bandit", *arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    said = captured.err + captured.out
    assert arguments[0] in said and "Traceback" not in said


def test_every_setting_in_the_help_is_known_to_the_check(capsys):
    with pytest.raises(SystemExit):
        main(["train", "rl2", "bandit", "--help"])
    listed = set(re.findall(r"(?<=[ │,])--[a-z][a-z-]+", capsys.readouterr().out))
    kept = [s for s in listed if not s.startswith("--no-")]
    assert {"--epochs", "--track", "--export"} <= set(kept)

    def command(preset, run, resume, ranks, track, export): ...

    for name in listed:
        check_settings([name], RL2Config, command, ("run-folder", "from"))


def test_list_names_methods_and_families(capsys):
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    assert "preset" in output and "paper" in output
    assert "rl2" in output and "halfcheetah-vel-0to2" in output
    assert "...+payload" in output and "0 to half the" in output


@pytest.mark.parametrize("family", ["wheeled", "point-sparse", "block-push", "ant-goal-ring"])
def test_a_sparse_reward_is_seen(family):
    """Trained on a dense reward, the memory is fed the robot's; that must not be clipped away."""
    trainer = RL2Trainer(rl2_preset(family).model_copy(update={"trials": 8, "threads": 1}))
    trials = trainer._trials(1)
    assert not torch.equal(trials.reward, trials.seen_reward)
    assert torch.equal(trials.prev_reward[1:10, :, 0], trials.seen_reward[:9])
    trials.seen_reward[3, :2] = torch.tensor([1.2, 2.0])  # two of them find something
    trainer._update_input_normalisers(trials)
    inputs = trainer.policy.reward_normaliser(torch.tensor([[0.0], [1.2], [2.0]])).squeeze(1)
    assert (inputs.diff() > 0.1).all() and inputs.abs().max() <= 10.0
