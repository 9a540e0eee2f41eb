"""The evaluation protocol: its intervals, its references, and several training seeds."""

import json

import numpy as np
import pytest
import torch

import sim
from runtime.errors import InvalidConfig
from runtime.spec import MANIFEST
from runtime.store import Store
from sim.change import Change
from training import bootstrap, checkpoint
from training.cli import main
from training.config import MultitaskConfig, NetworkConfig, RL2Config
from training.evaluate import (
    Returns,
    evaluate,
    evaluate_adapting,
    evaluate_references,
    over_seeds,
    usual_episodes,
)
from training.multitask import MultitaskTrainer
from training.reference import load_reference
from training.rl2 import RL2Trainer

FAMILY = "point-nav"  # no physics, and two episodes in a trial
SMALL = {"trials": 4, "threads": 1, "env_steps": 1000}
NETWORK = NetworkConfig(memory_size=8, hidden_sizes=(8,))


def rl2(seed: int = 0, family: str = FAMILY, **settings) -> RL2Trainer:
    return RL2Trainer(
        RL2Config(family=family, seed=seed, network=NETWORK, **(SMALL | settings))  # type: ignore[arg-type]
    )


def multitask(family: str = FAMILY, **settings) -> MultitaskTrainer:
    return MultitaskTrainer(
        MultitaskConfig(family=family, hidden_sizes=(8,), **(SMALL | settings))  # type: ignore[arg-type]
    )


def saved(trainer, folder):
    """A run folder of a trainer after one iteration."""
    trainer.iterate()
    checkpoint.save(folder / "checkpoints", 1, trainer.tensors(), trainer.facts())
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders by name."""
    home = tmp_path_factory.mktemp("runs")
    trainers = {
        "s0": rl2(0),
        "s1": rl2(1),
        "again": rl2(1),
        "discounted": rl2(2, change_probability=0.5),
        "bandit": rl2(3, "bandit"),
        "told": multitask(),
        "untold": multitask(told_share=0.0),
        "told-bandit": multitask("bandit"),
    }
    return {name: saved(trainer, home / name) for name, trainer in trainers.items()}


def test_returns_that_are_all_the_same_have_no_interval():
    found = bootstrap.statistic(np.full(30, -7.0))
    assert (found["mean"], found["ci95"]) == pytest.approx((-7.0, 0.0), abs=1e-12)


def test_two_tasks_are_resampled_to_either_alone():
    assert bootstrap.interval(np.array([0.0, 1.0])) == (0.0, 1.0)  # a quarter of resamples each


def test_the_interval_of_many_tasks_is_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, 900)
    assert bootstrap.statistic(values)["ci95"] == pytest.approx(1.96 * 2 / 30, rel=0.06)


def test_the_interval_is_that_of_drawing_tasks_again_one_by_one():
    values = np.random.default_rng(2).exponential(10, 30)
    rng = np.random.default_rng(3)
    means = [values[rng.integers(30, size=30)].mean() for _ in range(20_000)]
    low, high = bootstrap.interval(values)
    assert (low, high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))), rel=0.02)
    assert high - values.mean() > 1.1 * (values.mean() - low)  # skewed, as the returns are
    assert bootstrap.statistic(values)["ci95"] == (high - low) / 2


def test_what_is_particular_to_a_seed_is_not_averaged_away_over_tasks():
    particular = np.array([[0.0], [1.0]]) + np.zeros((2, 30))
    assert bootstrap.interval(particular) == pytest.approx((0.0, 1.0))
    values = np.random.default_rng(4).normal(0, 1, 30)
    alone = bootstrap.interval(values)
    assert bootstrap.interval(np.stack([values] * 3)) == pytest.approx(alone)


def test_seeds_and_tasks_are_drawn_again_together():
    rng = np.random.default_rng(5)
    values = rng.normal(0, 3, (4, 1)) + rng.normal(0, 5, (1, 20)) + rng.normal(0, 1, (4, 20))
    means = [
        values[np.ix_(rng.integers(4, size=4), rng.integers(20, size=20))].mean()
        for _ in range(20_000)
    ]
    expected = tuple(np.percentile(means, (2.5, 97.5)))
    assert bootstrap.interval(values) == pytest.approx(expected, abs=0.1)


def test_a_summary_is_per_episode_and_the_same_each_time():
    values = np.random.default_rng(6).normal(size=(2, 12))
    returns = Returns(values)
    assert returns.summary() == [bootstrap.statistic(row) for row in values]
    assert returns.summary() == over_seeds([returns])
    both = over_seeds([returns, Returns(values + 2)])
    assert [s["mean"] for s in both] == pytest.approx(list(values.mean(1) + 1))


@pytest.mark.parametrize("family", sim.names())
def test_four_episodes_are_played_where_a_trial_has_several(family):
    of_a_trial = sim.family(family).episodes
    assert usual_episodes(family) == (1 if of_a_trial == 1 else max(4, of_a_trial))


def test_the_reference_that_is_told_acts_on_the_same_tasks():
    policy, told = rl2().policy, multitask().policy
    found = evaluate(policy, FAMILY, tasks=5, seed=3, threads=1, reference=told)
    alone = evaluate_references(told, FAMILY, tasks=5, seed=3, threads=1)
    assert [name for name, _ in found.rows()] == [
        "adapting", "told the task", "memory cleared", "random actions",
    ]  # fmt: skip
    assert found.task_told is not None
    np.testing.assert_array_equal(found.task_told.values, alone.told.values)
    np.testing.assert_array_equal(found.random.values, alone.random.values)
    adapting = evaluate_adapting(policy, FAMILY, tasks=5, seed=3, threads=1)
    np.testing.assert_array_equal(adapting.values, found.adapting.values)
    assert adapting.values.shape == (4, 5)
    assert len({float(r.values.sum()) for _, r in found.rows()}) == 4


def test_start_states_are_none_of_training(monkeypatch):
    """Seed for seed: an environment to train in does not start where evaluation does."""
    starts, make = [], sim.make

    def spying(*arguments, **settings):
        env = make(*arguments, **settings)
        starts.append(env)
        return env

    monkeypatch.setattr(sim, "make", spying)
    evaluate_adapting(rl2().policy, FAMILY, tasks=2, seed=0, threads=1)
    *training, evaluating = (env.np_random.bit_generator.seed_seq.entropy for env in starts)
    assert set(training) == {0} and evaluating not in range(10_000)


def test_nobody_is_told_what_a_task_changes_to():
    with pytest.raises(InvalidConfig, match="is told the task that a trial starts with"):
        evaluate(
            rl2().policy, FAMILY, tasks=2, changes=[Change((5, 5))], reference=multitask().policy
        )


def test_evaluation_computes_in_full_precision_whatever_the_learner_does():
    policy, seen = rl2().policy, set()
    policy.action_head.register_forward_pre_hook(
        lambda *_: seen.add(torch.get_float32_matmul_precision())
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        evaluate(policy, FAMILY, tasks=2, threads=1)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == {"highest"}


def test_a_reference_is_loaded_with_its_origin(runs):
    reference = load_reference(runs["told"], FAMILY)
    assert reference.origin["seed"] == 0 and reference.origin["env_steps"] > 0
    assert {"command", "commit"} <= reference.origin.keys()


def test_evaluate_shows_the_mean_over_seeds_and_each_of_them(runs, capsys):
    told = ["--reference", str(runs["told"]), "--tasks", "4"]
    assert main(["evaluate", str(runs["s0"]), str(runs["s1"]), *told]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "mean over 2 training seeds" in said and "told the" in said and "episode 4" in said
    assert said.count("seed 0") == said.count("seed 1") == 1
    assert main(["evaluate", str(runs["told"]), "--tasks", "4"]) == 0
    assert "not told" in capsys.readouterr().out


def test_an_export_records_the_reference_and_the_other_seeds(runs, tmp_path):
    beside = ["--reference", str(runs["told"]), "--seeds", str(runs["s1"])]
    into = ["--into", str(tmp_path / "models"), "--tasks", "4"]
    assert main(["export", str(runs["s0"]), "--name", "mine", *into, *beside]) == 0
    store = Store(tmp_path / "models")
    manifest, folder = store.manifest("mine"), store.find("mine")
    found, provenance = manifest.evaluation, manifest.provenance
    assert found.seeds == [0] and len(found.episodes) == len(found.task_told) == 4
    assert found.task_told[0].mean != found.cleared_memory[0].mean
    assert provenance["reference"]["env_steps"] > 0
    (other,) = provenance["seeds"]
    assert other["seed"] == 1 and other["env_steps"] > 0
    pooled = provenance["over_seeds"]
    assert pooled["seeds"] == [0, 1]
    for k in range(4):
        mean = (found.episodes[k].mean + other["episodes"][k]["mean"]) / 2
        assert pooled["episodes"][k]["mean"] == pytest.approx(mean)
    card = (folder / "README.md").read_text()
    for stat in (found.task_told[0], found.episodes[3]):
        assert f"{stat.mean:.1f} ± {stat.ci95:.1f}" in card
    assert "| told the task |" in card and "| mean of seeds 0, 1 |" in card
    assert str(runs["s0"].parent) not in (folder / MANIFEST).read_text()


def test_an_export_without_them_says_nothing_of_them(runs, tmp_path):
    models = ["--into", str(tmp_path), "--tasks", "2"]
    assert main(["export", str(runs["s0"]), "--name", "mine", *models]) == 0
    facts = json.loads((tmp_path / "mine" / "1" / MANIFEST).read_text())
    assert facts["evaluation"]["task_told"] == []
    assert not {"seeds", "over_seeds", "reference"} & facts["provenance"].keys()
    card = (tmp_path / "mine" / "1" / "README.md").read_text()
    assert "told the task |" not in card and "other seeds" not in card


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["evaluate"], "name a run folder"),
        (["evaluate", "s1", "again"], "have the same seed, 1"),
        (["evaluate", "s0", "s0"], "have the same seed, 0"),
        (["evaluate", "s0", "bandit"], "family (point-nav and bandit)"),
        (["evaluate", "s0", "told"], "is a run of 'rl2' and"),
        (["evaluate", "s0", "discounted"], "in change_probability (0.0 and 0.5)"),
        (["evaluate", "s0", "s1", "--change", "5"], "name one run folder"),
        (["evaluate", "s0", "--reference", "nowhere"], "there is no run folder"),
        (["evaluate", "s0", "--reference", "s1"], "is a run of 'rl2', which is not told the task"),
        (
            ["evaluate", "s0", "--reference", "told-bandit"],
            "was trained on 'bandit', expected 'point-nav'",
        ),
        (["evaluate", "s0", "--reference", "untold"], "its told_share is 0"),
        (["evaluate", "told", "--reference", "told"], "is a reference itself"),
        (["export", "s0", "--name", "x", "--seeds", "again", "s1"], "have the same seed, 1"),
        (["export", "s0", "--name", "x", "--reference", "s1"], "which is not told the task"),
        (["export", "told", "--name", "x"], "whose policy does not adapt"),
    ],
)
def test_bad_commands_get_one_sentence(runs, tmp_path, capsys, arguments, complaint):
    given = [str(runs.get(a, a)) for a in arguments]
    into = ["--into", str(tmp_path / "models")] if arguments[0] == "export" else []
    assert main([*given, *into]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1
    assert not (tmp_path / "models").exists()
