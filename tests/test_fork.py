"""`metatrain train --from`: another run's checkpoint, gone on from with other settings."""

import json

import pytest
from rich.console import Console

from runtime.errors import InvalidConfig
from tests.test_pearl import same, small
from training.card import training_commands
from training.cli import main
from training.pearl import PEARLTrainer
from training.provenance import provenance
from training.train import Run, train

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run that was trained to its end."""
    folder = tmp_path_factory.mktemp("fork") / "source"
    command = ["pearl", "point-nav", "--run", str(folder)]
    train(PEARLTrainer(small(env_steps=3000)), folder, QUIET, arguments=command, track="none")
    return folder


def forked(config, source, folder) -> PEARLTrainer:
    trainer = PEARLTrainer(config)
    command = ["pearl", "point-nav", "--from", str(source), "--env-steps", "6000"]
    train(trainer, folder, QUIET, arguments=command, track="none", source=source)
    return trainer


def test_a_fork_with_the_same_settings_is_the_longer_run_to_the_bit(source, tmp_path):
    whole = PEARLTrainer(small(env_steps=6000))
    train(whole, tmp_path / "whole", QUIET, track="none")
    fork = forked(small(env_steps=6000), source, tmp_path / "fork")
    assert fork.env_steps == whole.env_steps and same(fork.tensors(), whole.tensors())
    steps = [[row["env_steps"] for row in Run(tmp_path / n).curve()] for n in ("whole", "fork")]
    assert steps[0] == steps[1]
    before = Run(source).curve()
    assert before[-1]["env_steps"] < 6000  # and it is as it was


def test_where_it_came_from_is_on_the_record_and_on_the_card(source, tmp_path):
    forked(small(env_steps=6000), source, tmp_path / "fork")
    found = provenance(tmp_path / "fork", 1.0)
    steps = Run(source).curve()[-1]["env_steps"]
    assert found["command"] == "metatrain train pearl point-nav --env-steps 6000"
    assert found["from"]["command"] == "metatrain train pearl point-nav"
    assert found["from"]["env_steps"] == steps
    assert found["from"]["commit"] == json.loads((source / "origin.json").read_text())["commit"]
    first, between, second = training_commands(found).strip("\n").split("\n\n")
    assert first == "    metatrain train pearl point-nav"
    assert f"checkpoint at {steps:,} steps" in between
    assert second.strip() == found["command"]


def test_a_fork_goes_on_with_its_own_settings_when_it_is_resumed(source, tmp_path, monkeypatch):
    config = small(env_steps=6000, gradient_steps=2)
    whole = forked(config, source, tmp_path / "whole")
    stopped = PEARLTrainer(config)
    monkeypatch.setattr(PEARLTrainer, "finished", property(lambda self: self.env_steps > 4000))
    train(stopped, tmp_path / "part", QUIET, track="none", source=source)
    monkeypatch.undo()
    assert stopped.env_steps < whole.env_steps
    resumed = PEARLTrainer(config)
    train(resumed, tmp_path / "part", QUIET, resume=True, track="none", source=source)
    assert same(resumed.tensors(), whole.tensors())


@pytest.mark.parametrize(
    ("changes", "named"), [({"seed": 5}, "seed"), ({"tasks": 5}, "tasks")], ids=["seed", "tasks"]
)
def test_what_a_checkpoint_is_made_by_cannot_change(source, tmp_path, changes, named):
    with pytest.raises(InvalidConfig, match=rf"other settings of \['{named}'\]"):
        forked(small(**changes), source, tmp_path / "fork")
    assert not (tmp_path / "fork").exists()


def test_a_run_of_another_method_or_none_is_refused(source, tmp_path, capsys):
    command = [
        "train",
        "rl2",
        "point-nav",
        "--ranks",
        "1",
        "--run",
        str(tmp_path / "fork"),
        "--from",
    ]
    assert main([*command, str(source)]) == 2
    assert "a run of 'pearl', not of 'rl2'" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
