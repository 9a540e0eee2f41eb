"""Evaluation of adaptation: return per episode on held-out tasks, beside what cannot adapt.

Protocol: `tasks` held-out tasks, one trial of `episodes` episodes each, deterministic
actions, the memory kept across episodes. References on the same tasks and start states: the
same policy with its memory cleared before every step, uniformly random actions, and, where one
is given, a policy that is told the task. Changes of task, where asked for, come at the same
steps and to the same tasks in all of them. docs/evaluation.md says what each means.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import sim
from runtime.errors import InvalidConfig
from sim.change import Change
from sim.family import HELD_OUT_STREAM
from training import bootstrap
from training.acting import Acting, deterministic, uniform
from training.evaluate_change import AroundChange, around_changes
from training.multitask import TaskConditionedPolicy
from training.networks import RecurrentPolicy
from training.pearl_acting import sampled, streaming
from training.pearl_doubt import calibrated
from training.pearl_networks import ContextPolicy
from training.trials import MetaInput

P = TypeVar("P", bound=nn.Module)


@dataclass(frozen=True)
class Returns:
    """Returns per episode (episodes, tasks), of one way of acting."""

    values: NDArray[np.float64]
    around_changes: tuple[AroundChange, ...] = ()

    def summary(self) -> list[dict[str, float]]:
        """Mean over tasks, with half the width of its bootstrapped 95 % interval, per episode."""
        return over_seeds([self])


def over_seeds(returns: Sequence[Returns]) -> list[dict[str, float]]:
    """As `Returns.summary`, of several training seeds on the same tasks."""
    values = np.stack([r.values for r in returns])  # (seeds, episodes, tasks)
    return [bootstrap.statistic(values[:, episode]) for episode in range(values.shape[1])]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured."""

    tasks: int
    seed: int
    adapting: Returns
    cleared_memory: Returns
    random: Returns
    task_told: Returns | None = None
    """Of another policy, which is told the task; None where there is none."""
    sampled: Returns | None = None
    """Of the policy acting on samples of its belief, one per episode; None if it cannot."""

    def rows(self) -> list[tuple[str, Returns]]:
        """The ways of acting, named for a table."""
        sampled = [] if self.sampled is None else [("sampling per episode", self.sampled)]
        told = [] if self.task_told is None else [("told the task", self.task_told)]
        return [
            ("adapting", self.adapting),
            *sampled,
            *told,
            ("memory cleared", self.cleared_memory),
            ("random actions", self.random),
        ]


@dataclass(frozen=True)
class References:
    """What `evaluate_references` measured."""

    tasks: int
    seed: int
    told: Returns
    not_told: Returns
    random: Returns

    def rows(self) -> list[tuple[str, Returns]]:
        """The three ways of acting, named for a table."""
        return [
            ("told the task", self.told),
            ("not told", self.not_told),
            ("random actions", self.random),
        ]


def evaluate(
    policy: RecurrentPolicy | ContextPolicy,
    family: str,
    tasks: int = 30,
    episodes: int | None = None,
    seed: int = 0,
    threads: int = 2,
    changes: Sequence[Change] = (),
    reference: TaskConditionedPolicy | None = None,
) -> Evaluation:
    """Measure a policy and its references on held-out tasks; see the module.

    Args:
        policy: the policy to evaluate.
        family: task family to evaluate on.
        tasks: number of held-out tasks.
        episodes: episodes per task; None is `usual_episodes`.
        seed: of the held-out tasks and the start states.
        threads: of the simulator.
        changes: of the task inside each trial.
        reference: a policy of the same family that is told the task.

    Raises:
        UnknownName: there is no such family.
        InvalidTask: a change that cannot happen in these trials.
        InvalidConfig: fewer than two tasks, which have no spread, or no episode; a reference
            beside changes, of which it would not be told.
    """
    if changes and reference is not None:
        raise InvalidConfig(
            "the reference is told the task that a trial starts with, not what it changes to: "
            "evaluate with --change or with --reference"
        )
    episodes = _check(family, tasks, episodes)
    trial = _Trial(family, tasks, episodes, seed, threads, tuple(changes))
    with _exact():
        policy = _ready(policy, family, threads)
        adapting = _adapting(policy, tasks)
        return Evaluation(
            tasks,
            seed,
            adapting=trial.returns(adapting),
            cleared_memory=trial.returns(adapting.forgetting()),
            random=trial.returns(uniform(family, tasks, seed)),
            task_told=None if reference is None else _knowing(trial, reference, told=True),
            sampled=(
                trial.returns(sampled(policy, tasks, seed))
                if isinstance(policy, ContextPolicy)
                else None
            ),
        )


def evaluate_adapting(
    policy: RecurrentPolicy | ContextPolicy,
    family: str,
    tasks: int = 30,
    episodes: int | None = None,
    seed: int = 0,
    threads: int = 2,
) -> Returns:
    """As `evaluate`, of the adapting policy alone: the references are those of another seed."""
    trial = _Trial(family, tasks, _check(family, tasks, episodes), seed, threads)
    with _exact():
        return trial.returns(_adapting(_ready(policy, family, threads), tasks))


def evaluate_references(
    policy: TaskConditionedPolicy,
    family: str,
    tasks: int = 30,
    episodes: int | None = None,
    seed: int = 0,
    threads: int = 2,
) -> References:
    """Measure the memoryless references on held-out tasks; arguments and errors as `evaluate`."""
    episodes = _check(family, tasks, episodes)
    trial = _Trial(family, tasks, episodes, seed, threads)
    with _exact():
        return References(
            tasks,
            seed,
            told=_knowing(trial, policy, told=True),
            not_told=_knowing(trial, policy, told=False),
            random=trial.returns(uniform(family, tasks, seed)),
        )


def usual_episodes(family: str) -> int:
    """One where a trial has one, as with bandits; else those of a trial, and four at least."""
    episodes = sim.family(family).episodes
    return 1 if episodes == 1 else max(4, episodes)


@contextmanager
def _exact() -> Iterator[None]:
    """Without gradients, in full float32, whatever a learner in this process computes with."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _ready(
    policy: RecurrentPolicy | ContextPolicy, family: str, threads: int
) -> RecurrentPolicy | ContextPolicy:
    """The policy as a robot would have it."""
    policy = _on_cpu(policy)
    if isinstance(policy, ContextPolicy):
        return calibrated(policy, sim.family(family), threads)
    return policy


def _on_cpu(policy: P) -> P:
    """The policy, or a copy where it is on another device."""
    if all(p.device.type == "cpu" for p in policy.parameters()):
        return policy
    return copy.deepcopy(policy).cpu()


def _check(family: str, tasks: int, episodes: int | None) -> int:
    """How many episodes are played, if that and the tasks make an evaluation."""
    episodes = usual_episodes(family) if episodes is None else episodes
    if tasks < 2 or episodes < 1:
        raise InvalidConfig(
            f"an evaluation takes at least 2 tasks and 1 episode, got {tasks} and {episodes}"
        )
    return episodes


def _adapting(policy: RecurrentPolicy | ContextPolicy, tasks: int) -> Acting:
    """As the policy is served: without noise, from the prior."""
    if isinstance(policy, ContextPolicy):
        return streaming(policy, tasks)
    return deterministic(policy, policy.memory.initial(tasks))


def _knowing(trial: "_Trial", policy: TaskConditionedPolicy, told: bool) -> Returns:
    """Of the task-conditioned policy, all of whose robots are told their task, or none."""
    family, policy = sim.family(trial.family), _on_cpu(policy)
    features = torch.from_numpy(family.task_features(family.held_out(trial.tasks, trial.seed)))
    carry = policy.told(features, torch.full((trial.tasks, 1), float(told)))
    return trial.returns(deterministic(policy, carry))


@dataclass(frozen=True)
class _Trial:
    """One trial of `episodes` episodes on each of `tasks` held-out tasks."""

    family: str
    tasks: int
    episodes: int
    seed: int
    threads: int
    changes: tuple[Change, ...] = ()

    def returns(self, acting: Acting) -> Returns:
        """Of a way of acting."""
        family, tasks, episodes = self.family, self.tasks, self.episodes
        # Start states from a stream of their own too, whatever seed a training had.
        seed = int(np.random.SeedSequence([HELD_OUT_STREAM, self.seed]).generate_state(1)[0])
        env = sim.make(family, tasks, self.threads, seed, episodes, self.changes, testing=True)
        meta = MetaInput(tasks, len(env.family.action))
        returns = np.zeros((episodes, tasks))
        finished = np.zeros(tasks, bool)
        rewards = []  # per step (tasks,), nan once a trial is over
        obs, info = env.reset(options={"tasks": env.family.held_out(tasks, self.seed)})
        times = env.schedule.times.copy()
        state = acting.start
        while not finished.all():
            action, state = acting.act(torch.from_numpy(obs), meta, state)
            episode = info["episode"]
            obs, reward, terminated, truncated, info = env.step(action)
            done = terminated | truncated
            returns[episode, np.arange(tasks)] += reward * ~finished
            rewards.append(np.where(finished, np.nan, reward))
            meta.advance(env.applied_action, reward, done)
            finished |= done & (episode + 1 >= episodes)
            again = done & ~finished
            if again.any():
                obs, info = env.reset(options={"reset_mask": again})
        return Returns(returns, around_changes(self.changes, times, np.stack(rewards)))


def evaluation_record(evaluation: Evaluation, seeds: list[int], env_steps: int) -> dict[str, Any]:
    """The `evaluation` part of a bundle's manifest."""
    told, sampled = evaluation.task_told, evaluation.sampled
    return {
        "episodes": evaluation.adapting.summary(),
        "cleared_memory": evaluation.cleared_memory.summary(),
        "sampled": [] if sampled is None else sampled.summary(),
        "random": evaluation.random.summary(),
        "task_told": [] if told is None else told.summary(),
        "tasks": evaluation.tasks,
        "seeds": seeds,
        "env_steps": env_steps,
    }
