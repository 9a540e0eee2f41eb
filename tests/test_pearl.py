"""PEARL as a whole: its gradient step, what it collects, resuming, and that it learns to adapt."""

import copy
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.distributions import Normal, kl_divergence

import sim
from benchmarks.pearl_loop import LoopNetworks
from runtime.errors import InvalidConfig, TrainingDiverged
from tests.hidden_target import NAME
from training import checkpoint
from training.cli import main
from training.evaluate import evaluate
from training.methods import load_trainer
from training.pearl import PEARLTrainer, build_policy, training_tasks
from training.pearl_acting import sampled, streaming
from training.pearl_config import ContextNetworkConfig, PEARLConfig, SACConfig
from training.pearl_learner import TERMS
from training.pearl_play import play
from training.pearl_presets import pearl_paper
from training.posterior import product
from training.replay_buffer import Transitions
from training.train import Run, train
from training.trials import MetaInput

QUIET = Console(quiet=True)
NETWORK = ContextNetworkConfig(
    latent=2, context=8, encoder_sizes=(8,), actor_sizes=(8,), critic_sizes=(8,)
)


def small(family="point-nav", **changes) -> PEARLConfig:
    """A configuration that takes a second."""
    base = {
        "family": family, "env_steps": 6000, "threads": 1, "tasks": 6, "meta_batch": 3,
        "gradient_steps": 5, "visits": 4, "prior_episodes": 1, "posterior_episodes": 2,
        "recent_steps": 50, "checkpoint_every": 2, "network": NETWORK, "sac": SACConfig(batch=6),
    }  # fmt: skip
    return PEARLConfig.model_validate(base | changes)


def telling(**changes) -> PEARLConfig:
    return small(privileged_critic=True, task_coef=0.7, **changes)


@pytest.mark.parametrize("config", [small(varied_context=False), telling(varied_context=False)])
def test_one_pass_over_all_tasks_is_the_loop_over_them(config):
    """Losses, and gradients of what is shared, against plain modules task by task."""
    torch.set_float32_matmul_precision("highest")
    trainer = PEARLTrainer(config)
    trainer.iterate()
    torch.set_float32_matmul_precision("highest")
    learner, batch = trainer.learner, trainer.batch()
    tasks, size = batch.steps.reward.shape[:2]
    losses = learner.losses(batch, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)  # and the same noise again, dealt out to tasks
    of_z = torch.randn(tasks, 2, generator=generator)
    of_actions = torch.randn(2, tasks * size, 2, generator=generator).view(2, tasks, size, 2)
    loop = LoopNetworks(learner)
    found = [
        loop.losses(
            Transitions(*(part[k] for part in vars(batch.steps).values())),
            Transitions(*(part[k] for part in vars(batch.context).values())),
            batch.task[k],
            (of_z[k], of_actions[0, k], of_actions[1, k]),
        )
        for k in range(tasks)
    ]
    assert list(losses) == learner.terms()
    expected = {}
    for name, loss in losses.items():
        terms = torch.stack([each[name] for each in found])
        expected[name] = terms.sum() if name == "kl" else terms.mean()
        torch.testing.assert_close(loss, expected[name], rtol=2e-4, atol=1e-4)
    for terms in (losses, expected):
        sum(terms.values()).backward()
    for (name, ours), theirs in zip(
        learner.policy.named_parameters(), loop.policy.parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_actor_does_not_train_the_encoder_nor_the_critics():
    trainer = PEARLTrainer(small())
    trainer.iterate()
    trainer.learner.losses(trainer.batch(), trainer.generator)["actor"].backward()
    trained = {n.split(".")[0] for n, p in trainer.learner.named_parameters()
               if p.grad is not None and p.grad.any()}  # fmt: skip
    actor = {n for n, p in trainer.policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {"policy"} and all(n.startswith("actor.") for n in actor)


def test_with_a_task_encoder_a_context_only_learns_what_the_task_says():
    trainer = PEARLTrainer(telling(task_encoder=True))
    trainer.iterate()
    learner, batch = trainer.learner, trainer.batch()
    losses = learner.losses(batch, torch.Generator().manual_seed(1))
    assert list(losses) == learner.terms() == list(TERMS)
    trained = {}
    for term, loss in losses.items():
        learner.zero_grad()
        loss.backward(retain_graph=True)
        trained[term] = {
            ".".join(name.split(".")[: 2 if name.startswith("policy") else 1])
            for name, p in learner.named_parameters()
            if p.grad is not None and p.grad.any()
        }
    assert trained["actor"] == {"policy.actor"} and trained["critic"] == {"critic"}
    assert trained["kl"] == {"task_encoder"} and trained["task"] == {"task_encoder", "task_head"}
    assert trained["match"] == {"policy.encoder"}
    context = batch.context
    read = learner.policy.transition(
        context.observation, context.action, context.seen_reward, context.next_observation
    )
    inferred = product(*learner.policy.encoder(read), mask=batch.counted)
    told = learner.task_encoder(batch.task)
    one, other = (Normal(mean, variance.sqrt()) for mean, variance in (told, inferred))
    torch.testing.assert_close(losses["match"], kl_divergence(one, other).sum(1).mean())


def test_context_that_does_not_count_changes_nothing():
    trainer = PEARLTrainer(small())
    trainer.iterate()
    batch = trainer.batch()
    assert batch.counted is not None and batch.counted[:, 0].all() and not batch.counted.all()
    spoilt = copy.deepcopy(batch)
    for part in vars(spoilt.context).values():
        part[~batch.counted.expand(part.shape)] = 1e3
    one, other = (
        trainer.learner.losses(each, torch.Generator().manual_seed(0)) for each in (batch, spoilt)
    )
    for name, loss in one.items():
        torch.testing.assert_close(loss, other[name], msg=name)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("config", [telling(), small("halfcheetah-vel", env_steps=9000)])
def test_resumed_training_is_the_uninterrupted_one_to_the_bit(tmp_path, config):
    whole = PEARLTrainer(config)
    train(whole, tmp_path / "whole", QUIET)
    first = PEARLTrainer(config)
    for _ in range(2):
        first.iterate()
    checkpoint.save(Run(tmp_path / "halves").checkpoints, 2, first.tensors(), first.facts())
    halves = PEARLTrainer(config)
    train(halves, tmp_path / "halves", QUIET, resume=True)
    assert whole.iteration > 3 and halves.facts() == whole.facts()
    assert same(halves.tensors(), whole.tensors())
    assert same(load_trainer(tmp_path / "whole").tensors(), whole.tensors())


def test_a_nan_stops_training_and_is_named():
    trainer = PEARLTrainer(small())
    trainer.iterate()
    trainer.replay.rows.fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="critic loss is not finite at iteration 1"):
        trainer.iterate()
    trainer = PEARLTrainer(small())
    trainer.policy.actor[0].weight.data.fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match=r"policy's actor.0.weight is not finite"):
        trainer.iterate()
    trainer = PEARLTrainer(small())
    trainer.iterate()
    trainer.env.family.reward = lambda world, action: np.full(4, np.nan)
    with pytest.raises(TrainingDiverged, match=r"in simulation 0 \(goal_x .* reward is not finite"):
        trainer.iterate()


def test_what_was_seen_is_kept_by_task_and_steps_after_the_end_are_not():
    """point-nav ends on arrival: with goals where it starts, after one step that stays there."""
    trainer = PEARLTrainer(small(tasks=3, visits=3))
    trainer.tasks = {"goal_x": np.array([0.0, 0.4, -0.4]), "goal_y": np.zeros(3)}
    trainer.policy.actor[-1].weight.data.zero_()
    trainer.policy.actor[-1].bias.data = torch.tensor([0.0, 0.0, -20.0, -20.0])
    visited = np.array([2, 0, 1])
    episodes = trainer._visit(trainer.env, visited, trainer.ways, np.random.default_rng(0))
    assert [e.way for e in episodes] == ["prior", "streaming", "streaming"]
    assert [e.made.sum(0).tolist() for e in episodes] == [[100, 1, 100]] * 3
    assert trainer.replay.added.tolist() == [3, 300, 300]
    assert trainer.recent.filled.tolist() == [3, 50, 50]
    steps = trainer.layout.split(trainer.replay.rows)
    assert steps.terminated[0, :3].all() and not steps.terminated[1:].any()
    assert steps.reward[1, :300].squeeze().tolist() == pytest.approx([-0.4] * 300)
    assert episodes[0].returns.tolist() == pytest.approx([-40, 0, -40], abs=1e-6)


def test_a_robot_s_reward_is_the_evidence_and_the_other_what_is_learned_from():
    trainer = PEARLTrainer(small("point-sparse"))
    trainer.iterate()
    steps = trainer.layout.split(trainer.recent.rows[0, : trainer.recent.filled[0]])
    distance = -steps.reward
    expected = torch.where(distance <= 0.2, 1 - distance, 0.0)
    torch.testing.assert_close(steps.seen_reward, expected)
    batch = trainer.batch()
    before = trainer.learner._infer(batch, torch.Generator().manual_seed(0))[0]
    batch.context.reward.fill_(99.0)
    assert torch.equal(trainer.learner._infer(batch, torch.Generator().manual_seed(0))[0], before)


def test_acting_on_samples_keeps_to_one_for_an_episode():
    """Without noise in the actor, the point walks straight while z stays."""
    policy = build_policy(small("point-sparse"))
    policy.normalise = False
    policy.actor = torch.nn.Sequential(torch.nn.Linear(4, 4))
    policy.actor[0].weight.data = torch.zeros(4, 4)
    policy.actor[0].weight.data[0, 2] = policy.actor[0].weight.data[1, 3] = 1.0  # the mean is z
    policy.actor[0].bias.data = torch.tensor([0.0, 0.0, -20.0, -20.0])
    family = sim.family("point-sparse")
    for ways in (["prior", "prior", "prior"], ["prior", "sampled", "sampled"]):
        env = sim.make("point-sparse", 5, 1, 0, 3)
        episodes = play(env, policy, family.held_out(5), ways, torch.Generator().manual_seed(0))
        walked = [e.rows[..., 2:4] for e in episodes]  # (T, B, 2)
        for actions in walked:
            torch.testing.assert_close(actions, actions[:1].expand_as(actions))
        assert (walked[0][0] != walked[1][0]).all() and (walked[1][0] != walked[2][0]).all()


@pytest.mark.parametrize("next_observation", [False, True])
@torch.no_grad()
def test_a_robot_s_belief_is_the_product_over_its_last_transitions(next_observation):
    """Two episodes of five steps with a context of 8; against one product over all of them."""
    torch.manual_seed(0)
    network = NETWORK.model_copy(update={"next_observation": next_observation})
    policy = build_policy(small("point-nav", network=network))
    acting, meta = streaming(policy, 3), MetaInput(3, 2)
    obs, rewards = torch.randn(11, 3, 2), np.random.default_rng(0).normal(size=(10, 3))
    state, actions = acting.start, []
    for t in range(11):
        action, state = acting.act(obs[t], meta, state)
        actions.append(torch.from_numpy(action))
        if t < 10:
            meta.advance(action, rewards[t], np.full(3, t == 4))
    made = [t for t in range(10) if not (next_observation and t == 4)][-8:]
    rows = policy.transition(
        obs[made],
        torch.stack(actions)[made],
        torch.from_numpy(rewards[made]).float().unsqueeze(2),
        obs[[t + 1 for t in made]],
    )
    mean, variance = product(*policy.encoder(rows), dim=0)
    torch.testing.assert_close(state.posterior.mean_and_variance(), (mean, variance))
    expected = policy.act(obs[10], mean)[0].tanh()
    torch.testing.assert_close(actions[10], expected)


@torch.no_grad()
def test_a_sample_is_drawn_anew_where_an_episode_begins_and_nowhere_else():
    policy, meta = build_policy(small()), MetaInput(4, 2)
    acting = sampled(policy, 4, seed=0)
    state, held = acting.start, []
    for t in range(6):
        _, state = acting.act(torch.zeros(4, 2), meta, state)
        held.append(state.z)
        meta.advance(np.zeros((4, 2)), np.zeros(4), np.array([t == 2, False, t == 2, False]))
    changed = [(after != before).all(1).tolist() for before, after in pairwise(held)]
    never = [False] * 4
    assert changed == [never, never, [True, False, True, False], never, never]


def test_training_tasks_differ_and_are_none_of_the_held_out():
    vel = sim.family("halfcheetah-vel")
    tasks = training_tasks(vel, 100, seed=3)["target_velocity"]
    assert len(set(tasks)) == 100
    assert not set(tasks) & set(vel.held_out(100, seed=3)["target_velocity"])
    assert sorted(training_tasks(sim.family("halfcheetah-dir"), 100, 0)["direction"]) == [-1, 1]


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(InvalidConfig, match="nothing trains the context encoder"):
        small(privileged_critic=True)
    with pytest.raises(InvalidConfig, match="nothing trains the context encoder"):
        small(task_encoder=True)
    with pytest.raises(InvalidConfig, match="a context of 8 transitions does not fit into 7"):
        small(recent_steps=7)


def test_one_rank_trains_it(capsys):
    assert main(["train", "pearl", "point-nav", "--ranks", "2"]) == 2
    assert "trained by one rank alone, not by 2" in capsys.readouterr().err


def test_the_published_settings():
    vel, direction = pearl_paper("halfcheetah-vel"), pearl_paper("halfcheetah-dir")
    assert (vel.meta_batch, vel.sac.batch, vel.network.context) == (16, 256, 100)
    assert (vel.prior_episodes, vel.posterior_episodes, vel.visits) == (2, 3, 5)
    assert (vel.gradient_steps, vel.initial_episodes, vel.recent_steps) == (2000, 10, 400)
    assert vel.network.encoder_sizes == (200,) * 3 and vel.network.actor_sizes == (300,) * 3
    assert not vel.privileged_critic and not vel.task_coef and vel.acting == "sampled"
    assert (direction.meta_batch, direction.network.context) == (4, 256)
    assert pearl_paper("walker-rand-params").network.next_observation
    assert not vel.network.next_observation


def test_bench_tells_where_the_time_goes(capsys):
    small = ["--gradient-steps", "3", "--visits", "2", "--batch", "4", "--threads", "1"]
    assert main(["bench", "pearl", "point-nav", "--iterations", "1", *small]) == 0
    said = capsys.readouterr().out
    shares = [float(x) for x in re.findall(r"share of the time\s+(-?[\d.]+)", said)]
    assert "gradient steps/s" in said and len(shares) == 7
    assert sum(shares) == pytest.approx(100, abs=0.5) and min(shares) >= -0.1


TELLING = {"privileged_critic": True, "task_coef": 1.0, "kl_coef": 0.005}


@pytest.mark.parametrize("trained_by", [TELLING, {"kl_coef": 0.01}], ids=["task", "critics"])
def test_a_hidden_number_is_found_and_the_posterior_is_what_finds_it(trained_by):
    """Saying 0 loses 0.5 per step in the mean, saying the number nothing."""
    network = ContextNetworkConfig(
        latent=2, context=10, encoder_sizes=(64, 64), actor_sizes=(64, 64), critic_sizes=(64, 64)
    )
    config = small(
        NAME, tasks=50, meta_batch=16, gradient_steps=100, visits=20, initial_episodes=5,
        posterior_episodes=1, recent_steps=100, network=network,
        sac=SACConfig(batch=16, discount=0.5, learning_rate=1e-3), **trained_by,
    )  # fmt: skip
    trainer = PEARLTrainer(config)
    for _ in range(8):
        trainer.iterate()
    found = evaluate(trainer.policy, NAME, tasks=100, episodes=3, threads=1)
    best = 3 * 10 * sim.family(NAME).held_out(100)["target"]
    streaming, sampled, cleared, _ = ((r.values - best).mean(1) for _, r in found.rows())
    assert cleared.mean() < -4
    assert streaming.mean() > -2
    assert sampled[0] < -4 and sampled[1:].mean() > -2


def test_a_run_ends_in_an_evaluation_of_both_modes_and_a_bundle(tmp_path, capsys):
    run = tmp_path / "run"
    small = ["--env-steps", "3000", "--tasks", "4", "--visits", "2", "--gradient-steps", "2"]
    small += ["--batch", "4", "--threads", "1", "--run", str(run)]
    assert main(["train", "pearl", "point-sparse", *small]) == 0
    said = capsys.readouterr().out
    assert "adapting" in said and "sampling per episode" in said
    acting = json.loads((run / "evaluation.json").read_text())["acting"]
    assert [len(acting[mode]["summary"]) for mode in ("adapting", "sampling per episode")] == [4, 4]
    assert (run / "curve.png").exists() and (run / "bundle" / "point-sparse-pearl" / "1").exists()
    assert main(["evaluate", str(run), "--tasks", "4"]) == 0
