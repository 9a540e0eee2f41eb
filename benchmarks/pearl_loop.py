"""PEARL's gradient steps per second, beside a plain PyTorch loop over tasks.

    python -m benchmarks.pearl_loop [FAMILY] [--preset fast] [--threads 2] [--repeats 5]

The loop has the same networks, losses, batches and replay. It does what a first implementation
does: one task after the other, each critic a module of its own, a replay per task in numpy arrays,
an optimiser each for encoder and critics, actor, and temperature. It runs in torch's default
precision, and again with the faster products that adaptd trains with (`medium`).
"""

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from runtime.benchmark.spread import spread
from training.methods import method
from training.pearl import PEARLTrainer
from training.pearl_config import PEARLConfig
from training.pearl_learner import PEARLLearner
from training.ppo import gaussian_nll
from training.replay_buffer import Transitions


def main(
    family: tyro.conf.Positional[str] = "halfcheetah-vel",
    preset: str = "fast",
    threads: int = 2,
    repeats: int = 5,
    steps: int = 20,
) -> None:
    """Print gradient steps per second of both, and how many times as fast ours are.

    Args:
        family: which tasks.
        preset: of PEARL's settings.
        threads: of torch.
        repeats: of each measurement, in turn.
        steps: of each measurement.
    """
    config = PEARLConfig.model_validate(method("pearl").preset(family, preset).model_dump())
    config = config.model_copy(update={"threads": threads, "gradient_steps": steps})
    trainer = PEARLTrainer(config)
    trainer.iterate()
    loop = Loop(trainer)
    rows = []
    for _ in range(repeats):
        ours = _rate(trainer.learn, steps)
        medium = _rate(lambda: loop.learn(steps), steps)
        torch.set_float32_matmul_precision("highest")
        plain = _rate(lambda: loop.learn(steps), steps)
        torch.set_float32_matmul_precision("medium")
        rows.append((ours, plain, medium, ours / plain, ours / medium))
    ours, plain, medium, ratio, ratio_medium = np.array(rows).T
    table = Table("gradient steps/s", "median (lowest to highest)", "ours", box=None)
    table.title = f"PEARL on {family}, {preset}: {threads} threads"
    table.add_row("ours, all tasks in one pass", spread(ours, ",.1f"), "")
    table.add_row("loop over tasks", spread(plain, ",.1f"), spread(ratio, ".1f") + " times")
    table.add_row(
        "loop over tasks, medium", spread(medium, ",.1f"), spread(ratio_medium, ".1f") + " times"
    )
    Console().print(table)


def _rate(learn: Callable[[], object], steps: int) -> float:
    started = time.perf_counter()
    learn()
    return steps / (time.perf_counter() - started)


class LoopNetworks(nn.Module):
    """A learner's networks as modules of their own, with its weights."""

    def __init__(self, learner: PEARLLearner):
        super().__init__()
        self.config = learner.config
        self.policy = copy.deepcopy(learner.policy)
        self.task_head = copy.deepcopy(learner.task_head)
        self.critics = nn.ModuleList(_critic(learner.critic, k) for k in range(2))
        self.targets = nn.ModuleList(_critic(learner.target_critic, k) for k in range(2))
        self.log_temperature = nn.Parameter(learner.log_temperature.detach().clone())

    def losses(
        self, steps: Transitions, context: Transitions, task: Tensor, noise: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        """The terms of the loss on one task.

        Args:
            steps: (N, ...).
            context: (K, ...), all of which counts.
            task: (D,).
            noise: of z (L,), of the next action and of the action, (N, A) each.
        """
        config, policy, count = self.config, self.policy, len(steps.reward)
        read = (context.observation, context.action, context.seen_reward, context.next_observation)
        means, variances = policy.encoder(policy.transition(*read))
        variance = 1.0 / (1.0 / variances).sum(0)
        mean = variance * (means / variances).sum(0)
        posterior, prior = Normal(mean, variance.sqrt()), Normal(0.0, 1.0)
        z = mean + variance.sqrt() * noise[0]
        told = (task if config.privileged_critic else z).expand(count, -1)
        given = z.detach().expand(count, -1)
        temperature = self.log_temperature.detach().exp()
        seen, after = policy.seen(steps.observation), policy.seen(steps.next_observation)
        with torch.no_grad():
            action, log_prob = self._act(steps.next_observation, given, noise[1])
            inputs = torch.cat((after, action, told), dim=1)
            lower = torch.minimum(*(target(inputs).squeeze(1) for target in self.targets))
            reward = config.sac.reward_scale * steps.reward.squeeze(1)
            alive = 1.0 - steps.terminated.squeeze(1)
            aim = reward + config.sac.discount * alive * (lower - temperature * log_prob)
        inputs = torch.cat((seen, steps.action, told), dim=1)
        errors = [functional.mse_loss(critic(inputs).squeeze(1), aim) for critic in self.critics]
        action, log_prob = self._act(steps.observation, given, noise[2])
        inputs = torch.cat((seen, action, told.detach()), dim=1)
        promised = torch.minimum(*(critic(inputs).squeeze(1) for critic in self.critics))
        surprise = log_prob.detach().mean() - policy.action_size
        head, log_variance = self.task_head(z).chunk(2)
        return {
            "critic": errors[0] + errors[1],
            "kl": torch.distributions.kl_divergence(posterior, prior).sum(),
            "actor": (temperature * log_prob - promised).mean(),
            "temperature": -self.log_temperature * surprise,
            "task": gaussian_nll(head, log_variance.clamp(-10.0, 4.0), task),
        }

    def _act(self, observation: Tensor, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.policy.act(observation, z)
        gaussian = Normal(mean, log_std.exp())
        raw = mean + log_std.exp() * noise
        action = torch.tanh(raw)
        slope = torch.log(1.0 - action.square() + 1e-6)
        return action, (gaussian.log_prob(raw) - slope).sum(1)


def _critic(twin: nn.Module, which: int) -> nn.Sequential:
    """One of the twin critics, as linear layers."""
    layers: list[nn.Module] = []
    for weight, bias in zip(twin.weights, twin.biases, strict=True):  # type: ignore[arg-type]
        linear = nn.Linear(*weight.shape[1:])
        linear.weight.data.copy_(weight[which].t())
        linear.bias.data.copy_(bias[which, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Loop:
    """Gradient steps, one task after the other."""

    def __init__(self, trainer: PEARLTrainer):
        self.networks, self.config = LoopNetworks(trainer.learner), trainer.config
        self.features, self.layout = trainer.features, trainer.layout
        counts = zip(trainer.replay.filled.tolist(), trainer.recent.filled.tolist(), strict=True)
        self.replays = [
            (trainer.replay.rows[task, :steps].numpy(), trainer.recent.rows[task, :recent].numpy())
            for task, (steps, recent) in enumerate(counts)
        ]
        rate, networks = self.config.sac.learning_rate, self.networks
        inferring = (*networks.policy.encoder.parameters(), *networks.task_head.parameters())
        self.inferring = torch.optim.Adam([*inferring, *networks.critics.parameters()], lr=rate)
        self.acting = torch.optim.Adam(networks.policy.actor.parameters(), lr=rate)
        self.heating = torch.optim.Adam([networks.log_temperature], lr=rate)

    def learn(self, steps: int) -> None:
        """So many gradient steps."""
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        config, networks = self.config, self.networks
        totals: dict[str, Tensor] = {}
        for task in np.random.randint(len(self.replays), size=config.meta_batch):
            steps, context = self._draw(int(task))
            actions = (config.sac.batch, networks.policy.action_size)
            noise = (
                torch.randn(networks.policy.latent),
                torch.randn(actions),
                torch.randn(actions),
            )
            found = networks.losses(steps, context, self.features[task], noise)
            for name, value in found.items():
                totals[name] = totals.get(name, torch.zeros(())) + value
        count = config.meta_batch
        self.acting.zero_grad()
        (totals["actor"] / count).backward()
        self.inferring.zero_grad()  # of what the actor's loss left in the critics
        inferring = (totals["critic"] + config.task_coef * totals["task"]) / count
        (inferring + config.kl_coef * totals["kl"]).backward()
        self.heating.zero_grad()
        (totals["temperature"] / count).backward()
        for optimiser in (self.acting, self.inferring, self.heating):
            optimiser.step()
        for target, source in zip(
            networks.targets.parameters(), networks.critics.parameters(), strict=True
        ):
            slow = (1 - config.sac.target_rate) * target.data
            target.data.copy_(slow + config.sac.target_rate * source.data)

    def _draw(self, task: int) -> tuple[Transitions, Transitions]:
        """Steps (N, ...) and context (K, ...) of a task."""
        found = []
        for rows, count in zip(
            self.replays[task], (self.config.sac.batch, self.config.network.context), strict=True
        ):
            chosen = rows[np.random.randint(len(rows), size=count)]
            found.append(self.layout.split(torch.from_numpy(chosen)))
        return found[0], found[1]


if __name__ == "__main__":
    tyro.cli(main)
