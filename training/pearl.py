"""PEARL: soft actor critic on a posterior over tasks, inferred from transitions.

Rakelly et al. 2019. An iteration visits some tasks, in simulations in lock step, keeps what it saw
in a replay per task, and makes gradient steps on batches of tasks. The context that z is inferred
from comes from the newest transitions of a task, the rest of a batch from all of its replay.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

import sim
from runtime.errors import InvalidConfig
from sim.family import TaskFamily
from sim.task import Tasks
from sim.trials import TrialEnv
from training import checkpoint
from training.meta_trainer import MetaTrainer, with_prefix
from training.pearl_config import PEARLConfig
from training.pearl_learner import MetaBatch, PEARLLearner
from training.pearl_networks import ContextPolicy
from training.pearl_play import Episode, Way, play
from training.ranks import Ranks
from training.recorded import Recorded
from training.replay_buffer import Layout, Replay

TASKS_STREAM = 0x7A5C
"""Key of the random stream that the training tasks are drawn from."""
CHECKED_EVERY = 100
"""Gradient steps between looks at whether the loss is finite."""


class PEARLTrainer(MetaTrainer):
    """Training state of one run of PEARL.

    Its random streams depend on the seed and the iteration alone. Its checkpoints hold the
    replay, so that training goes on as if it had not stopped.
    """

    method = "pearl"

    def __init__(self, config: PEARLConfig, ranks: Ranks | None = None):
        super().__init__(config, ranks)
        self.config, device = config, self.ranks.device
        family = sim.family(config.family)
        self.policy = build_policy(config).to(device)
        self.learner = PEARLLearner(config, self.policy, len(family.task_parameters)).to(device)
        self.generator = torch.Generator(device)  # of learning
        recorded, rate = self.generator.device.type == "cuda", config.sac.learning_rate
        self.optimiser = torch.optim.Adam(
            self.learner.learned(),
            lr=torch.tensor(rate, device=device) if recorded else rate,  # a graph reads a tensor
            fused=True,
            capturable=recorded,
        )
        self.gradient_step: Callable[[], Tensor] = Recorded(self.make_gradient_step, self.generator)
        self.tasks = training_tasks(family, config.tasks, config.seed)
        self.features = torch.from_numpy(family.task_features(self.tasks)).to(device)  # (tasks, D)
        count = len(self.features)
        self.layout = Layout(len(family.observation), len(family.action))
        self.replay = Replay(count, config.replay_steps // count, self.layout.width, device)
        self.recent = Replay(count, config.recent_steps, self.layout.width, device)
        self.noise = torch.Generator()  # of acting
        self.env = self._env(config.visits, len(self.ways))

    @property
    def ways(self) -> list[Way]:
        """How the episodes of a visit act."""
        config = self.config
        exploring: list[Way] = ["prior"] * config.prior_episodes
        adapting: list[Way] = [config.acting] * config.posterior_episodes
        return exploring + adapting

    def iterate(self) -> dict[str, float]:
        """Visit tasks, learn from all that was seen."""
        started = time.perf_counter()
        self.check_parameters(self.policy)
        streams = self._seed()
        steps = 0 if self.iteration else self._first_look(streams)
        visited = np.resize(streams.permutation(len(self.features)), self.config.visits)
        episodes = self._visit(self.env, visited, self.ways, streams)
        steps += steps_made(episodes)
        collected = time.perf_counter()
        self._set_learning_rate()
        terms = self.learn()
        learned = time.perf_counter()
        self.iteration += 1
        self.env_steps += steps
        return {
            **self._returns(episodes),
            **{f"loss/{name}": value for name, value in terms.items()},
            "temperature": float(self.learner.log_temperature.detach().exp()),
            "time/collect_s": collected - started,
            "time/learn_s": learned - collected,
            "time/steps_per_s": steps / (learned - started),
            "time/gradient_steps_per_s": self.config.gradient_steps / (learned - collected),
        }

    def _set_learning_rate(self) -> None:
        sac = self.config.sac
        left = 1 - min(1.0, self.env_steps / self.config.env_steps)
        rate = sac.learning_rate * (sac.final_learning_rate + (1 - sac.final_learning_rate) * left)
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _env(self, simulations: int, episodes: int) -> TrialEnv:
        config = self.config
        return sim.make(config.family, simulations, config.threads, config.seed, episodes)

    def _seed(self) -> np.random.Generator:
        """Start all random streams of the iteration anew; that of tasks and start states."""
        sequence = np.random.SeedSequence(self.config.seed, spawn_key=(self.iteration,))
        world, noise, learning = sequence.generate_state(3, np.uint64).tolist()
        self.noise.manual_seed(noise)
        self.generator.manual_seed(learning)
        return np.random.default_rng(world)

    def _first_look(self, streams: np.random.Generator) -> int:
        """Visit every task with the untrained policy; the steps that were made."""
        everyone, count = np.arange(len(self.features)), self.config.initial_episodes
        ways: list[Way] = ["prior"] * count
        env = self._env(len(everyone), count)
        return steps_made(self._visit(env, everyone, ways, streams))

    def _visit(
        self, env: TrialEnv, visited: np.ndarray, ways: Sequence[Way], streams: np.random.Generator
    ) -> list[Episode]:
        """Play on the tasks of these numbers (B,), and keep what was seen."""
        env.np_random = streams
        tasks = {name: values[visited] for name, values in self.tasks.items()}
        try:
            episodes = play(env, self.policy, tasks, ways, self.noise)
        except FloatingPointError as error:
            raise self.diverged(str(error)) from None
        for episode in episodes:
            self._keep(episode, torch.from_numpy(visited))
        return episodes

    def _keep(self, episode: Episode, visited: Tensor) -> None:
        """Add an episode of the tasks of these numbers (B,) to the replays and the normalisers."""
        made = episode.made.T  # (B, T): the steps of a simulation follow each other
        rows = episode.rows.transpose(0, 1)[made].to(self.ranks.device)
        numbers = visited.unsqueeze(1).expand(made.shape)[made].to(self.ranks.device)
        self.replay.add(numbers, rows)
        if episode.way == "prior" or self.config.recent_posterior:
            self.recent.add(numbers, rows)
        steps = self.layout.split(rows)
        self.policy.obs_normaliser.update(steps.observation)
        self.policy.reward_normaliser.update(steps.seen_reward)

    def learn(self) -> dict[str, float]:
        """The iteration's gradient steps; the mean of each term of the loss."""
        names = self.learner.terms()
        sums = torch.zeros(len(names), device=self.ranks.device)
        count = self.config.gradient_steps
        for step in range(count):
            sums += self.gradient_step()
            if step % CHECKED_EVERY == 0:
                self.check_finite(dict(zip(names, sums.tolist(), strict=True)))
        means = dict(zip(names, (sums / count).tolist(), strict=True))
        self.check_finite(means)
        return means

    def make_gradient_step(self) -> Tensor:
        """Draw a batch and learn from it; the terms of the loss, in the order of the learner's."""
        return self.learner.learn(self.batch(), self.generator, self.optimiser)

    def batch(self) -> MetaBatch:
        """Tasks, and of each of them steps and context."""
        config, generator, count = self.config, self.generator, self.config.network.context
        device = self.ranks.device
        tasks = torch.randint(
            len(self.features), (config.meta_batch,), generator=generator, device=device
        )
        steps = self.replay.sample(tasks, config.sac.batch, generator)
        counted = None
        if config.varied_context:
            context = self.recent.stretches(tasks, count, generator)
            share = torch.rand(len(tasks), 1, 1, generator=generator, device=device)
            place = torch.arange(count, device=device).view(1, -1, 1)
            counted = place < count * share.square()  # the first always, short ones more often
        else:
            context = self.recent.sample(tasks, count, generator)
        split = self.layout.split
        return MetaBatch(split(steps), split(context), counted, self.features[tasks])

    def _returns(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """Mean return of each episode of a trial, and of those that only explored."""
        exploring = [e for e in episodes if e.way == "prior" and self.config.acting == "streaming"]
        trial = [e for e in episodes if e not in exploring]
        found = {f"return/episode_{k + 1}": float(e.returns.mean()) for k, e in enumerate(trial)}
        if exploring:
            found["explored"] = float(torch.stack([e.returns for e in exploring]).mean())
        return found

    def tensors(self) -> dict[str, Tensor]:
        state = dict(self.learner.state_dict())  # the policy's under `policy.`
        for name, replay in (("replay", self.replay), ("recent", self.recent)):
            state |= {f"{name}.{key}": value for key, value in replay.tensors().items()}
        return state | checkpoint.optimiser_tensors(self.optimiser)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.learner.load_state_dict({name: tensors[name] for name in self.learner.state_dict()})
        self.replay.load(with_prefix(tensors, "replay."))
        self.recent.load(with_prefix(tensors, "recent."))
        checkpoint.load_optimiser(self.optimiser, tensors)


def steps_made(episodes: Sequence[Episode]) -> int:
    """Environment steps of episodes."""
    return sum(int(episode.made.sum()) for episode in episodes)


def build_policy(config: PEARLConfig) -> ContextPolicy:
    """The network of a configuration, at its initial weights.

    Raises:
        InvalidConfig: the family's actions are not in [-1, 1].
    """
    family = sim.family(config.family)
    for channel in family.action:
        if (channel.low, channel.high) != (-1.0, 1.0):
            raise InvalidConfig(
                f"PEARL's actions are in [-1, 1], but {channel.name!r} of {config.family} is in "
                f"[{channel.low:g}, {channel.high:g}]: scale it in the family"
            )
    return ContextPolicy(
        config.network, len(family.observation), len(family.action), family.sparse_at_test
    )


def training_tasks(family: TaskFamily, count: int, seed: int) -> Tasks:
    """`count` tasks to train on, or fewer where the family has no more that differ."""
    tasks = family.sample(np.random.default_rng([TASKS_STREAM, seed]), count)
    _, first = np.unique(family.task_features(tasks), axis=0, return_index=True)
    return {name: values[np.sort(first)] for name, values in tasks.items()}
