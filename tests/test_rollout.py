"""Collecting: against a plain loop, over several shards, and with simulator and policy at once."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

import sim
from benchmarks import gpu
from runtime.errors import InvalidTask
from sim.change import Change
from sim.families.bandit import Bandit
from sim.trials import TrialEnv
from training.alternate import alternate, one_after_the_other
from training.config import BeliefConfig, MultitaskConfig, NetworkConfig, PPOConfig
from training.multitask import TaskConditionedPolicy
from training.networks import RecurrentPolicy, RunningNormaliser
from training.ppo import Batch, losses, total_loss
from training.rollout import Shard, collect, one_torch_thread

WAIT_S = 20.0
"""More than a thread ever takes that is alive."""


def sizes(family):
    return len(family.observation), len(family.action), len(family.task_parameters)


def recurrent(family, cell="gru", seed=0):
    torch.manual_seed(seed)
    config = NetworkConfig(cell=cell, memory_size=8, hidden_sizes=(8,))
    policy = RecurrentPolicy(config, *sizes(family), told=True)
    policy.obs_normaliser.update(torch.randn(50, sizes(family)[0]) * 3)
    return policy


def task_conditioned(family):
    torch.manual_seed(0)
    config = MultitaskConfig(family=family.name, hidden_sizes=(8,), told_share=0.5)
    return TaskConditionedPolicy(config, *sizes(family))


def shard(name, n, seed=0, **settings):
    return Shard(sim.make(name, n, seed=seed, **settings), torch.Generator().manual_seed(seed))


def plain(shard, policy, chunk):
    """What `collect` gives of one shard, step by step: (Trials' fields, Final's, carries)."""
    env, n = shard.env, shard.env.num_envs
    rows, carries = [], {}
    std = policy.log_std.detach().exp()
    obs, info = env.reset()
    prev_action, prev = torch.zeros(n, len(env.family.action)), torch.zeros(2, n, 1)
    carry = policy.initial(torch.from_numpy(info["task"]))
    finished = np.zeros(n, bool)
    final = [torch.zeros(n, size) for size in (obs.shape[1], policy.feature_size)]
    final += [torch.from_numpy(info["task"]), torch.zeros(n)]
    while not finished.all():
        if len(rows) % chunk == 0:
            carries[len(rows)] = carry
        seen, task, episode = torch.from_numpy(obs), env.task_features(), info["episode"]
        inputs = seen, prev_action, prev[0], prev[1]
        features, normal, carry = policy.step(*inputs, carry)
        noise = torch.randn(n, len(env.family.action), generator=shard.generator)
        action = policy.action_mean(features, normal) + std * noise
        log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(1) - std.log().sum()
        obs, reward, died, truncated, info = env.step(action.numpy())
        paid = info.get("test_reward", reward)
        told = (task, features, action, log_prob, reward, paid, ~finished, episode)
        rows.append([*inputs, *(torch.as_tensor(x) for x in told)])
        done = died | truncated
        prev_action = torch.from_numpy(env.applied_action.copy())
        prev = torch.from_numpy(np.stack((paid, done)).astype(np.float32)).unsqueeze(2)
        over = done & (episode + 1 == env.episodes) & ~finished
        end = torch.from_numpy(obs)
        memory, _, _ = policy.step(end, prev_action, prev[0], prev[1], carry)
        for kept, x in zip(final, (end, memory, task, died), strict=True):
            kept[over] = torch.as_tensor(x)[over].to(kept.dtype)
        finished |= over
        env.pause(finished)
        if (done & ~finished).any():
            obs, info = env.reset(options={"reset_mask": done & ~finished})
    return [torch.stack(column) for column in zip(*rows, strict=True)], final, carries


def tensors(trials):
    """All of them by name, those in `final` and `carries` too."""
    found = {f.name: getattr(trials, f.name) for f in dataclasses.fields(trials)}
    final, carries = found.pop("final"), found.pop("carries")
    found |= {f"final.{f.name}": getattr(final, f.name) for f in dataclasses.fields(final)}
    return found | {f"{t}.{n}": x for t, carry in carries.items() for n, x in carry.items()}


def assert_same(trials, others):
    one, other = tensors(trials), tensors(others)
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert torch.equal(one[name], other[name]), name


CASES = {
    "halfcheetah-vel": ({"episodes": 2}, recurrent),
    "ant-vel": ({"episodes": 2}, lambda family: recurrent(family, "lstm")),  # ends early
    "bandit": ({"episodes": 3, "changes": Change(share=0.5)}, recurrent),
    "point-sparse": ({}, recurrent),  # learns from another reward than it sees
    "halfcheetah-dir": ({"episodes": 1}, task_conditioned),
}


@pytest.mark.parametrize("name", CASES)
def test_it_collects_what_a_plain_loop_collects(name):
    settings, build = CASES[name]
    policy = build(sim.family(name))
    with torch.no_grad(), one_torch_thread():
        per_step, final, carries = plain(shard(name, 5, **settings), policy, chunk=30)
    trials = collect([shard(name, 5, **settings)], policy, 30)
    expected = dict(
        zip(
            ("obs", "prev_action", "prev_reward", "prev_done", "task", "features", "action",
             "log_prob", "reward", "seen_reward", "mask", "episode"),
            per_step, strict=True,
        )
    )  # fmt: skip
    expected |= dict(
        zip(("final.obs", "final.features", "final.task", "final.terminated"), final, strict=True)
    )
    expected |= {f"{t}.{name}": x for t, carry in carries.items() for name, x in carry.items()}
    found = tensors(trials)
    torch.testing.assert_close(found.pop("log_prob"), expected.pop("log_prob"))
    assert set(found) == set(expected)
    for what, values in expected.items():
        assert torch.equal(found[what], values.to(found[what].dtype)), what
    assert found["mask"].dtype == found["reward"].dtype == torch.float32


class Countdown(Bandit):
    """Simulation i ends after i + 1 steps of 9; the observation counts them."""

    def step(self, world, action):
        world.last_reward += 1

    def terminated(self, world):
        return world.last_reward > np.arange(len(world.last_reward))

    def observe(self, world):
        return world.last_reward[:, None].astype(np.float32)


def countdown(n, seed):
    env = TrialEnv(Countdown(horizon=9), n, seed=seed, episodes=2)
    return Shard(env, torch.Generator().manual_seed(seed))


def test_several_shards_give_the_trials_of_each_side_by_side():
    policy = recurrent(sim.family("ant-vel"))

    def shards():
        return [shard("ant-vel", n, seed, episodes=1) for seed, n in enumerate((3, 1, 2))]

    together = tensors(collect(shards(), policy, 50))
    apart = [tensors(collect([one], policy, 50)) for one in shards()]
    columns = 0
    for one in apart:
        steps, n = one["mask"].shape
        for name, values in one.items():
            per_step = "." not in name
            found = (
                together[name][:steps, columns:][:, :n]
                if per_step
                else together[name][columns:][:n]
            )
            assert torch.equal(found, values), name
            assert not per_step or not together[name][steps:, columns:][:, :n].any()
        columns += n
    assert together["mask"].shape == (max(len(one["mask"]) for one in apart), 6)


def test_a_shard_that_ends_before_the_others_is_masked_after_its_end():
    policy = recurrent(Countdown(horizon=9))
    trials = collect([countdown(1, 0), countdown(4, 1)], policy, 3)
    assert trials.mask.sum(0).tolist() == [2, 2, 4, 6, 8]
    assert trials.final.obs[:, 0].tolist() == [1, 1, 2, 3, 4]
    assert list(trials.carries) == [0, 3, 6]
    assert all(carry["h"].shape == (5, 8) for carry in trials.carries.values())


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ["halfcheetah-vel", "ant-vel"])
def test_what_is_collected_does_not_depend_on_the_overlap(name, count):
    policy = recurrent(sim.family(name))
    runs = [
        collect([shard(name, 4, seed, episodes=1) for seed in range(count)], policy, 50, overlap)
        for overlap in (False, True, None)
    ]
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


class Steps:
    """A group of `count` steps that writes down what it does, and where."""

    def __init__(self, name, count, journal):
        self.name, self.left, self.journal = name, count, journal

    @property
    def finished(self):
        return self.left == 0

    def infer(self):
        self.journal.append((self.name, "infer", threading.current_thread()))

    def simulate(self):
        self.left -= 1
        self.journal.append((self.name, "simulate", threading.current_thread()))


def test_one_group_is_simulated_while_another_is_inferred_for():
    inferred = threading.Event()

    class First(Steps):
        def simulate(self):
            assert inferred.wait(WAIT_S)  # in this very step, for the other group
            super().simulate()

    class Second(Steps):
        def infer(self):
            super().infer()
            inferred.set()

    journal = []
    alternate([First("a", 1, journal), Second("b", 1, journal)])
    assert {(name, what) for name, what, _ in journal} == {
        (name, what) for name in "ab" for what in ("infer", "simulate")
    }


@pytest.mark.parametrize("drive", [alternate, one_after_the_other])
def test_each_group_infers_and_simulates_in_turn_until_it_is_finished(drive):
    journal, counts = [], {"a": 3, "b": 0, "c": 5}
    drive([Steps(name, count, journal) for name, count in counts.items()])
    for name, count in counts.items():
        assert [what for n, what, _ in journal if n == name] == ["infer", "simulate"] * count
    here = {what for _, what, thread in journal if thread is threading.current_thread()}
    assert here == ({"infer"} if drive is alternate else {"infer", "simulate"})
    assert len({thread for _, what, thread in journal if what == "simulate"}) == 1


def spoilt(step, simulations):
    """A shard whose reward is not a number at a step, in some simulations."""
    one = shard("halfcheetah-vel", 9, episodes=1)
    reward, steps = one.env.family.reward, iter(range(200))

    def spoil(world, action):
        values = reward(world, action)
        if next(steps) == step:
            values[simulations] = np.nan
        return values

    one.env.family.reward = spoil
    return one


@pytest.mark.parametrize("overlap", [False, True])
def test_a_simulation_that_explodes_is_named_with_its_task_and_step(overlap):
    policy, threads = recurrent(sim.family("halfcheetah-vel")), threading.enumerate()
    broken = spoilt(7, [2, 4])
    with pytest.raises(FloatingPointError) as caught:
        collect([shard("halfcheetah-vel", 2, episodes=1), broken], policy, 50, overlap)
    tasks = broken.env.tasks["target_velocity"]
    assert str(caught.value) == (
        f"at step 7 of the trial, in simulation 2 (target_velocity {tasks[2]:.4g}), "
        f"4 (target_velocity {tasks[4]:.4g}), the simulator's reward"
    )
    with pytest.raises(FloatingPointError, match=r"\) and 4 more, the simulator's reward"):
        collect([spoilt(0, slice(None))], policy, 50, overlap)
    assert threading.enumerate() == threads


@pytest.mark.parametrize("overlap", [False, True])
def test_actions_that_are_not_finite_are_refused_as_ever(overlap):
    policy, threads = recurrent(sim.family("halfcheetah-vel")), threading.enumerate()
    policy.action_head[0].bias.data.fill_(torch.nan)
    shards = [shard("halfcheetah-vel", 2, seed, episodes=1) for seed in range(2)]
    with pytest.raises(InvalidTask, match=r"the actions of \[0, 1\] are not finite"):
        collect(shards, policy, 50, overlap)
    assert threading.enumerate() == threads


def test_torch_has_one_thread_while_it_collects_and_its_own_again_afterwards():
    policy, seen = recurrent(sim.family("bandit")), set()
    step = policy.step
    policy.step = lambda *inputs: (seen.add(torch.get_num_threads()), step(*inputs))[1]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        collect([shard("bandit", 2)], policy, 50)
        assert torch.get_num_threads() == 2
        with pytest.raises(FloatingPointError):
            collect([spoilt(0, [0])], recurrent(sim.family("halfcheetah-vel")), 50)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


@pytest.mark.parametrize("build", [recurrent, lambda f: recurrent(f, "lstm"), task_conditioned])
def test_all_that_a_policy_computes_is_on_its_device(build):
    """The device "meta" has shapes alone, and refuses to compute with tensors of another."""
    family = sim.family("halfcheetah-vel")
    policy, meta = build(family).to("meta"), torch.device("meta")
    obs, action, task = sizes(family)

    def some(*shape):
        return torch.zeros(*shape, device=meta)

    carry = policy.initial(some(6, task))
    inputs = some(4, 6, obs), some(4, 6, action), some(4, 6, 1), some(4, 6, 1)
    features, seen, after = policy.remember(*inputs, carry)
    _, _, one_step = policy.step(*(x[0] for x in inputs), carry)
    value = policy.value(features, seen, some(4, 6, task))
    mean = policy.action_mean(features, seen)
    results = [features, seen, value, mean, *carry.values(), *after.values(), *one_step.values()]
    names = ("obs", "prev_action", "prev_reward", "prev_done")
    x = dict(zip(names, inputs, strict=True))
    x |= {"task": some(4, 6, task), "action": some(4, 6, action)}
    x |= {name: some(4, 6) for name in ("mask", "log_prob", "advantage", "return", "value")}
    belief = BeliefConfig() if isinstance(policy, RecurrentPolicy) else None
    terms = losses(policy, Batch(x, carry, steps=24.0), PPOConfig(), belief)
    total_loss(terms, PPOConfig(), belief).backward()
    results += [*terms.values(), *(p.grad for p in policy.parameters() if p.grad is not None)]
    for rare in (False, True):
        normaliser = RunningNormaliser(obs, rare=rare).to(meta)
        normaliser.update(some(10, obs))
        results += [normaliser(some(3, obs)), normaliser.mean, normaliser.std]
    assert {tensor.device for tensor in results} == {meta}


def test_the_gpu_benchmark_compares_a_device_with_the_cpu(capsys):
    """With the CPU itself, where there is no GPU to try it on."""
    gpu.main("bandit", trials=4, threads=1, repeats=1, device="cpu")
    assert capsys.readouterr().out.count("as they should be") == 2
