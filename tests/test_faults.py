"""What can go wrong while training, and what is left afterwards: real kills, files and limits."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from rich.console import Console

from runtime.errors import InvalidConfig, NotSaved, TrainingDiverged
from training import checkpoint
from training.config import NetworkConfig
from training.presets import rl2_preset
from training.rl2 import RL2Trainer
from training.train import Run, train

TRIAL = 50
SETTINGS = {"trials": 16, "env_steps": 16 * TRIAL * 9, "threads": 1, "checkpoint_every": 2}
"""The first look and eight iterations, of a second in all."""
ARGUMENTS = ["rl2", "bandit", "--ranks", "1", "--memory-size", "8", "--hidden-sizes", "8"]
ARGUMENTS += [word for k, v in SETTINGS.items() for word in (f"--{k.replace('_', '-')}", str(v))]
CONFIG = rl2_preset("bandit").model_copy(
    update=SETTINGS | {"network": NetworkConfig(memory_size=8, hidden_sizes=(8,))}
)


def run_training(folder, iterations=None, kind=RL2Trainer, **options):
    """Train to the end, or for some iterations as if stopped by a signal; what was said."""
    trainer = kind(CONFIG)
    if iterations is not None:
        trainer.ranks = StopsAfter(trainer, iterations)
    console = Console(record=True, file=open(os.devnull, "w"), width=300)  # noqa: SIM115
    train(trainer, folder, console, **options)
    return trainer, " ".join(console.export_text().split())


class StopsAfter:
    """The only rank, whose process is told to stop after some iterations."""

    main, count = True, 1

    def __init__(self, trainer, iterations):
        self.trainer, self.iterations, self.first = trainer, iterations, None

    def any(self, flag):
        if self.first is None:  # once it has resumed
            self.first = self.trainer.iteration
        return flag or self.trainer.iteration >= self.first + self.iterations

    def sum_(self, tensor):
        return tensor

    max_ = sum_


def names(run):
    return [path.name for path in checkpoint.checkpoints(run / "checkpoints")]


def start(*arguments, **options):
    command = [sys.executable, "-m", "training.cli", "train", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_save_killed_at_any_line_leaves_the_newest_checkpoint_whole(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint_kills", str(tmp_path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines, kills = (int(word) for word in result.stdout.split() if word.isdigit())
    assert lines > 40 and kills == 20


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What training comes to if nothing happens."""
    return run_training(tmp_path_factory.mktemp("whole"))[0].tensors()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path, uninterrupted):
    process = start(*ARGUMENTS, "--run", str(tmp_path), "--no-export")
    deadline = time.monotonic() + 60
    while not names(tmp_path):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.communicate()
    with open(tmp_path / "curve.jsonl", "a") as curve:
        curve.write('{"iteration": 3, "env_st')  # as a kill may leave it
    resumed, _ = run_training(tmp_path, resume=True)
    assert same(resumed.tensors(), uninterrupted)
    assert [row["iteration"] for row in Run(tmp_path).curve()] == list(range(1, 9))
    assert not list(tmp_path.rglob(".partial*"))


def test_a_full_disk_is_told_with_what_is_kept(tmp_path):
    run_training(tmp_path, iterations=2, track="none")
    assert names(tmp_path) == ["000002"]
    size = (tmp_path / "checkpoints" / "000002" / checkpoint.TENSORS).stat().st_size

    def little_room():  # writing beyond it fails as on a full disk, with EFBIG for ENOSPC
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

    settings = [*ARGUMENTS, "--run", str(tmp_path), "--track", "none", "--resume"]
    process = start(*settings, preexec_fn=little_room)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "000004 cannot be written: File too large (it takes 0.0" in complaint
    assert f"the last good checkpoint is {tmp_path}/checkpoints/000002." in complaint
    assert f"go on with: metatrain train {' '.join(settings)}\n" in complaint
    assert complaint.count("\n") == 1
    assert os.listdir(tmp_path / "checkpoints") == ["000002"]
    assert checkpoint.load_newest(tmp_path)[1]["iteration"] == 2


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "curve.jsonl").mkdir()
    with pytest.raises(NotSaved, match=r"folder .* cannot be written: Is a directory .*curve"):
        run_training(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotSaved, match=r"file/run cannot be written: Not a directory"):
        run_training(tmp_path / "file" / "run")


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "file", "complaint"),
    [
        (shorten, checkpoint.TENSORS, "bytes of"),
        (flip, checkpoint.TENSORS, "is not what was written"),
        (shorten, checkpoint.FACTS, "cannot be read"),
        (os.unlink, checkpoint.TENSORS, "No such file"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    tmp_path, uninterrupted, spoil, file, complaint
):
    run_training(tmp_path, iterations=6, track="none")
    assert names(tmp_path) == ["000002", "000004", "000006"]
    spoil(tmp_path / "checkpoints" / "000006" / file)
    resumed, said = run_training(tmp_path, resume=True, track="none")
    assert f"Damaged: {tmp_path}/checkpoints/000006 cannot be read" in said and complaint in said
    assert "Going on after iteration 4" in said
    assert same(resumed.tensors(), uninterrupted)
    assert checkpoint.load(tmp_path / "checkpoints" / "000006")[1]["iteration"] == 6


def test_where_no_checkpoint_is_whole_it_says_of_each_why(tmp_path):
    run_training(tmp_path, iterations=4, track="none")
    for folder in checkpoint.checkpoints(tmp_path / "checkpoints"):
        shorten(folder / checkpoint.TENSORS)
    with pytest.raises(InvalidConfig, match=r"no checkpoint that is whole: .*000004.*000002.*"):
        run_training(tmp_path, resume=True)


class SpoiltAfterFour(RL2Trainer):
    """The last update of the fourth iteration makes a weight infinite."""

    def iterate(self):
        row = super().iterate()
        if self.iteration == 4:
            self.policy.log_std.data[0] = torch.inf
        return row


def test_what_is_not_finite_is_never_saved(tmp_path, uninterrupted):
    with pytest.raises(TrainingDiverged) as raised:
        run_training(tmp_path, kind=SpoiltAfterFour, arguments=["rl2", "bandit"])
    said = str(raised.value)
    assert "policy.log_std is not finite after iteration 4" in said
    assert f"{tmp_path}/checkpoints/000002 is from before" in said
    assert "go on from there with: metatrain train rl2 bandit --resume." in said
    assert names(tmp_path) == ["000002"]
    resumed, _ = run_training(tmp_path, resume=True)
    assert same(resumed.tensors(), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_stop_saves_and_says_how_to_go_on(tmp_path, number):
    run = tmp_path / "a run"
    arguments = ["rl2", "bandit", "--env-steps", "5000000", "--ranks", "1", "--run", str(run)]
    process = start(*arguments)
    deadline = time.monotonic() + 60
    while not Run(run).curve():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    output, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    rest = f"--env-steps 5000000 --ranks 1 --run '{run}' --resume"
    assert output.splitlines()[-1].strip() == f"metatrain train rl2 bandit {rest}"
    _, facts, _ = checkpoint.load_newest(run)
    assert facts["iteration"] == Run(run).curve()[-1]["iteration"]


def test_a_job_that_torchrun_restarted_resumes_by_itself(tmp_path, uninterrupted, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    run_training(tmp_path, iterations=3, track="none")  # nothing to resume yet: it starts over
    resumed, said = run_training(tmp_path, track="none")
    assert "Going on after iteration 3" in said
    assert same(resumed.tensors(), uninterrupted)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(InvalidConfig, match="holds a run already"):
        run_training(tmp_path, track="none")


def test_ranks_beside_the_main_one_write_and_say_nothing(tmp_path, uninterrupted):
    trainer = RL2Trainer(CONFIG)
    trainer.ranks = StopsAfter(trainer, 100)
    trainer.ranks.main = False
    console = Console(record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    train(trainer, tmp_path / "run", console)
    assert same(trainer.tensors(), uninterrupted)
    assert not os.listdir(tmp_path) and not console.export_text()


def test_a_damaged_line_ends_the_curve_but_not_the_run(tmp_path):
    rows = [json.dumps({"iteration": i, "env_steps": 100 * i}) + "\n" for i in (1, 2)]
    (tmp_path / "curve.jsonl").write_text(rows[0] + "\0" * 40 + "\n" + rows[1])
    assert [row["iteration"] for row in Run(tmp_path).curve()] == [1]
