"""Export: what is served computes what was trained, or nothing is written at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load

import sim
from runtime.errors import ParityError
from runtime.policy import largest_difference, replay_golden
from runtime.spec import GOLDEN, MANIFEST
from runtime.store import Store
from training import export
from training.cli import main
from training.config import NetworkConfig, RL2Config
from training.parity import PARITY_ATOL, check_parity
from training.presets import rl2_preset
from training.provenance import record_origin
from training.recurrent_export import RecurrentStep
from training.rl2 import RL2Trainer

FAMILIES = [("halfcheetah-vel", "gru"), ("halfcheetah-dir", "lstm"), ("bandit", "gru")]


def trained(family: str, cell: str, tmp_path) -> tuple[RL2Trainer, object]:
    """A trainer after one iteration, so that nothing is at its initial value, and its folder."""
    small = {
        "trials": 4,
        "threads": 1,
        "env_steps": 1000,
        "network": NetworkConfig(cell=cell, memory_size=16, hidden_sizes=(16,)),
    }
    config: RL2Config = rl2_preset(family).model_copy(update=small)
    trainer = RL2Trainer(config)
    trainer.iterate()
    record_origin(tmp_path / "run", ["rl2", family, "--run-folder", "a/b", "--run=c"])
    return trainer, tmp_path / "run"


@pytest.mark.parametrize(("family", "cell"), FAMILIES)
def test_an_export_serves_what_was_trained(tmp_path, family, cell):
    trainer, run = trained(family, cell, tmp_path)
    folder = export.export_run(trainer, run, "mine", tmp_path / "models", tasks=4)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "adaptation.png", "golden.safetensors", "manifest.json", "policy.onnx",
    ]  # fmt: skip
    policy = Store(tmp_path / "models").load("mine")
    assert [c.name for c in policy.manifest.carry] == (["h"] if cell == "gru" else ["h", "c"])
    step = RecurrentStep(trainer.policy, sim.family(family))
    assert check_parity(step, policy, sim.family(family)) <= PARITY_ATOL
    assert replay_golden(policy, (folder / GOLDEN).read_bytes()).difference <= 1e-6
    facts = json.loads((folder / MANIFEST).read_text())
    root = str(Path(__file__).parents[1]).encode()
    assert not any(root in path.read_bytes() for path in folder.iterdir())
    assert facts["provenance"]["command"] == f"metatrain train rl2 {family}"
    assert len(facts["evaluation"]["episodes"]) == (1 if family == "bandit" else 4)
    again = export.export_run(trainer, run, "mine", tmp_path / "models", tasks=4)
    assert again.name == "2"


def test_the_golden_trace_has_an_episode_boundary_and_a_moving_memory(tmp_path):
    trainer, run = trained("halfcheetah-vel", "gru", tmp_path)
    folder = export.export_run(trainer, run, "mine", tmp_path / "models", tasks=4)
    trace = load((folder / GOLDEN).read_bytes())
    assert np.flatnonzero(trace["input.prev_done"]).tolist() == [200]
    assert not trace["input.prev_action"][0].any()
    np.testing.assert_array_equal(trace["input.prev_action"][1:], trace["output.action"][:-1])
    assert np.ptp(trace["output.next.h"], axis=0).min() > 0


def test_the_belief_is_in_the_units_of_the_task(tmp_path):
    trainer, _ = trained("halfcheetah-vel", "gru", tmp_path)
    step = RecurrentStep(trainer.policy, sim.family("halfcheetah-vel"))
    inputs = [torch.zeros(2, n) for n in (17, 6, 1, 1, 16)]
    with torch.no_grad():
        *_, mean, variance = step(*inputs)
        features, _, _ = trainer.policy.step(*inputs[:4], {"h": inputs[4]})
        scaled, log_variance = trainer.policy.belief(features)
    torch.testing.assert_close(mean, 1.5 + 1.5 * scaled)
    torch.testing.assert_close(variance, log_variance.exp() * 1.5**2)


@pytest.mark.parametrize("existing", [False, True])
def test_an_export_that_fails_parity_leaves_nothing_behind(tmp_path, monkeypatch, existing):
    trainer, run = trained("bandit", "gru", tmp_path)
    models = tmp_path / "models"
    if existing:
        export.export_run(trainer, run, "mine", models, tasks=4)
    before = sorted(models.rglob("*"))
    good = export.to_onnx

    def perturbed(step):
        step.policy.action_head[0].weight.data += 0.01  # the graph is of other weights ...
        model = good(step)
        step.policy.action_head[0].weight.data -= 0.01  # ... than the network it is held against
        return model

    monkeypatch.setattr(export, "to_onnx", perturbed)
    with pytest.raises(ParityError, match="torch and onnxruntime differ in 'action'"):
        export.export_run(trainer, run, "mine", models, tasks=4)
    assert sorted(models.rglob("*")) == before


def test_an_action_that_is_always_at_its_bound_cannot_be_compared(tmp_path):
    trainer, run = trained("bandit", "gru", tmp_path)
    trainer.policy.action_head[-1].bias.data[1] = 100.0
    with pytest.raises(ParityError, match=r"\['arm_1'\] were at their bounds in every step"):
        export.export_run(trainer, run, "mine", tmp_path / "models", tasks=4)
    assert not (tmp_path / "models").exists()


def test_a_bad_name_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    trainer, run = trained("bandit", "gru", tmp_path)
    from training import checkpoint
    from training.train import Run

    checkpoint.save(Run(run).checkpoints, 1, trainer.tensors(), trainer.facts())
    into = ["--into", str(tmp_path / "models")]
    assert main(["export", str(run), "--name", "No Such/Name", *into]) == 2
    assert "is not a policy" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [([0.5, 0.0], [0.25, 0.0], 0.25), ([-300.0], [-200.0], 0.5), ([], [], 0.0)],
)
def test_differences_of_large_numbers_are_of_their_size(found, expected, difference):
    assert largest_difference(np.array(found), np.array(expected)) == difference


def test_a_number_that_is_not_one_differs_beyond_all():
    assert not largest_difference(np.array([np.nan]), np.zeros(1)) <= 1e30
