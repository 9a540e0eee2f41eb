"""PEARL's posterior as a graph: every trap of a belief that is streamed.

The policies have random weights: what the graph computes is held against the training code's
own encoder and product of factors.
"""

import copy
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import sim
from runtime.errors import InvalidConfig
from runtime.policy import Arrays, Policy, batch_invariant
from tests.pearl_bundle import load, random_policy
from training.parity import PARITY_ATOL, check_parity
from training.pearl_doubt import usual_disagreement
from training.pearl_export import PosteriorStep
from training.pearl_networks import LEAST_VARIANCE, ContextPolicy
from training.posterior import DOUBTFUL, Posterior, product

FAMILY, K = "point-nav", 8
USUAL = 0.01
"""A disagreement that these policies exceed: their factors are wide."""


@pytest.fixture(scope="module")
def trained() -> ContextPolicy:
    return random_policy(FAMILY)


@pytest.fixture(scope="module")
def served(trained) -> Policy:
    return load(PosteriorStep(trained, sim.family(FAMILY)))


def steps(count: int, seed: int = 0, ends: tuple[int, ...] = ()) -> list[Arrays]:
    """Inputs (1, ...) of steps of one task; an episode ended before each of `ends`."""
    rng = np.random.default_rng(seed)
    rows = []
    for t in range(count):
        obs, action, reward = rng.normal(size=2), rng.uniform(-1, 1, 2), rng.normal(size=1)
        rows.append(as_inputs(obs, action * (t > 0), reward * (t > 0), [t in ends], rng))
    return rows


def as_inputs(obs, action, reward, done, rng) -> Arrays:
    values = {"obs": obs, "prev_action": action, "prev_reward": reward, "prev_done": done}
    values["noise"] = rng.normal(size=3)
    return {name: np.array([value], np.float32) for name, value in values.items()}


def run(served: Policy, rows: list[Arrays], carry=None, **options) -> Iterator:
    """The graph's result at each step."""
    carry = carry or served.initial_carry()
    for inputs in rows:
        step = served.step(inputs, carry, options)
        yield step
        carry = step.carry


def belief(step) -> np.ndarray:
    """Means and variances, (2, L)."""
    return np.concatenate([step.belief["z_mean"], step.belief["z_variance"]])


def by_training(trained: ContextPolicy, rows: list[Arrays], used: list[int]) -> np.ndarray:
    """The training code's belief from some of the transitions; t is the one that ends at row t."""
    if not used:
        return np.array([[0.0] * 3, [1.0] * 3])
    tensors = {name: torch.from_numpy(np.concatenate([r[name] for r in rows])) for name in rows[0]}
    now, before = torch.tensor(used), torch.tensor(used) - 1
    with torch.no_grad():
        factors = trained.encoder(
            trained.transition(
                tensors["obs"][before],
                tensors["prev_action"][now],
                tensors["prev_reward"][now],
                tensors["obs"][now],
            )
        )
        return torch.stack(product(*factors)).numpy()


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("next_observation", [False, True])
def test_the_belief_is_the_training_codes_at_every_prefix(next_observation):
    trained = random_policy(FAMILY, next_observation=next_observation)
    served = load(PosteriorStep(trained, sim.family(FAMILY)))
    rows = steps(3 * K, ends=(5, 15))
    for t, step in enumerate(run(served, rows)):
        seen = [n for n in range(1, t + 1) if not (next_observation and n in (5, 15))]
        assert_same(belief(step), by_training(trained, rows, seen[-K:]))


def test_the_order_of_the_windows_transitions_does_not_matter(trained, served):
    """Transitions are shuffled as a whole: each is two rows, apart by a hole in the stream."""
    rng = np.random.default_rng(0)
    pairs = [(*steps(1, seed=n), *steps(2, seed=50 + n)[1:]) for n in range(K)]
    beliefs = []
    for order in (range(K), *(rng.permutation(K) for _ in range(10))):
        carry = served.initial_carry()
        for before, after in (pairs[n] for n in order):
            carry["previous"] = served.initial_carry()["previous"]
            *_, step = run(served, [before, after], carry)
            carry = step.carry
        beliefs.append(belief(step))
        assert step.carry["tally"].tolist() == [[K, 0]]
    for found in beliefs[1:]:
        assert_same(found, beliefs[0])


@pytest.mark.parametrize("window", range(1, K + 1))
def test_a_window_that_an_operator_sets_counts_the_newest(trained, served, window):
    rows = steps(2 * K)
    for t, step in enumerate(run(served, rows, window=window)):
        seen = range(max(1, t + 1 - window), t + 1)
        assert_same(belief(step), by_training(trained, rows, [*seen]))


def test_a_wider_window_has_the_older_evidence_at_once(trained, served):
    rows = steps(2 * K)
    *_, narrow = run(served, rows[:-1], window=2)
    (wide,) = run(served, rows[-1:], narrow.carry)
    assert_same(belief(wide), by_training(trained, rows, [*range(K, 2 * K)]))


def test_the_prior_is_used_while_there_is_nothing_and_not_multiplied_in(trained, served):
    rows = steps(2)
    first, second = run(served, rows)
    assert belief(first).tolist() == [[0] * 3, [1] * 3]
    one = by_training(trained, rows, [1])
    assert_same(belief(second), one)
    with_prior = one[1] / (1 + one[1])
    assert (belief(second)[1] > with_prior + 1e-3).all()


def test_a_long_stream_is_no_surer_than_training_was(served):
    variances = [belief(step)[1] for step in run(served, steps(20 * K))]
    alone = [belief(step)[1] for step in run(served, steps(20 * K), window=1)][1:]
    assert (variances[-1] >= 0.99 * np.min(alone, axis=0) / K).all()


def test_a_hundred_thousand_transitions_do_not_drift(trained, served):
    carry, last = served.initial_carry(), None
    for block in range(100):
        rows = ([last] if last else []) + steps(1000, seed=block)
        for step in run(served, rows[1:] if last else rows, carry):
            carry = step.carry
        assert_same(belief(step), by_training(trained, rows, [*range(len(rows) - K, len(rows))]))
        last = rows[-1]
    assert carry["tally"].tolist() == [[K, 0]]


def test_a_factor_is_never_surer_than_the_clamp(trained):
    sure = random_policy(FAMILY)
    sure.encoder.layers[-1].bias.data[3:] = -40.0
    served = load(PosteriorStep(sure, sim.family(FAMILY)))
    rows = steps(3 * K)
    found = [belief(step) for step in run(served, rows)]
    np.testing.assert_allclose(found[1][1], LEAST_VARIANCE, rtol=1e-5)
    np.testing.assert_allclose(found[-1][1], LEAST_VARIANCE / K, rtol=1e-5)
    assert_same(found[-1], by_training(sure, rows, [*range(2 * K, 3 * K)]))


def test_very_sure_and_unsure_factors_together_are_as_in_training():
    mixed = random_policy(FAMILY)
    mixed.encoder.layers[-1].bias.data[3:] = -8.0
    mixed.encoder.layers[-1].weight.data[3:] *= 6.0
    served = load(PosteriorStep(mixed, sim.family(FAMILY)))
    rows = steps(3 * K)
    spread = []
    for t, step in enumerate(run(served, rows)):
        assert_same(belief(step), by_training(mixed, rows, [*range(1, t + 1)][-K:]))
        spread.append(belief(step)[1])
    assert np.max(spread) / np.min(spread) > 1e4


def test_the_mean_is_acted_on_and_needs_no_noise(trained, served):
    rows = steps(5, ends=(3,))
    for inputs, step in zip(rows, run(served, rows), strict=True):
        z = torch.from_numpy(step.belief["z_mean"])
        with torch.no_grad():
            mean, _ = trained.act(torch.from_numpy(inputs["obs"]), z)
        np.testing.assert_allclose(step.action, mean.tanh(), atol=1e-6)
        assert step.carry["z"].tolist() == [[*step.belief["z_mean"][0], 1]]


def test_a_sampled_z_changes_with_the_episode_and_not_with_the_step(served):
    rows = steps(20, ends=(6, 14))
    found = [*run(served, rows, sample_z=1)]
    drawn = [step.carry["z"][0, :-1] for step in found]
    for start, end in itertools.pairwise((0, 6, 14, 20)):
        mean, variance = belief(found[start])
        expected = mean + np.sqrt(variance) * rows[start]["noise"][0]
        for t in range(start, end):
            np.testing.assert_allclose(drawn[t], expected, atol=1e-6)
    assert_same(drawn[0], rows[0]["noise"][0])  # of the prior


def test_an_option_may_change_in_the_middle_of_an_episode(served):
    rows = steps(9, ends=(6,))
    *_, before = run(served, rows[:3])
    kept, *_ = run(served, rows[3:], before.carry, sample_z=1)
    assert kept.carry["z"].tolist() == before.carry["z"].tolist()
    (mean,) = run(served, rows[4:5], kept.carry)
    assert mean.carry["z"][0, :-1].tolist() == mean.belief["z_mean"][0].tolist()


@pytest.mark.parametrize("name", ["prev_action", "prev_reward"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_transition_that_is_not_finite_is_dropped_and_counted(name, value, normalise):
    trained = random_policy(FAMILY, normalise=normalise)
    served = load(PosteriorStep(trained, sim.family(FAMILY)))
    rows = steps(12)
    *_, before = run(served, rows[:6])
    rows[6][name][0, 0] = value
    (after,) = run(served, rows[6:7], before.carry)
    assert np.isfinite(after.action).all()
    assert belief(after).tobytes() == belief(before).tobytes()
    assert after.carry["factors"].tobytes() == before.carry["factors"].tobytes()
    assert after.carry["tally"].tolist() == [[5, 1]]
    *_, later = run(served, rows[7:], after.carry)
    assert_same(belief(later), by_training(trained, rows, [3, 4, 5, *range(7, 12)]))


def test_a_transition_whose_factor_overflows_is_dropped_and_counted():
    trained = random_policy(FAMILY, normalise=False)
    trained.encoder.layers[0].weight.data *= 100
    served = load(PosteriorStep(trained, sim.family(FAMILY)))
    rows = steps(6)
    rows[3]["prev_reward"][:] = 3e38
    found = [*run(served, rows)]
    assert belief(found[3]).tobytes() == belief(found[2]).tobytes()
    assert found[-1].carry["tally"].tolist() == [[4, 1]]


def test_the_first_observation_completes_no_transition(served):
    first, *_ = run(served, steps(1))
    assert first.carry["tally"].tolist() == [[0, 0]]
    assert first.carry["factors"].tobytes() == served.initial_carry()["factors"].tobytes()


def test_rows_are_independent(served):
    assert batch_invariant(served)


@pytest.mark.parametrize("next_observation", [False, True])
def test_torch_and_onnxruntime_agree(next_observation):
    family = sim.family("halfcheetah-vel")
    trained = random_policy(family.name, next_observation=next_observation)
    step = PosteriorStep(trained, family, context=5)
    assert check_parity(step, load(step), family) <= PARITY_ATOL


def test_the_manifest_says_what_an_operator_may_set(served):
    manifest = served.manifest
    assert {o.name: (o.default, o.low, o.high) for o in manifest.options} == {
        "window": (K, 1, K),
        "sample_z": (0, 0, 1),
        "doubt_window": (K, 1, K),
    }
    assert manifest.context_window == K and manifest.noise_size == 3
    assert manifest.needs_reward and manifest.algorithm == "pearl"
    assert [(b.name, b.role, b.of) for b in manifest.belief] == [
        ("z_mean", "mean", "latent"),
        ("z_variance", "variance", "latent"),
        ("z_doubt", "doubt", "latent"),
    ]
    assert [c.name for c in manifest.carry if c.transient] == ["previous"]


@pytest.mark.parametrize("context", [0, K + 1])
def test_more_context_than_it_was_trained_with_is_refused(trained, context):
    with pytest.raises(InvalidConfig, match=f"a context of {context} .* trained with {K}.* 1 to"):
        PosteriorStep(trained, sim.family(FAMILY), context)


def test_less_context_is_remembered_if_asked(trained):
    served = load(PosteriorStep(trained, sim.family(FAMILY), 3))
    rows = steps(K)
    *_, last = run(served, rows)
    assert_same(belief(last), by_training(trained, rows, [K - 3, K - 2, K - 1]))
    assert served.manifest.context_window == 3 and served.manifest.options[0].high == 3


@pytest.mark.parametrize("doubt_window", [1, 3, K])
@pytest.mark.parametrize("window", [5, K])
def test_evidence_that_contradicts_itself_is_believed_as_training_does(
    trained, window, doubt_window
):
    served = load(PosteriorStep(trained, sim.family(FAMILY), usual_disagreement=USUAL))
    doubts = []
    options = {"window": window, "doubt_window": doubt_window}
    for step in run(served, steps(3 * K), **options):
        factors, tally = (torch.from_numpy(step.carry[name]) for name in ("factors", "tally"))
        posterior = Posterior(factors, tally[:, :1])
        mean, variance, doubt = posterior.believed(USUAL, window, doubt_window)
        doubts.append(doubt.item())
        assert_same(step.belief["z_mean"], mean.numpy())
        assert_same(step.carry["z"][:, :-1], mean.numpy())
        np.testing.assert_allclose(step.belief["z_doubt"], doubt.numpy(), rtol=1e-4)
        told = torch.maximum(variance, (variance * doubt.square()).clamp(max=1)).numpy()
        np.testing.assert_allclose(step.belief["z_variance"], told, rtol=1e-4)
    assert doubts[:2] == [1, 1] and max(doubts) > DOUBTFUL


def test_evidence_that_does_not_is_never_doubted(served):
    assert all(step.belief["z_doubt"] == 1 for step in run(served, steps(2 * K)))


def test_the_usual_disagreement_is_what_one_step_in_a_hundred_exceeds(trained):
    family = sim.family(FAMILY)
    usual = usual_disagreement(trained, family, K, seed=3)
    assert usual == usual_disagreement(trained, family, K, seed=3)
    assert 1 <= usual < usual_disagreement(scattered(trained), family, K, seed=3)


def scattered(trained: ContextPolicy) -> ContextPolicy:
    """The same, with factors that are a tenth as wide."""
    other = copy.deepcopy(trained)
    other.encoder.layers[-1].bias.data[other.latent :] -= 5
    return other
