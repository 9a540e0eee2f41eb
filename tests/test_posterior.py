"""The product of Gaussian factors, and the same from a stream."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from training.posterior import MOST_DOUBT, Posterior, divergence, product

CONTEXT, LATENT = 7, 3


def factors(steps: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Means (T, B, L) and variances as an encoder gives them: down to the clamp at 1e-7."""
    generator = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(steps, batch, LATENT, generator=generator)
    exponents = torch.rand(steps, batch, LATENT, generator=generator)
    return means, 10 ** (8 * exponents - 7)


def streamed(means: Tensor, variances: Tensor, context: int = CONTEXT) -> Posterior:
    posterior = Posterior.prior(means.shape[1], context, LATENT)
    for mean, variance in zip(means, variances, strict=True):
        posterior = posterior.add(mean, variance)
    return posterior


def in_float64(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """The product over the first axis, from the formula."""
    precisions = 1 / variances.double()
    precision = precisions.sum(0)
    return ((means.double() * precisions).sum(0) / precision).float(), (1 / precision).float()


def assert_same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


def test_a_product_worked_out_by_hand():
    # Precisions 1 and 3 add up to 4; the mean is (1 * 2 + 3 * 6) / 4.
    mean, variance = product(torch.tensor([[2.0], [6.0]]), torch.tensor([[1.0], [1 / 3]]))
    assert mean.item() == pytest.approx(5.0)
    assert variance.item() == pytest.approx(0.25)


def test_the_prior_is_not_a_factor():
    mean, variance = product(torch.tensor([[3.0]]), torch.tensor([[2.0]]))
    assert (mean.item(), variance.item()) == pytest.approx((3.0, 2.0))


def test_the_product_is_proportional_to_the_densities():
    means, variances = (x[:, 0, :1] for x in factors(4))
    variances = variances.clamp(min=0.1)
    mean, variance = product(means, variances)
    z = torch.linspace(-3, 3, 9)
    log_densities = Normal(means, variances.sqrt()).log_prob(z).sum(0)
    difference = log_densities - Normal(mean, variance.sqrt()).log_prob(z)
    torch.testing.assert_close(difference, difference[:1].expand(9), atol=1e-4, rtol=1e-5)


def test_a_mask_leaves_factors_out_even_of_nan():
    means, variances = factors(3)
    kept = product(means[:2], variances[:2], dim=0)
    means[2], variances[2] = math.nan, math.inf
    mask = torch.tensor([1.0, 1.0, 0.0]).reshape(3, 1, 1)
    for found, expected in zip(product(means, variances, 0, mask), kept, strict=True):
        torch.testing.assert_close(found, expected)


def test_nothing_left_is_the_prior():
    means, variances = factors(3)
    for mean, variance in (
        product(means, variances, 0, torch.zeros(3, 1, 1)),
        product(means[:0], variances[:0], 0),
        Posterior.prior(2, CONTEXT, LATENT).mean_and_variance(),
    ):
        assert mean.tolist() == [[0.0] * LATENT] * 2
        assert variance.tolist() == [[1.0] * LATENT] * 2


def test_gradients_pass_through_a_masked_product():
    means, variances = (x.requires_grad_() for x in factors(3))
    mask = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
    mean, variance = product(means, variances, 0, mask)
    (mean.sum() + variance.sum()).backward()
    for leaf in (means, variances):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert not leaf.grad[1:].any()
    torch.testing.assert_close(means.grad[0], torch.ones(2, LATENT))  # type: ignore[index]


def test_divergence_from_the_prior():
    mean, variance = (x[0] for x in factors(1))
    expected = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(divergence((mean, variance)), expected)
    assert divergence((torch.zeros(LATENT), torch.ones(LATENT))).item() == 0


def test_divergence_from_another_belief():
    one, other = (tuple(x[k] for x in factors(2)) for k in (0, 1))
    expected = kl_divergence(*(Normal(m, v.sqrt()) for m, v in (one, other))).sum(-1)
    torch.testing.assert_close(divergence(one, other), expected)


@pytest.mark.parametrize("steps", range(1, 3 * CONTEXT))
def test_a_stream_is_the_product_of_the_window_at_every_prefix(steps):
    means, variances = factors(steps)
    window = slice(max(0, steps - CONTEXT), steps)
    expected = in_float64(means[window], variances[window])
    assert_same(product(means[window], variances[window], 0), expected)
    assert_same(streamed(means, variances).mean_and_variance(), expected)


def test_the_order_inside_the_window_does_not_matter():
    means, variances = factors(CONTEXT)
    expected = streamed(means, variances).mean_and_variance()
    for seed in range(20):
        order = torch.randperm(CONTEXT, generator=torch.Generator().manual_seed(seed))
        assert_same(streamed(means[order], variances[order]).mean_and_variance(), expected)


@pytest.mark.parametrize("steps", [1, 4, CONTEXT, CONTEXT + 3])
@pytest.mark.parametrize("window", range(1, CONTEXT + 1))
def test_a_shorter_window_counts_the_newest(steps, window):
    means, variances = factors(steps)
    found = streamed(means, variances)
    expected = in_float64(means[-window:], variances[-window:])
    assert_same(found.mean_and_variance(window), expected)
    per_stream = torch.tensor([[float(window)], [1.0]])
    mixed = found.mean_and_variance(per_stream)
    assert_same((mixed[0][:1], mixed[1][:1]), (expected[0][:1], expected[1][:1]))
    assert_same((mixed[0][1], mixed[1][1]), (means[-1, 1], variances[-1, 1]))


def test_a_very_sure_factor_leaves_nothing_behind():
    # A running sum in float32 would hold 1e7 - 1e7 + 1: all the others' evidence is lost.
    means, variances = torch.ones(CONTEXT + 1, 1, LATENT), torch.ones(CONTEXT + 1, 1, LATENT)
    means[0], variances[0] = 100.0, 1e-7
    mean, variance = streamed(means, variances).mean_and_variance()
    torch.testing.assert_close(mean, torch.ones(1, LATENT))
    torch.testing.assert_close(variance, torch.full((1, LATENT), 1 / CONTEXT))


def test_a_long_stream_does_not_drift():
    steps = 100_000
    means, variances = factors(steps, batch=1)
    posterior = Posterior.prior(1, CONTEXT, LATENT)
    for start in range(0, steps, 1000):
        block = slice(start, start + 1000)
        for mean, variance in zip(means[block], variances[block], strict=True):
            posterior = posterior.add(mean, variance)
        last = slice(start + 1000 - CONTEXT, start + 1000)
        assert_same(posterior.mean_and_variance(), in_float64(means[last], variances[last]))


def test_a_factor_that_is_not_valid_changes_nothing_of_its_stream():
    means, variances = factors(CONTEXT + 2)
    before = streamed(means[:-1], variances[:-1])
    means[-1, 0] = math.nan
    after = before.add(means[-1], variances[-1], torch.tensor([[False], [True]]))
    assert torch.equal(after.factors[0], before.factors[0])
    assert torch.equal(after.count[0], before.count[0])
    found, old = after.mean_and_variance(), before.mean_and_variance()
    assert torch.equal(found[0][0], old[0][0])
    assert not torch.equal(found[0][1], old[0][1])


@pytest.mark.parametrize("window", [None, 1, 3, CONTEXT])
@pytest.mark.parametrize("steps", [0, 1, 2, CONTEXT, CONTEXT + 3])
def test_disagreement_is_the_reduced_chi_square_of_the_window(steps, window):
    means, variances = factors(steps)
    posterior = streamed(means, variances)
    mean, _ = posterior.mean_and_variance(window)
    used = min(steps, CONTEXT, window or CONTEXT)
    newest = [x[steps - used :].double() for x in (means, variances)]
    expected = sum((m - mean) ** 2 / v / max(used - 1, 1) for m, v in zip(*newest, strict=True))
    found = posterior.disagreement(mean, window)
    wanted = torch.zeros(2, 1) if used == 0 else expected.mean(-1, keepdim=True).float()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_independent_factors_of_one_task_disagree_as_much_as_they_say_and_two_tasks_far_more():
    generator = torch.Generator().manual_seed(0)
    variances = torch.rand(200, 50, LATENT, generator=generator) + 0.1
    means = 1.0 + variances.sqrt() * torch.randn(200, 50, LATENT, generator=generator)
    for shift, low, high in ((0.0, 0.95, 1.05), (5.0, 5.0, 50.0)):
        means[100:] += shift
        posterior = streamed(means, variances, 200)
        found = posterior.disagreement(posterior.mean_and_variance()[0]).mean()
        assert low < found < high


def test_in_doubt_only_the_newest_factors_are_believed():
    means = torch.cat((torch.zeros(20, 1, LATENT), torch.ones(12, 1, LATENT)))
    variances = torch.full_like(means, 0.01)
    before = streamed(means[:20], variances[:20], 20).believed(usual=1.0)
    assert before[2] == 1
    assert_same(before[:2], (torch.zeros(1, LATENT), torch.full((1, LATENT), 0.01 / 20)))
    after = streamed(means, variances, 20)
    mean, variance, doubt = after.believed(usual=1.0)
    assert_same((mean, variance), (torch.ones(1, LATENT), torch.full((1, LATENT), 0.01 / 10)))
    chi_square = (12 * 0.4**2 + 8 * 0.6**2) / 0.01 / 19
    assert doubt.item() == pytest.approx(chi_square**0.5, rel=1e-5)
    assert after.believed(usual=1e-3)[2] == MOST_DOUBT
    assert after.believed(usual=2 * chi_square)[2] == 1
    for kept in (after.believed(usual=1.0, doubt_window=20), after.believed(usual=math.inf)):
        assert_same(kept[:2], after.mean_and_variance())
