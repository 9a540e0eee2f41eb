"""Several ranks: what they learn together is what one learns alone, and a lost one is replaced."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from runtime.errors import InvalidConfig
from training import checkpoint
from training.config import NetworkConfig, PPOConfig, RL2Config
from training.methods import load_trainer
from training.networks import RunningNormaliser
from training.ranks import Ranks, check_parts
from training.rl2 import RL2Trainer
from training.train import Run

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
METATRAIN = [sys.executable, "-m", "training.cli"]
SMALL = [
    "--trials", "8", "--shards", "2", "--threads", "1", "--seed", "3", "--checkpoint-every", "1",
    "--memory-size", "16", "--hidden-sizes", "16", "--minibatches", "3", "--epochs", "2",
]  # fmt: skip


def train(launcher: list[str], run: Path, family: str, steps: int, *more: str) -> None:
    command = [
        *launcher,
        "train",
        "rl2",
        family,
        "--run-folder",
        str(run),
        "--env-steps",
        str(steps),
    ]
    done = subprocess.run([*command, *SMALL, *more], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def two_ranks() -> list[str]:
    return [*TORCHRUN, "--nproc-per-node", "2", "-m", "training.cli"]


def newest(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(checkpoint.latest(run))[0]


# Bandits have no physics and points are smooth: rounding does not grow as it does where feet
# strike the ground. The ants' way of ending episodes early is what bandit trials do not have.
@pytest.mark.parametrize(("family", "steps"), [
    ("bandit", 1500), pytest.param("point-sparse", 3000, marks=pytest.mark.long)
])  # fmt: skip
def test_two_ranks_learn_what_one_rank_learns(tmp_path, family, steps):
    train([*METATRAIN], tmp_path / "one", family, steps, "--ranks", "1")
    train(two_ranks(), tmp_path / "two", family, steps)
    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=name)
    rows = [Run(tmp_path / name).curve() for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) >= 3
    for alone, together in zip(*rows, strict=True):
        for name in (n for n in alone if not n.startswith("time/")):
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name


@pytest.mark.long
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    train([*METATRAIN], tmp_path / "one", "bandit", 2000, "--ranks", "1")
    halves = tmp_path / "halves"
    train(two_ranks(), halves, "bandit", 2000)
    for late in checkpoint.checkpoints(Run(halves).checkpoints)[1:]:
        for file in late.iterdir():
            file.unlink()
        late.rmdir()
    train([*METATRAIN], halves, "bandit", 2000, "--ranks", "1", "--resume")
    one, two = newest(tmp_path / "one"), newest(halves)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=name)


def test_ctrl_c_reaches_all_ranks_and_saves_once(tmp_path):
    run = tmp_path / "run"
    command = [*METATRAIN, "train", "rl2", "bandit", "--run", str(run), "--ranks", "2"]
    process = subprocess.Popen(
        [*command, "--env-steps", "5000000", *SMALL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not checkpoint.checkpoints(Run(run).checkpoints):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.count("Stopped at") == 1 and "--resume" in output
    assert "Traceback" not in errors
    assert load_trainer(run).iteration == Run(run).curve()[-1]["iteration"]


def test_an_error_is_reported_and_not_repeated(tmp_path):
    run = tmp_path / "run"
    command = [*METATRAIN, "train", "rl2", "bandit", "--run", str(run), "--ranks", "2", "--resume"]
    done = subprocess.run([*command, *SMALL], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "holds no checkpoint" in done.stderr and "Traceback" not in done.stderr


def test_shards_that_cannot_be_divided_are_refused(capsys):
    with pytest.raises(InvalidConfig, match="2 shards cannot be divided over 3 ranks"):
        check_parts(RL2Config(family="bandit"), 3)
    with pytest.raises(InvalidConfig, match="7 trials cannot be divided into 2 shards"):
        RL2Config(family="bandit", trials=7)


def test_the_order_of_shards_is_all_that_ranks_divide():
    """Ranks that do not talk see, each, its own half of what one rank sees."""

    def trials(rank: int, count: int):
        config = RL2Config(
            family="point-sparse",
            trials=4,
            network=NetworkConfig(memory_size=8, hidden_sizes=(8,)),
            ppo=PPOConfig(chunk=10),
        )
        return RL2Trainer(config, Ranks(rank, count))._trials_of(5)

    whole, first, second = trials(0, 1), trials(0, 2), trials(1, 2)
    torch.testing.assert_close(whole.obs, torch.cat((first.obs, second.obs), dim=1))
    assert not torch.equal(first.obs, second.obs)


def test_moments_reduced_in_parts_are_those_of_the_whole():
    """As ranks reduce them: sums of deviations from the mean so far."""
    samples = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * 5 + 100
    whole, parts = RunningNormaliser(3), RunningNormaliser(3)
    whole.update(samples)
    for part in samples.split(130):
        parts.update(part)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.std, whole.std)
    torch.testing.assert_close(whole.std, samples.std(0, correction=0))


def test_a_killed_rank_is_replaced_and_the_run_goes_on(tmp_path):
    run = tmp_path / "run"
    command = [*TORCHRUN, "--nproc-per-node", "2", "--max-restarts", "2", "--monitor-interval"]
    command += ["0.1", "-m", "training.cli", "train", "rl2", "bandit", "--run-folder", str(run)]
    process = subprocess.Popen(
        [*command, "--env-steps", "16000", *SMALL], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not checkpoint.checkpoints(Run(run).checkpoints):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    reached = int(checkpoint.latest(run).name)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    trainer = load_trainer(run)
    assert trainer.finished and trainer.iteration > reached
    # No iteration is missing from the curve, and none is there twice.
    curve = [row["iteration"] for row in Run(run).curve()]
    assert curve == list(range(1, trainer.iteration + 1))
