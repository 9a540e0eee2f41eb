"""The contract every task family fulfils.

A *task family* is a distribution of tasks over one body. It says how to sample
tasks, how to write them into a batch of simulations, and how to observe, reward
and terminate, always for all simulations of the batch at once. It holds no
simulation state: that lives in the world that `TaskFamily.world` makes, so one
family object may serve any number of worlds.

Shapes: ``n`` is the number of simulations in the world, ``O`` and ``A`` the
sizes of the observation and the action, ``D`` the number of task parameters.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidTask

Floats = NDArray[np.floating[Any]]
Ids = NDArray[np.intp]
Tasks = dict[str, NDArray[np.float64]]
"""One array of shape (n,) per task parameter."""

HELD_OUT_STREAM = 0x7E57
"""Key that separates the random stream of held-out tasks from those of training."""


@dataclass(frozen=True)
class Channel:
    """One element of an observation or action vector, with its unit and range."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class Marker:
    """A sphere to draw where a task's goal is: position and radius [m], colour."""

    position: tuple[float, float, float]
    rgba: tuple[float, float, float, float] = (0.9, 0.2, 0.15, 0.6)
    radius: float = 0.2


@dataclass(frozen=True)
class TaskParameter:
    """One number that tells tasks apart.

    Uniform in [low, high] (`scale` "linear"), log-uniform there ("log"), or one of
    `choices`, of which those in `held_out` are kept from training for evaluation. Values
    outside [low, high] may be asked for (a payload that drops off), those below `least` not.
    """

    name: str
    unit: str
    low: float
    high: float
    choices: tuple[float, ...] = ()
    scale: Literal["linear", "log"] = "linear"
    held_out: tuple[float, ...] = ()
    least: float = -math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InvalidTask(
                f"task parameter {self.name!r}: low {self.low} must be below high {self.high}"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise InvalidTask(
                f"task parameter {self.name!r}: its range must be finite to draw from, "
                f"got [{self.low}, {self.high}]"
            )
        if self.scale not in ("linear", "log"):
            raise InvalidTask(
                f"task parameter {self.name!r}: scale must be 'linear' or 'log', got {self.scale!r}"
            )
        if self.scale == "log" and self.low <= 0:
            raise InvalidTask(
                f"task parameter {self.name!r}: a log scale needs low above 0, got {self.low}"
            )
        outside = [c for c in self.choices if not self.low <= c <= self.high]
        if outside:
            raise InvalidTask(
                f"task parameter {self.name!r}: the choices {outside} are outside "
                f"[{self.low}, {self.high}]"
            )
        if self.choices and not set(self.choices) - set(self.held_out):
            raise InvalidTask(
                f"task parameter {self.name!r}: all of its choices {list(self.choices)} are held "
                f"out, none is left to train on"
            )
        unknown = sorted(set(self.held_out) - set(self.choices))
        if unknown:
            raise InvalidTask(
                f"task parameter {self.name!r}: held-out values {unknown} are none of its choices "
                f"{list(self.choices)}"
            )


def _low(parameter: TaskParameter) -> float:
    """The range's low end on the parameter's scale."""
    return math.log(parameter.low) if parameter.scale == "log" else parameter.low


def _high(parameter: TaskParameter) -> float:
    """The range's high end on the parameter's scale."""
    return math.log(parameter.high) if parameter.scale == "log" else parameter.high


def draw_tasks(parameters: Sequence[TaskParameter], rng: np.random.Generator, n: int) -> Tasks:
    """n independent draws for training of each parameter, those in ranges all in one go."""
    ranged = [p for p in parameters if not p.choices]
    low, high = (np.array([e(p) for p in ranged]) for e in (_low, _high))
    drawn = rng.uniform(low, high, (n, len(ranged))) if ranged else np.empty((n, 0))
    tasks: Tasks = {}
    for column, p in enumerate(ranged):
        tasks[p.name] = drawn[:, column]
        if p.scale == "log":
            # Clipped, since exp(log(x)) may miss x by a rounding.
            tasks[p.name] = np.clip(np.exp(drawn[:, column]), p.low, p.high)
    for p in parameters:
        if p.choices:
            kept = [c for c in p.choices if c not in p.held_out]
            tasks[p.name] = rng.choice(np.asarray(kept, dtype=np.float64), size=n)
    return {p.name: tasks[p.name] for p in parameters}


class TaskFamily(ABC):
    """A distribution of tasks over one body; see the module's docstring."""

    name: str
    summary: str
    """One line for listings: the body and what varies."""
    observation: tuple[Channel, ...]
    action: tuple[Channel, ...]
    task_parameters: tuple[TaskParameter, ...]
    control_hz: float
    horizon: int
    """Control steps per episode."""
    episodes: int = 2
    """Episodes of one task that make a trial."""

    @abstractmethod
    def world(self, num_envs: int, num_threads: int) -> Any:
        """A fresh batch of `num_envs` simulations stepped by `num_threads` threads."""

    @abstractmethod
    def apply(self, world: Any, ids: Ids, tasks: Tasks) -> None:
        """Give the simulations `ids` these tasks, now; their state stays as it is."""

    @abstractmethod
    def reset(self, world: Any, ids: Ids, rng: np.random.Generator) -> None:
        """Put the simulations `ids` in a random start state; the others are untouched."""

    @abstractmethod
    def step(self, world: Any, action: Floats) -> None:
        """Advance every simulation by one control step under `action` (n, A), in bounds."""

    def pause(self, world: Any, paused: NDArray[np.bool_]) -> None:  # noqa: B027
        """Spare the simulations in `paused` (n,), and no others, the work of `step`.

        Nobody looks at them until they are reset, so a family may ignore this.
        """

    @abstractmethod
    def observe(self, world: Any) -> NDArray[np.float32]:
        """What the robot sees now, (n, O); a fresh array. The task is not in it."""

    @abstractmethod
    def reward(self, world: Any, action: Floats) -> NDArray[np.float64]:
        """Reward of the step just made, (n,)."""

    def test_reward(self, world: Any, action: Floats) -> NDArray[np.float64] | None:
        """The reward that a robot will have at meta-test, (n,); None if it is `reward` itself.

        A family whose `reward` is dense, to train on, and whose task is sparse gives the
        sparse one here (Gupta et al. 2018, MAESN; Rakelly et al. 2019, PEARL).
        """
        return None

    def terminated(self, world: Any) -> NDArray[np.bool_] | None:
        """Which simulations reached a terminal state, (n,); None if that never happens."""
        return None

    def measure(self, world: Any) -> NDArray[np.float64] | None:
        """The quantity the task is about, to look at beside it, (n,); None if there is none."""
        return None

    def markers(self, world: Any, index: int) -> list[Marker]:
        """What to add to a picture of simulation `index`, so that a viewer sees its task."""
        return []

    def draw(self, world: Any, index: int) -> NDArray[np.uint8] | None:
        """A picture (height, width, 3) of simulation `index` if there is no physics to render."""
        return None

    def sample(self, rng: np.random.Generator, n: int) -> Tasks:
        """n tasks drawn independently from the family's distribution."""
        return draw_tasks(self.task_parameters, rng, n)

    def held_out(self, n: int, seed: int = 0) -> Tasks:
        """n tasks for evaluation, from a random stream that training never uses.

        A parameter with choices has its held-out ones (all of them where none is) dealt out in
        turn, so that each is equally represented.
        """
        rng = np.random.default_rng([HELD_OUT_STREAM, seed])
        tasks = self.sample(rng, n)
        for p in self.task_parameters:
            if p.choices:
                dealt = p.held_out or p.choices
                tasks[p.name] = np.resize(np.asarray(dealt, dtype=np.float64), n)
        return tasks

    def task_features(self, tasks: Tasks) -> NDArray[np.float32]:
        """Tasks as vectors scaled to [-1, 1] over the family's ranges, (n, D)."""
        logarithmic, low, high = self._scales
        values = np.stack([tasks[p.name] for p in self.task_parameters], axis=1)
        values[:, logarithmic] = np.log(values[:, logarithmic])
        return (2 * (values - low) / (high - low) - 1).astype(np.float32)

    @cached_property
    def _scales(self) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """Which parameters are logarithmic, and the ends of all ranges on their scales, (D,)."""
        logarithmic = np.array([p.scale == "log" for p in self.task_parameters])
        low, high = (np.array([e(p) for p in self.task_parameters]) for e in (_low, _high))
        return logarithmic, low, high

    def check(self) -> None:
        """Refuse a family that could not be trained on and evaluated.

        Raises:
            InvalidTask: no steps, no rate, nothing that varies between tasks, names that
                occur twice, or no held-out tasks; with what was found.
        """
        for what, count in (("horizon", self.horizon), ("episodes", self.episodes)):
            if count < 1:
                raise InvalidTask(f"{self.name}: {what} must be at least 1, got {count}")
        if not self.control_hz > 0:
            raise InvalidTask(f"{self.name}: control_hz must be above 0, got {self.control_hz}")
        if not self.task_parameters:
            raise InvalidTask(
                f"{self.name} has no task parameters: nothing varies, there are no held-out tasks"
            )
        for what in ("observation", "action", "task_parameters"):
            found = [entry.name for entry in getattr(self, what)]
            twice = sorted({name for name in found if found.count(name) > 1})
            if twice or not found:
                problem = f"repeats the names {twice}" if twice else "is empty"
                raise InvalidTask(f"{self.name}: {what} {problem}")
        tasks = self.check_tasks(self.held_out(2), 2)
        outside = {
            p.name: tasks[p.name].tolist()
            for p in self.task_parameters
            if (tasks[p.name] < p.low).any() or (tasks[p.name] > p.high).any()
        }
        if outside:
            raise InvalidTask(f"{self.name}: held-out tasks are outside their ranges: {outside}")

    def check_tasks(self, tasks: Tasks, n: int) -> Tasks:
        """The same tasks as float64 arrays of shape (n,).

        Raises:
            InvalidTask: a parameter is missing, unknown, not finite or of the wrong length.
        """
        known = [p.name for p in self.task_parameters]
        if set(tasks) != set(known):
            raise InvalidTask(f"{self.name} takes the task parameters {known}, got {list(tasks)}")
        try:
            checked = {k: np.broadcast_to(np.asarray(v, float), (n,)) for k, v in tasks.items()}
        except ValueError:
            shapes = {k: np.shape(v) for k, v in tasks.items()}
            raise InvalidTask(
                f"{self.name}: {n} tasks were expected, got shapes {shapes}"
            ) from None
        for key, values in checked.items():
            if not np.isfinite(values).all():
                raise InvalidTask(f"{self.name}: task parameter {key!r} is not finite: {values}")
        for p in self.task_parameters:
            if p.choices and not np.isin(checked[p.name], p.choices).all():
                raise InvalidTask(f"{self.name}: {p.name!r} must be one of {list(p.choices)}")
            if (checked[p.name] < p.least).any():
                raise InvalidTask(
                    f"{self.name}: {p.name!r} cannot be below {p.least:g} {p.unit}, "
                    f"got {checked[p.name].min():g}"
                )
        return checked
