"""Trackers: what W&B and trackio are told, held by a package of the same interface."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import InvalidConfig, UnknownName
from training.cli import main
from training.tracking import TRACKERS, check_tracker, open_tracker

STAND_IN = '''
"""Writes down what it is told."""
import json

def _note(*what):
    with open("calls.jsonl", "a") as calls:
        calls.write(json.dumps(what) + "\\n")

class Run:
    def log(self, row):
        _note("log", row)
    def finish(self):
        _note("finish")

def init(**arguments):
    _note("init", arguments)
    return Run()
'''

PROGRAM = """
import sys
from pathlib import Path
from training.tracking import open_tracker
for step in (100, 200):  # the second one is resumed
    tracker = open_tracker(sys.argv[1], Path("runs/mine"), {"seed": 3}, step)
    tracker.log({"return/episode_1": -4.5}, step)
    tracker.close()
"""


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_a_service_is_told_of_the_run_and_a_resumed_one_goes_on_there(tmp_path, service):
    (tmp_path / f"{service}.py").write_text(STAND_IN)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, service],
        cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{root}"}, check=True, timeout=60,
    )  # fmt: skip
    calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [call[0] for call in calls] == ["init", "log", "finish"] * 2
    first, second = calls[0][1], calls[3][1]
    assert first == second  # under one identity
    assert first["project"] == "metatrain" and first["config"] == {"seed": 3}
    assert first["resume"] == "allow"
    identity = first["id" if service == "wandb" else "name"]
    assert identity.startswith("mine-")
    assert calls[4][1] == {"return/episode_1": -4.5, "env_steps": 200}


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, capsys, tmp_path, service):
    monkeypatch.setitem(sys.modules, service, None)  # as if it were not installed
    with pytest.raises(InvalidConfig, match=rf"pip install 'adaptd\[{service}\]'"):
        check_tracker(service)
    run = tmp_path / "run"
    assert main(["train", "rl2", "bandit", "--track", service, "--run", str(run)]) == 2
    assert "pip install" in capsys.readouterr().err and not run.exists()


def test_an_unknown_tracker_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match=r"tracker 'tensorbord'. Did you mean 'tensorboard'\?"):
        check_tracker("tensorbord")


def test_the_others_need_nothing(tmp_path):
    for name in set(TRACKERS) - {"wandb", "trackio"}:
        tracker = open_tracker(name, tmp_path / name, {}, 0)
        tracker.log({"loss/policy": 1.0}, 10)
        tracker.close()
    assert not (tmp_path / "none").exists()
    assert [path.name[:10] for path in (tmp_path / "tensorboard").iterdir()] == ["events.out"]
