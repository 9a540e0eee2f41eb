"""Randomisations of the signals between robot and policy: delay, noise, bias.

Like those of `sim.dynamics` they are drawn with the task; they act on the action before the
motors get it, or on the observation after the sensors gave it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidTask
from sim.dynamics import describe_range
from sim.family import Channel, Floats, Ids
from sim.parts import select
from sim.task import TaskParameter, Tasks


class Signal(ABC):
    """One thing about actions or observations that varies between tasks."""

    summary: str
    unit: str = "1"

    def describe(self) -> str:
        """What varies, in which range."""
        return describe_range(self)

    @abstractmethod
    def parameters(self, observation: Sequence[Channel]) -> tuple[TaskParameter, ...]:
        """What is drawn per task.

        Raises:
            UnknownName: there is no channel of that name.
            InvalidTask: a range with low above high.
        """

    def channels(self, observation: Sequence[Channel]) -> tuple[Channel, ...]:
        """The observation's channels as the policy sees them."""
        return tuple(observation)

    @abstractmethod
    def state(self, num_envs: int, observation: Sequence[Channel], action_size: int) -> "State":
        """What it remembers of n simulations."""


class State:
    """What a signal remembers of n simulations; without effect unless a method is overridden."""

    def restart(self, ids: Ids, rng: np.random.Generator, tasks: Tasks) -> None:
        """The simulations `ids` start an episode."""

    def act(self, action: Floats, tasks: Tasks) -> Floats:
        """The action that reaches the motors, (n, A), when the policy sent `action`."""
        return action

    def sense(self, rng: np.random.Generator, tasks: Tasks) -> None:
        """A step was made: draw what the sensors add to it."""

    def observe(self, obs: NDArray[np.float32], tasks: Tasks) -> NDArray[np.float32]:
        """The observation that reaches the policy, (n, O), for that of the sensors."""
        return obs


@dataclass(frozen=True)
class ActuatorDelay(Signal):
    """Actions reach the motors after a whole number of control steps in [low, high].

    Until the first one does, the motors get zero.
    """

    low: int = 0
    high: int = 3
    summary = "actuator delay"
    unit = "control steps"

    def parameters(self, observation: Sequence[Channel]) -> tuple[TaskParameter, ...]:
        if not 0 <= self.low < self.high:
            raise InvalidTask(f"delay: low {self.low} must be in 0 to below high {self.high}")
        steps = tuple(float(d) for d in range(self.low, self.high + 1))
        return (TaskParameter("delay", "steps", self.low, self.high, choices=steps),)

    def state(self, num_envs: int, observation: Sequence[Channel], action_size: int) -> State:
        return _Delay(np.zeros((self.high + 1, num_envs, action_size)))


class _Delay(State):
    def __init__(self, sent: NDArray[np.float64]):
        self.sent, self.steps = sent, 0  # a ring of the last actions, (high + 1, n, A)

    def restart(self, ids: Ids, rng: np.random.Generator, tasks: Tasks) -> None:
        self.sent[:, ids] = 0.0

    def act(self, action: Floats, tasks: Tasks) -> Floats:
        size, n = self.sent.shape[:2]
        self.sent[self.steps % size] = action
        due = (self.steps - tasks["delay"].astype(np.intp)) % size
        self.steps += 1
        return self.sent[due, np.arange(n)]


@dataclass(frozen=True)
class SensorNoise(Signal):
    """Gaussian noise; its deviation, in each channel's unit, is uniform in [low, high]."""

    which: tuple[str, ...] = ("*",)
    low: float = 0.0
    high: float = 0.1
    summary = "sensor noise"
    unit = "of the channel's unit"

    def parameters(self, observation: Sequence[Channel]) -> tuple[TaskParameter, ...]:
        _mask(observation, self.which)
        unit = "channel's"
        return (TaskParameter("sensor_noise", unit, self.low, self.high, least=0.0),)

    def channels(self, observation: Sequence[Channel]) -> tuple[Channel, ...]:
        return _unbounded(observation, self.which)

    def state(self, num_envs: int, observation: Sequence[Channel], action_size: int) -> State:
        return _Noise(np.zeros((num_envs, len(observation))), _mask(observation, self.which))


class _Noise(State):
    def __init__(self, drawn: NDArray[np.float64], mask: NDArray[np.bool_]):
        # Drawn once per step, so that looking twice at one moment shows the same.
        self.drawn, self.mask = drawn, mask

    def restart(self, ids: Ids, rng: np.random.Generator, tasks: Tasks) -> None:
        self.drawn[ids] = self.mask * rng.standard_normal((len(ids), len(self.mask)))

    def sense(self, rng: np.random.Generator, tasks: Tasks) -> None:
        self.drawn[:] = self.mask * rng.standard_normal(self.drawn.shape)

    def observe(self, obs: NDArray[np.float32], tasks: Tasks) -> NDArray[np.float32]:
        return obs + (tasks["sensor_noise"][:, None] * self.drawn).astype(np.float32)


@dataclass(frozen=True)
class SensorBias(Signal):
    """A constant offset of each channel, in its unit, uniform in [low, high]."""

    which: tuple[str, ...] = ("*",)
    low: float = -0.1
    high: float = 0.1
    summary = "sensor bias"
    unit = "of the channel's unit"

    def parameters(self, observation: Sequence[Channel]) -> tuple[TaskParameter, ...]:
        chosen = np.flatnonzero(_mask(observation, self.which))
        return tuple(
            TaskParameter(f"bias.{c.name}", c.unit, self.low, self.high)
            for c in (observation[int(i)] for i in chosen)
        )

    def channels(self, observation: Sequence[Channel]) -> tuple[Channel, ...]:
        return _unbounded(observation, self.which)

    def state(self, num_envs: int, observation: Sequence[Channel], action_size: int) -> State:
        return _Bias(observation, np.flatnonzero(_mask(observation, self.which)))


class _Bias(State):
    def __init__(self, observation: Sequence[Channel], columns: NDArray[np.intp]):
        self.columns = [(int(i), f"bias.{observation[int(i)].name}") for i in columns]

    def observe(self, obs: NDArray[np.float32], tasks: Tasks) -> NDArray[np.float32]:
        shifted = obs.copy()
        for column, name in self.columns:
            shifted[:, column] += tasks[name].astype(np.float32)
        return shifted


def _mask(observation: Sequence[Channel], which: Sequence[str]) -> NDArray[np.bool_]:
    """Which channels match a pattern.

    Raises:
        UnknownName: a pattern matches nothing.
    """
    known = {channel.name: i for i, channel in enumerate(observation)}
    mask = np.zeros(len(known), bool)
    mask[list(select("observation channel", known, which).values())] = True
    return mask


def _unbounded(observation: Sequence[Channel], which: Sequence[str]) -> tuple[Channel, ...]:
    """The channels, those that match a pattern without bounds."""
    free = _mask(observation, which)
    return tuple(
        replace(c, low=-math.inf, high=math.inf) if f else c
        for c, f in zip(observation, free, strict=True)
    )
