"""The contract every task family fulfils.

A *task family* is a distribution of tasks over one body. It says how to sample
tasks, how to write them into a batch of simulations, and how to observe, reward
and terminate, always for all simulations of the batch at once. It holds no
simulation state: that lives in the world that `TaskFamily.world` makes, so one
family object may serve any number of worlds.

Shapes: ``n`` is the number of simulations in the world, ``O`` and ``A`` the
sizes of the observation and the action, ``D`` the number of task parameters.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidTask
from sim.task import TaskParameter, Tasks, check_values, deal, draw

Floats = NDArray[np.floating[Any]]
Ids = NDArray[np.intp]
CHECKED = 50
"""Held-out tasks that are looked at when a family is checked."""
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
    sparse_at_test: bool = False
    """Whether `test_reward` is another than `reward`."""
    drawn_together: tuple[str, ...] = ()
    """Task parameters of which one alone cannot be drawn anew: others depend on it."""

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
        return draw(self.task_parameters, rng, n)

    def held_out(self, n: int, seed: int = 0) -> Tasks:
        """n tasks for evaluation, from a random stream that training never uses.

        A parameter with choices has its held-out ones (all of them where none is) dealt out in
        turn, several of them in all combinations, so that each is equally represented.
        """
        tasks = self.sample(np.random.default_rng([HELD_OUT_STREAM, seed]), n)
        return {**tasks, **deal(self.task_parameters, n)}

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
        low, high = np.array([p.ends() for p in self.task_parameters]).T
        return logarithmic, low, high

    def check(self) -> None:
        """Refuse a family that could not be trained on and evaluated.

        Raises:
            InvalidTask: no steps, no rate, nothing that varies between tasks, names that
                occur twice, or no held-out tasks; with what was found.
        """
        for what, count in (("horizon", self.horizon), ("episodes", self.episodes)):
            if not isinstance(count, int) or count < 1:
                raise InvalidTask(
                    f"{self.name}: {what} must be a whole number, at least 1, got {count!r}"
                )
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
        tasks = self.check_tasks(self.held_out(CHECKED), CHECKED)
        outside = {
            p.name: (float(tasks[p.name].min()), float(tasks[p.name].max()))
            for p in self.task_parameters
            if (tasks[p.name] < p.low).any() or (tasks[p.name] > p.high).any()
        }
        if outside:
            raise InvalidTask(f"{self.name}: held-out tasks are outside their ranges: {outside}")

    def check_tasks(self, tasks: Tasks, n: int) -> Tasks:
        """The same tasks as float64 arrays of shape (n,).

        Raises:
            InvalidTask: as `sim.task.check_values`.
        """
        return check_values(self.name, self.task_parameters, tasks, n)
