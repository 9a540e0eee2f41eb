"""The presets, and what the published one needs: embeddings and a clipped Huber value loss."""

import numpy as np
import pytest
import torch

import sim
from runtime.errors import UnknownName
from runtime.policy import replay_golden
from runtime.store import Store
from training.cli import main
from training.config import NetworkConfig
from training.methods import METHODS, PRESETS, method
from training.networks import RecurrentPolicy
from training.ppo import clipped_huber
from training.presets import rl2_paper, rl2_preset


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_every_preset_for_every_family(name, preset):
    for family in sim.names():
        assert method(name).preset(family, preset).family == family


def test_the_published_settings_of_rl2():
    vel = rl2_paper("halfcheetah-vel")
    assert (vel.env_steps, vel.trials, vel.ppo.chunk) == (100_000_000, 16, 400)
    assert (vel.ppo.epochs, vel.ppo.minibatches, vel.ppo.clip) == (2, 8, 0.1)
    assert vel.network.embeddings == (16, 32, 16) and vel.ppo.value_loss == "clipped_huber"
    assert not vel.privileged_critic and not vel.belief.coef and not vel.changes()
    direction = rl2_paper("halfcheetah-dir")
    assert (direction.trials, direction.ppo.epochs, direction.ppo.minibatches) == (32, 16, 4)


def test_fast_is_the_default():
    assert method("rl2").preset("bandit") == rl2_preset("bandit")


def test_an_unknown_preset_is_refused_with_the_nearest(capsys):
    with pytest.raises(UnknownName, match=r"no preset 'papr'. Did you mean 'paper'\?"):
        method("multitask").preset("bandit", "papr")
    assert main(["train", "rl2", "bandit", "--preset=papr"]) == 2
    assert "there is no preset 'papr'. Did you mean 'paper'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "old", "target", "expected"),
    [
        (0.5, 0.5, 0.0, 0.0625),  # near: half of e^2 / 2
        (3.0, 3.0, 0.0, 1.25),  # far: half of |e| - 1/2
        (1.0, 0.0, 1.0, 0.2025),  # it went past 0.1 from old: half of Huber's of 0.9
        (0.0, 1.0, 0.0, 0.2025),  # likewise downwards, to 0.9
        (1.0, 0.0, -1.0, 0.75),  # clipping it to 0.1 would hide an error of 2
    ],
)
def test_the_clipped_huber_loss_by_hand(value, old, target, expected):
    numbers = (torch.tensor(x, requires_grad=x is value) for x in (value, old, target))
    assert clipped_huber(*numbers, 0.1).item() == pytest.approx(expected)


def test_a_clipped_value_has_no_gradient_and_a_free_one_has():
    value = torch.tensor([1.0, 0.05], requires_grad=True)
    clipped_huber(value, torch.zeros(2), torch.ones(2), 0.1).sum().backward()
    assert value.grad.tolist() == pytest.approx([0.0, 0.5 * (0.05 - 1.0)])


def test_each_input_has_its_own_embedding():
    """Worked out from the layers' weights; the memory sees the sizes asked for, and prev_done."""
    torch.manual_seed(0)
    config = NetworkConfig(memory_size=4, hidden_sizes=(4,), embeddings=(2, 3, 1))
    policy = RecurrentPolicy(config, obs_size=5, action_size=2, task_size=1, told=False)
    assert policy.memory.rnn.input_size == 2 + 3 + 1 + 1
    obs, action, reward = torch.randn(7, 5), torch.randn(7, 2), torch.randn(7, 1)
    layers = policy.embeddings
    parts = []
    for layer, x, size in (
        (layers.obs, obs, 3),
        (layers.action, action, 2),
        (layers.reward, reward, 1),
    ):
        weight, bias = (p.detach().numpy() for p in layer.parameters())
        assert weight.shape == (size, x.shape[1])
        parts.append(np.maximum(x.numpy() @ weight.T + bias, 0.0))
    with torch.no_grad():
        found = layers(obs, action, reward).numpy()
    np.testing.assert_allclose(found, np.concatenate(parts, axis=1), atol=1e-6)


@pytest.mark.parametrize("shapes", [True, False])
def test_the_value_trains_the_memory_where_asked(shapes):
    config = NetworkConfig(memory_size=4, hidden_sizes=(4,), value_shapes_memory=shapes)
    policy = RecurrentPolicy(config, obs_size=1, action_size=1, task_size=1, told=True)
    inputs = (torch.ones(3, 2, 1) for _ in range(4))
    features, seen, _ = policy.remember(*inputs, policy.memory.initial(2))
    policy.value(features, seen, torch.ones(3, 2, 1)).sum().backward()
    assert (policy.memory.rnn.weight_hh_l0.grad is not None) == shapes


def test_a_paper_run_ends_in_a_bundle_that_is_served(tmp_path, capsys):
    run = tmp_path / "run"
    small = ["--env-steps", str(16 * 50 * 3), "--ranks", "1", "--memory-size", "8"]
    assert main(["train", "rl2", "bandit", "--preset", "paper", *small, "--run", str(run)]) == 0
    policy = Store(run / "bundle").load("bandit-rl2")
    golden = (run / "bundle" / "bandit-rl2" / "1" / "golden.safetensors").read_bytes()
    replay_golden(policy, golden)
    assert policy.manifest.provenance["command"].startswith("metatrain train rl2 bandit --preset")
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "adapting" in (run / "evaluation.json").read_text()
    assert "bandit-rl2/1" in capsys.readouterr().out
