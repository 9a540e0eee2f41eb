"""PPO's parts against numbers worked out by hand, and chunks against whole trials."""

import math

import numpy as np
import pytest
import torch

import sim
from sim.change import Change
from sim.families.bandit import Bandit
from sim.trials import TrialEnv
from training.config import BeliefConfig, NetworkConfig, PPOConfig
from training.networks import RecurrentPolicy, RunningNormaliser
from training.ppo import Chunks, clipped_surrogate, gae, gaussian_nll, losses
from training.rollout import Shard, collect, gaussian_log_prob


def column(*values):
    return torch.tensor(values, dtype=torch.float32).unsqueeze(1)


def test_gae_of_three_steps_by_hand():
    # gamma 0.5, lambda 0.5; deltas: 1 + .5*4 - 2 = 1, 0 + .5*6 - 4 = -1, 2 + .5*8 - 6 = 0
    # advantages, last first: 0, -1 + .25*0 = -1, 1 + .25*(-1) = 0.75
    reward, value = column(1.0, 0.0, 2.0), column(2.0, 4.0, 6.0)
    result = gae(reward, value, torch.tensor([8.0]), torch.ones(3, 1), 0.5, 0.5)
    assert result.squeeze(1).tolist() == pytest.approx([0.75, -1.0, 0.0])


def test_gae_of_a_trial_that_ends_early_bootstraps_from_its_own_end():
    # Two live steps: deltas 1 + .5*4 - 2 = 1 and 0 + .5*8 - 4 = 0; the third is padding.
    reward, value, mask = column(1.0, 0.0, 9.0), column(2.0, 4.0, 7.0), column(1.0, 1.0, 0.0)
    result = gae(reward, value, torch.tensor([8.0]), mask, 0.5, 0.5)
    assert result.squeeze(1).tolist() == pytest.approx([1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, -2.0),  # no change: the plain policy gradient
        (1.5, 2.0, -2.4),  # too far up: 1.2 * 2
        (0.5, 2.0, -1.0),  # too far down, but that is the pessimistic side: not clipped
        (0.5, -2.0, 1.6),  # 0.8 * 2
        (1.5, -2.0, 3.0),  # pessimistic side again
    ],
)
def test_the_clipped_surrogate_by_hand(ratio, advantage, expected):
    loss = clipped_surrogate(
        torch.tensor(math.log(ratio)), torch.tensor(0.0), torch.tensor(advantage), 0.2
    )
    assert float(loss) == pytest.approx(expected)


def test_log_prob_and_nll_by_hand():
    std = torch.tensor([1.0, 2.0])
    noise = torch.tensor([0.5, -1.0])
    normal = torch.distributions.Normal(torch.zeros(2), std)
    assert float(gaussian_log_prob(noise, std)) == pytest.approx(
        float(normal.log_prob(noise * std).sum()), abs=1e-6
    )
    # mean 1, variance 4, target 3: (4 / 4 + ln 4) / 2
    nll = gaussian_nll(torch.tensor([1.0]), torch.tensor([math.log(4.0)]), torch.tensor([3.0]))
    assert float(nll) == pytest.approx((1 + math.log(4)) / 2)


def test_the_normaliser_has_numpys_moments_whatever_the_batches():
    samples = np.random.default_rng(0).normal(5.0, [2.0, 0.0], (1000, 2)).astype(np.float32)
    normaliser = RunningNormaliser(2)
    for part in np.split(samples, [1, 7, 500]):
        normaliser.update(torch.from_numpy(part))
    np.testing.assert_allclose(normaliser.mean, samples.mean(0), rtol=1e-5)
    assert float(normaliser.std[0]) == pytest.approx(samples[:, 0].std(), rel=1e-5)
    assert float(normaliser.std[1]) == 1.0  # a constant input is not blown up


@pytest.fixture
def collected():
    """A small policy and a batch of bandit trials that it played."""
    torch.manual_seed(0)
    policy = RecurrentPolicy(NetworkConfig(memory_size=8, hidden_sizes=(8,)), 1, 2, 2, told=True)
    env = sim.make("bandit", 6, seed=0)
    return policy, collect([Shard(env, torch.Generator().manual_seed(0))], policy, 20)


def test_a_fresh_batch_has_ratio_one_and_no_divergence(collected):
    policy, trials = collected
    config = PPOConfig(chunk=20)
    extra = {"advantage": torch.ones(50, 6), "return": torch.zeros(50, 6)}
    batch = next(Chunks(trials, extra, config.chunk).deal(1, [torch.Generator()]))
    terms = losses(policy, batch, config, BeliefConfig())
    assert terms["policy"].item() == pytest.approx(-1.0, abs=1e-5)
    assert float(terms["kl"]) == pytest.approx(0.0, abs=1e-6)
    assert float(terms["clipped"]) == 0.0


def test_chunks_from_stored_carries_see_what_whole_trials_see(collected):
    policy, trials = collected
    whole, _, _ = policy.remember(
        trials.obs,
        trials.prev_action,
        trials.prev_reward,
        trials.prev_done,
        policy.memory.initial(6),
    )
    torch.testing.assert_close(whole, trials.features, atol=1e-6, rtol=1e-5)
    # 50 steps in chunks of 20: three chunks, the last one padded with ten masked steps.
    config = PPOConfig(chunk=20)
    chunks = Chunks(trials, {"stored": trials.features}, config.chunk)
    batch = next(chunks.deal(1, [torch.Generator()]))
    x = batch.trials
    features, _, _ = policy.remember(
        x["obs"], x["prev_action"], x["prev_reward"], x["prev_done"], batch.carry
    )
    alive = x["mask"].bool()
    assert int(alive.sum()) == 300
    torch.testing.assert_close(features[alive], x["stored"][alive], atol=1e-6, rtol=1e-5)


def test_minibatches_deal_out_every_step_once(collected):
    _, trials = collected
    index = torch.arange(300, dtype=torch.float32).reshape(50, 6)
    seen = [
        batch.trials["index"][batch.trials["mask"].bool()]
        for batch in Chunks(trials, {"index": index}, 20).deal(5, [torch.Generator()])
    ]
    assert len(seen) == 5
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(300.0))


def test_the_meta_input_is_the_step_before(collected):
    _, trials = collected
    clipped = trials.action.clamp(-1, 1)
    torch.testing.assert_close(trials.prev_action[1:], clipped[:-1])
    torch.testing.assert_close(trials.prev_reward[1:, :, 0], trials.reward[:-1])
    assert not trials.prev_action[0].any() and not trials.prev_done.any()


def test_prev_done_marks_the_first_step_of_later_episodes():
    torch.manual_seed(0)
    policy = RecurrentPolicy(NetworkConfig(memory_size=8, hidden_sizes=(8,)), 1, 2, 2, told=True)
    env = sim.make("bandit", 2, seed=0, episodes=3)
    trials = collect([Shard(env, torch.Generator().manual_seed(0))], policy, 50)
    assert trials.mask.shape == (150, 2)
    assert torch.nonzero(trials.prev_done[:, 0, 0]).squeeze(1).tolist() == [50, 100]


class Countdown(Bandit):
    """Simulation i ends after i + 1 steps; the observation counts the steps of the episode."""

    def terminated(self, world):
        return world.last_reward >= 1 + np.arange(len(world.last_reward))

    def step(self, world, action):
        world.last_reward += 1

    def observe(self, world):
        return world.last_reward[:, None].astype(np.float32)


def test_trials_that_end_early_are_masked_and_bootstrap_from_their_own_end():
    torch.manual_seed(0)
    policy = RecurrentPolicy(NetworkConfig(memory_size=8, hidden_sizes=(8,)), 1, 2, 2, told=True)
    env = TrialEnv(Countdown(horizon=3), 4, episodes=2)
    trials = collect([Shard(env, torch.Generator().manual_seed(0))], policy, 50)
    # Two episodes of 1, 2 and 3 steps end in a terminal state; the fourth is cut at 3 steps.
    assert trials.mask.sum(0).tolist() == [2, 4, 6, 6]
    assert trials.final.terminated.tolist() == [1, 1, 1, 0]
    assert trials.final.obs[:, 0].tolist() == [1, 2, 3, 3]
    assert trials.episode[:2, 0].tolist() == [0, 1]
    # The final features are those of the memory one step on, at each trial's own end.
    features, _, carry = policy.step(
        trials.obs[0, :1], torch.zeros(1, 2), torch.zeros(1, 1), torch.zeros(1, 1),
        policy.memory.initial(1),
    )  # fmt: skip
    for obs, action, reward, done in (
        (trials.obs[1, :1], trials.action[0, :1].clamp(-1, 1), 1.0, 1.0),
        (trials.final.obs[:1], trials.action[1, :1].clamp(-1, 1), 1.0, 1.0),
    ):
        scalars = (torch.full((1, 1), reward), torch.full((1, 1), done))
        features, _, carry = policy.step(obs, action, *scalars, carry)
    torch.testing.assert_close(trials.final.features[:1], features)


def test_some_trials_change_their_task_once():
    torch.manual_seed(0)
    policy = RecurrentPolicy(NetworkConfig(memory_size=8, hidden_sizes=(8,)), 1, 2, 2, told=True)
    env = sim.make("bandit", 40, seed=0, changes=Change(share=0.5))
    trials = collect([Shard(env, torch.Generator().manual_seed(0))], policy, 50)
    changes = (trials.task[1:] != trials.task[:-1]).any(-1).sum(0)
    assert set(changes.tolist()) == {0, 1}
    assert 8 <= int(changes.sum()) <= 32


def test_chunks_after_a_trials_end_are_left_out():
    """Their loss would be a mean over nothing."""
    torch.manual_seed(0)
    env = sim.make("ant-vel", 16, seed=0, episodes=1)
    policy = RecurrentPolicy(NetworkConfig(memory_size=8, hidden_sizes=(8,)), 27, 8, 1, told=True)
    trials = collect([Shard(env, torch.Generator().manual_seed(0))], policy, 10)
    trials.mask[30:, :12] = 0.0  # most of them end early
    extra = {"advantage": trials.reward, "return": trials.reward}
    dealt = list(Chunks(trials, extra, 10).deal(64, [torch.Generator().manual_seed(0)]))
    assert all(batch.trials["mask"].any(dim=0).all() for batch in dealt)
    assert sum(batch.trials["mask"].sum() for batch in dealt) == trials.mask.sum()
