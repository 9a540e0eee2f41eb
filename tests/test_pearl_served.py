"""A bundle of PEARL: written from a run, and acting as the training code does."""

import numpy as np
import pytest
import torch

import sim
from runtime.errors import InvalidConfig
from runtime.policy import replay_golden
from runtime.spec import GOLDEN
from runtime.store import Store
from tests.test_pearl import small
from training import checkpoint
from training.cli import main
from training.export import export_run, exported_step
from training.parity import PARITY_ATOL, check_parity
from training.pearl import PEARLTrainer
from training.pearl_acting import streaming
from training.presets import rl2_preset
from training.provenance import record_origin
from training.rl2 import RL2Trainer
from training.train import Run
from training.trials import MetaInput

FAMILY = "point-nav"


@pytest.fixture(scope="module")
def trainer() -> PEARLTrainer:
    """After one iteration, so that nothing is at its initial value."""
    found = PEARLTrainer(small(task_coef=1.0, privileged_critic=True))
    found.iterate()
    return found


@pytest.fixture(scope="module")
def run(trainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pearl"
    record_origin(folder, ["pearl", FAMILY])
    checkpoint.save(Run(folder).checkpoints, 1, trainer.tensors(), trainer.facts())
    return folder


@pytest.fixture(scope="module")
def models(trainer, run, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    export_run(trainer, run, "mine", models, tasks=4)
    return models


def test_an_export_serves_what_was_trained(trainer, models):
    folder = models / "mine" / "1"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "adaptation.png", "golden.safetensors", "manifest.json", "policy.onnx",
    ]  # fmt: skip
    policy = Store(models).load("mine")
    assert check_parity(exported_step(trainer), policy, sim.family(FAMILY)) <= PARITY_ATOL
    assert replay_golden(policy, (folder / GOLDEN).read_bytes()).difference <= 1e-6
    assert policy.batch_invariant
    manifest = policy.manifest
    assert manifest.algorithm == "pearl" and manifest.context_window == 8
    assert len(manifest.evaluation.episodes) == len(manifest.evaluation.sampled) == 4
    card = (folder / "README.md").read_text()
    assert "PEARL with a belief over 2 numbers z" in card
    assert "`window`, how many of them count (1 to 8)" in " ".join(card.split())
    assert "| sampling per episode |" in card


def test_the_bundle_acts_as_the_training_code_does(trainer, models):
    """Over a trial with episode boundaries, each on its own actions."""
    policy, robots, family = Store(models).load("mine"), 3, sim.family(FAMILY)
    acting = streaming(trainer.policy, robots)
    env = sim.make(FAMILY, robots, seed=0, episodes=3)
    meta, state, carry = MetaInput(robots, 2), acting.start, policy.initial_carry(robots)
    obs, _ = env.reset(options={"tasks": family.held_out(robots)})
    noise = np.zeros((robots, 2), np.float32)
    for _ in range(3 * family.horizon):
        names = ("prev_action", "prev_reward", "prev_done")
        before = dict(zip(names, (x.numpy() for x in meta.inputs()), strict=True))
        step = policy.step({"obs": obs, **before, "noise": noise}, carry)
        with torch.no_grad():
            action, state = acting.act(torch.from_numpy(obs), meta, state)
        np.testing.assert_allclose(step.action, action, atol=1e-5)
        carry = step.carry
        obs, reward, terminated, truncated, _ = env.step(step.action)
        done = terminated | truncated
        meta.advance(env.applied_action, reward, done)
        if done.any():
            obs, _ = env.reset(options={"reset_mask": done})


def test_more_context_than_it_was_trained_with_is_refused(run, tmp_path, capsys):
    into = ["--name", "mine", "--into", str(tmp_path / "models"), "--tasks", "2"]
    assert main(["export", str(run), *into, "--context", "9"]) == 2
    assert "a context of 9 transitions: the policy was trained with 8" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_shorter_context_is_recorded(run, tmp_path):
    into = ["--name", "mine", "--into", str(tmp_path), "--tasks", "2", "--context", "5"]
    assert main(["export", str(run), *into]) == 0
    manifest = Store(tmp_path).load("mine").manifest
    assert manifest.context_window == 5 and manifest.options[0].high == 5


def test_a_hidden_state_has_no_context_to_choose():
    config = rl2_preset("bandit").model_copy(update={"trials": 2, "threads": 1})
    with pytest.raises(InvalidConfig, match="the memory of 'rl2' is a hidden state"):
        exported_step(RL2Trainer(config), 5)
