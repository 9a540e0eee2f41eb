"""Soft actor critic by itself: densities, targets and losses by hand, a known optimum."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from training.sac import (
    TwinCritic,
    actor_loss,
    critic_loss,
    follow,
    soft_target,
    squashed_sample,
    temperature_loss,
)


def test_a_squashed_sample_has_the_density_that_torch_gives_it():
    torch.manual_seed(0)
    mean, log_std, noise = torch.randn(50, 3), torch.randn(50, 3) * 0.3, torch.randn(50, 3)
    action, log_prob = squashed_sample(mean, log_std, noise)
    tanh = TanhTransform(cache_size=1)
    theirs = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [tanh])
    raw = mean + log_std.exp() * noise
    torch.testing.assert_close(action, tanh(raw))
    torch.testing.assert_close(log_prob, theirs.log_prob(tanh(raw)), rtol=1e-4, atol=1e-4)


def test_a_saturated_sample_has_a_finite_density():
    """At u = +-40 the slope of tanh underflows; log(1 - tanh^2) is 2 (log 2 - 40)."""
    raw = torch.tensor([[40.0], [-40.0]])
    _, log_prob = squashed_sample(raw, torch.zeros(2, 1), torch.zeros(2, 1))
    expected = -0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 40)
    assert log_prob.tolist() == pytest.approx([expected] * 2)


def test_the_soft_target_by_hand():
    """1 + 0.5 (min(4, 3) - 0.1 * 2) = 2.4; nothing follows a terminal state."""
    found = soft_target(
        reward=torch.tensor([1.0, 1.0]),
        terminated=torch.tensor([0.0, 1.0]),
        next_values=torch.tensor([[4.0, 4.0], [3.0, 3.0]]),
        next_log_prob=torch.tensor([2.0, 2.0]),
        temperature=torch.tensor(0.1),
        discount=0.5,
    )
    assert found.tolist() == pytest.approx([2.4, 1.0])


def test_the_losses_by_hand():
    values, log_prob = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1.0, 3.0])
    # First critic: (1 + 4) / 2, second: (9 + 0) / 2.
    assert critic_loss(values, torch.zeros(2)).item() == pytest.approx(2.5 + 4.5)
    # 0.5 * 1 - 1 and 0.5 * 3 - 0.
    assert actor_loss(values, log_prob, torch.tensor(0.5)).item() == pytest.approx(0.5)
    # The entropy, -2, is below its target -1: the temperature rises.
    log_temperature = torch.zeros((), requires_grad=True)
    temperature_loss(log_temperature, log_prob, -1.0).backward()
    assert log_temperature.grad == pytest.approx(-1.0)


def linear_layers(twin, which):
    """One of the twins as torch's own layers."""
    layers = []
    for weight, bias in zip(twin.weights, twin.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data, linear.bias.data = weight.data[which].t(), bias.data[which, 0]
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_twins_are_two_networks_and_learn_apart():
    torch.manual_seed(0)
    twin, x = TwinCritic(5, (16, 16)), torch.randn(7, 5)
    for bias in twin.biases:
        nn.init.normal_(bias)
    each = [linear_layers(twin, k) for k in range(2)]
    values = twin(x)
    torch.testing.assert_close(values, torch.stack([one(x).squeeze(1) for one in each]))
    assert (values[0] != values[1]).all()
    (values[0].sum() + 2 * values[1].sum()).backward()
    for k, one in enumerate(each):
        ((k + 1) * one(x).sum()).backward()
        theirs = [p.grad for p in one.parameters()]
        ours = [g for w, b in zip(twin.weights, twin.biases, strict=True)
                for g in (w.grad[k].t(), b.grad[k, 0])]  # fmt: skip
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


def test_twins_that_do_not_learn_pass_gradients_on():
    twin, x = TwinCritic(3, (8,)), torch.randn(4, 3, requires_grad=True)
    twin(x, learning=False).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(p.grad is None for p in twin.parameters())


def test_the_target_follows():
    slow, fast = nn.Linear(1, 1), nn.Linear(1, 1)
    slow.weight.data.fill_(1.0)
    fast.weight.data.fill_(3.0)
    follow(slow, fast, 0.25)
    assert slow.weight.item() == pytest.approx(1.5) and fast.weight.item() == 3.0


def test_a_one_step_problem_is_solved():
    """Reward -(a - 0.5)^2 at temperature t: the best density is exp(reward / t), a Gaussian
    of variance t / 2 around 0.5, up to what the bounds cut off; its sample's mean is 0.5."""
    torch.manual_seed(0)
    critic, actor = TwinCritic(1, (64, 64)), nn.Parameter(torch.zeros(2))
    adam = torch.optim.Adam([*critic.parameters(), actor], lr=3e-3)
    temperature = torch.tensor(0.02)
    for _ in range(1500):
        tried = torch.rand(128, 1) * 2 - 1
        reward = -(tried[:, 0] - 0.5).square()
        sampled, log_prob = squashed_sample(*actor.expand(128, 2).split(1, 1), torch.randn(128, 1))
        loss = critic_loss(critic(tried), reward)
        loss = loss + actor_loss(critic(sampled, learning=False), log_prob, temperature)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        actions, _ = squashed_sample(*actor.expand(20_000, 2).split(1, 1), torch.randn(20_000, 1))
    assert actions.mean().item() == pytest.approx(0.5, abs=0.03)
    assert actions.std().item() == pytest.approx(math.sqrt(0.01), abs=0.03)
