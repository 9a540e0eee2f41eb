"""Networks with their memory as an argument and a result.

Shapes: ``T`` time steps, ``B`` trials in the batch, ``O`` observation, ``A`` action,
``D`` task parameters, ``H`` memory. A carry is a dict of tensors (B, H).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from training.config import NetworkConfig
from training.gru import GRU
from training.ranks import Ranks

Carry = dict[str, Tensor]

CARRY_NAMES = {"gru": ("h",), "lstm": ("h", "c")}


class RunningNormaliser(nn.Module):
    """Scales its input by the mean and deviation of all it was shown; they are its buffers."""

    mean: Tensor
    std: Tensor
    moments: Tensor
    count: Tensor
    extremes: Tensor

    def __init__(self, size: int, clip: float = 10.0, rare: bool = False):
        """
        Args:
            size: of the last axis of what is scaled.
            clip: largest size of the result.
            rare: what matters comes seldom, as a sparse reward does, and would be clipped away if
                the deviation alone gave the scale: nothing that was ever seen is clipped.
        """
        super().__init__()
        self.clip = clip
        self.rare = rare
        if rare:
            self.register_buffer("extremes", torch.zeros(2, size, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("moments", torch.zeros(2, size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, samples: Tensor, ranks: Ranks | None = None) -> None:
        """Take in samples (N, size): Chan et al.'s parallel mean and squared deviation.

        Args:
            samples: new ones; of all ranks, if given, of which each calls this with its own.
            ranks: the processes that share this normaliser.
        """
        ranks = ranks or Ranks()
        apart = samples.double() - self.moments[0]  # from the mean so far: sums stay small
        one = torch.ones_like(apart[0])
        n, sums, squares = ranks.sum_(
            torch.stack((one * len(apart), apart.sum(0), apart.square().sum(0)))
        )
        delta, total = sums / n, self.count + n[0]
        self.moments[0] += sums / total
        self.moments[1] += squares - n * delta**2 + delta**2 * self.count * n / total
        self.count.copy_(total)
        self.mean.copy_(self.moments[0])
        deviation = (self.moments[1] / total).sqrt()
        if self.rare:
            lowest, highest = -samples.min(0).values, samples.max(0).values
            farthest = ranks.max_(torch.stack((lowest, highest)).double())
            self.extremes[0] = torch.minimum(self.extremes[0], -farthest[0])
            self.extremes[1] = torch.maximum(self.extremes[1], farthest[1])
            farthest = (self.extremes - self.moments[0]).abs().max(0).values
            deviation = torch.maximum(deviation, farthest / self.clip)
        # A constant input stays as it is: it carries nothing, and must not be blown up.
        self.std.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) scaled and clipped to +-`clip`."""
        return ((x - self.mean) / self.std).clamp(-self.clip, self.clip)


class Memory(nn.Module):
    """A GRU or LSTM over time."""

    def __init__(self, cell: str, input_size: int, size: int):
        super().__init__()
        self.names = CARRY_NAMES[cell]
        self.size = size
        self.rnn = (GRU if cell == "gru" else nn.LSTM)(input_size, size)
        for name, parameter in self.rnn.named_parameters():
            if "weight" in name:
                for gate in parameter.data.chunk(parameter.shape[0] // size):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(parameter)
        if cell == "lstm":
            # Start by remembering (Jozefowicz et al. 2015); torch's gates: in, forget, cell, out.
            nn.init.ones_(dict(self.rnn.named_parameters())["bias_ih_l0"].data.chunk(4)[1])

    def initial(self, batch: int) -> Carry:
        """The carry at the prior."""
        where = next(self.parameters()).device
        return {name: torch.zeros(batch, self.size, device=where) for name in self.names}

    def forward(self, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """x (T, B, input) and the carry before it, to features (T, B, H) and the carry after."""
        state = [carry[name].unsqueeze(0) for name in self.names]
        features, after = self.rnn(x, state[0] if len(state) == 1 else tuple(state))
        states = after if isinstance(after, tuple) else (after,)
        return features, {n: s.squeeze(0) for n, s in zip(self.names, states, strict=True)}


class Tanh(nn.Module):
    """The hyperbolic tangent, within 3e-7, made from a sigmoid where that is faster.

    On a CPU torch's tanh takes eight times as long as its sigmoid, which was a tenth of all
    learning. Elsewhere, and in what is exported, it is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu or torch.compiler.is_exporting():
            return torch.tanh(x)
        return _tanh(x) if not torch.is_grad_enabled() else _TanhFunction.apply(x)


def _tanh(x: Tensor) -> Tensor:
    return torch.sigmoid(x + x).mul_(2.0).sub_(1.0)


class _TanhFunction(torch.autograd.Function):
    """Its derivative from its value, 1 - tanh(x)^2, as torch's own has it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grads[0], value)


class Embeddings(nn.Module):
    """A layer and a rectifier for each of action, observation and reward, before the memory.

    As in VariBAD's encoder (Zintgraf et al. 2020, appendix C).
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]):
        """
        Args:
            inputs: sizes of action, observation and reward.
            outputs: units that each of them gets.
        """
        super().__init__()
        self.size = sum(outputs)
        pairs = zip(inputs, outputs, strict=True)
        self.action, self.obs, self.reward = (mlp(pair, output_gain=math.sqrt(2)) for pair in pairs)

    def forward(self, obs: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        """(..., O), (..., A) and (..., 1) to (..., size), in the order of the arguments."""
        return torch.cat((self.obs(obs), self.action(action), self.reward(reward)), -1).relu()


def mlp(
    sizes: Sequence[int], output_gain: float, activation: Callable[[], nn.Module] = Tanh
) -> nn.Sequential:
    """Linear layers with tanh, or another function, between them, initialised orthogonally."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        linear = nn.Linear(before, after)
        nn.init.orthogonal_(linear.weight, output_gain if last else math.sqrt(2))
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, activation()]
    return nn.Sequential(*layers)


class TrialPolicy(nn.Module, ABC):
    """What `training.rollout` and `training.ppo` need of a policy.

    Observation and reward are normalised inside, so that raw readings go in.
    """

    obs_normaliser: RunningNormaliser
    reward_normaliser: RunningNormaliser
    log_std: nn.Parameter
    """Log-deviation of the action noise in training, (A,)."""
    feature_size: int
    """Size of what `remember` makes of the past."""

    @abstractmethod
    def initial(self, task: Tensor) -> Carry:
        """The carry at the start of B trials, given their task features (B, D) in simulation."""

    @abstractmethod
    def remember(
        self, obs: Tensor, prev_action: Tensor, prev_reward: Tensor, prev_done: Tensor, carry: Carry
    ) -> tuple[Tensor, Tensor, Carry]:
        """Go over time.

        Args:
            obs: (T, B, O), raw.
            prev_action: (T, B, A), as applied.
            prev_reward: (T, B, 1), raw.
            prev_done: (T, B, 1), 1 where an episode ended before this observation.
            carry: before the first step.

        Returns:
            Features (T, B, H), normalised observations (T, B, O), the carry after.
        """

    @abstractmethod
    def action_mean(self, features: Tensor, seen: Tensor) -> Tensor:
        """Mean of the action's Gaussian, (..., A), not yet clipped to the bounds."""

    @abstractmethod
    def value(self, features: Tensor, seen: Tensor, task: Tensor) -> Tensor:
        """Expected normalised return, (...); its gradient usually stops before the memory."""

    def belief(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the task features, each (..., D), if the policy has a belief."""
        raise NotImplementedError(f"{type(self).__name__} has no belief about the task")

    def step(
        self, obs: Tensor, prev_action: Tensor, prev_reward: Tensor, prev_done: Tensor, carry: Carry
    ) -> tuple[Tensor, Tensor, Carry]:
        """`remember` for one step: all arguments and results (B, ...)."""
        features, seen, carry = self.remember(
            obs.unsqueeze(0),
            prev_action.unsqueeze(0),
            prev_reward.unsqueeze(0),
            prev_done.unsqueeze(0),
            carry,
        )
        return features.squeeze(0), seen.squeeze(0), carry


class RecurrentPolicy(TrialPolicy):
    """Memory over (obs, prev_action, prev_reward, prev_done), and heads on it.

    The action head gives the mean of a Gaussian, the belief head mean and log-variance of
    the task's features, the value head, used in training alone, may be told the task.
    """

    def __init__(
        self,
        config: NetworkConfig,
        obs_size: int,
        action_size: int,
        task_size: int,
        told: bool,
        sparse_reward: bool = False,
    ):
        super().__init__()
        self.told = told
        self.value_shapes_memory = config.value_shapes_memory
        self.obs_normaliser = RunningNormaliser(obs_size)
        self.reward_normaliser = RunningNormaliser(1, rare=sparse_reward)
        self.feature_size = config.memory_size
        sizes = (action_size, obs_size, 1)
        self.embeddings = Embeddings(sizes, config.embeddings) if config.embeddings else None
        embedded = self.embeddings.size if self.embeddings else sum(sizes)
        self.memory = Memory(config.cell, embedded + 1, config.memory_size)
        features, hidden = config.memory_size + obs_size, config.hidden_sizes
        self.action_head = mlp((features, *hidden, action_size), output_gain=0.01)
        self.value_head = mlp((features + task_size * told, *hidden, 1), output_gain=1.0)
        self.belief_head = mlp((config.memory_size, 64, 2 * task_size), output_gain=0.01)
        self.log_std = nn.Parameter(torch.full((action_size,), config.initial_log_std))

    def initial(self, task: Tensor) -> Carry:
        return self.memory.initial(len(task))

    def remember(
        self, obs: Tensor, prev_action: Tensor, prev_reward: Tensor, prev_done: Tensor, carry: Carry
    ) -> tuple[Tensor, Tensor, Carry]:
        seen = self.obs_normaliser(obs)
        before = (seen, prev_action, self.reward_normaliser(prev_reward))
        if self.embeddings is not None:
            before = (self.embeddings(*before),)
        features, carry = self.memory(torch.cat((*before, prev_done), dim=-1), carry)
        return features, seen, carry

    def action_mean(self, features: Tensor, seen: Tensor) -> Tensor:
        return self.action_head(torch.cat((features, seen), dim=-1))

    def value(self, features: Tensor, seen: Tensor, task: Tensor) -> Tensor:
        features = features if self.value_shapes_memory else features.detach()
        inputs = (features, seen, task) if self.told else (features, seen)
        return self.value_head(torch.cat(inputs, dim=-1)).squeeze(-1)

    def belief(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.belief_head(features).chunk(2, dim=-1)
        return mean, log_variance.clamp(-10.0, 4.0)
