"""What tells tasks apart: parameters, and how tasks are drawn from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidTask

Tasks = dict[str, NDArray[np.float64]]
"""One array of shape (n,) per task parameter."""


@dataclass(frozen=True)
class TaskParameter:
    """One number that tells tasks apart.

    Uniform in [low, high] (`scale` "linear"), log-uniform there ("log"), or one of
    `choices`, of which those in `held_out` are kept from training for evaluation. Values
    outside [low, high] may be asked for (a payload that drops off), but none below `least` or
    above `most`, which make no sense.

    Raises:
        InvalidTask: the range, the choices or the limits contradict themselves.
    """

    name: str
    unit: str
    low: float
    high: float
    choices: tuple[float, ...] = ()
    scale: Literal["linear", "log"] = "linear"
    held_out: tuple[float, ...] = ()
    least: float = -math.inf
    most: float = math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            self._refuse(f"low {self.low} must be below high {self.high}")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            self._refuse(f"its range must be finite, got [{self.low}, {self.high}]")
        if self.scale not in ("linear", "log"):
            self._refuse(f"scale must be 'linear' or 'log', got {self.scale!r}")
        if self.scale == "log" and self.low <= 0:
            self._refuse(f"a log scale needs low above 0, got {self.low}")
        if self.low < self.least or self.high > self.most:
            self._refuse(
                f"its range [{self.low}, {self.high}] leaves what makes sense, "
                f"[{self.least}, {self.most}]"
            )
        outside = [c for c in self.choices if not self.low <= c <= self.high]
        if outside:
            self._refuse(f"the choices {outside} are outside [{self.low}, {self.high}]")
        if self.choices and not set(self.choices) - set(self.held_out):
            self._refuse(
                f"all of its choices {list(self.choices)} are held out, none is left to train on"
            )
        unknown = sorted(set(self.held_out) - set(self.choices))
        if unknown:
            self._refuse(f"held-out values {unknown} are none of its choices {list(self.choices)}")

    def _refuse(self, problem: str) -> None:
        raise InvalidTask(f"task parameter {self.name!r}: {problem}")

    def ends(self) -> tuple[float, float]:
        """The ends of the range on the parameter's scale."""
        if self.scale == "log":
            return math.log(self.low), math.log(self.high)
        return self.low, self.high


def draw(parameters: Sequence[TaskParameter], rng: np.random.Generator, n: int) -> Tasks:
    """n independent draws for training of each parameter, those in ranges all in one go."""
    ranged = [p for p in parameters if not p.choices]
    low, high = np.array([p.ends() for p in ranged]).reshape(-1, 2).T
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


def deal(parameters: Sequence[TaskParameter], n: int) -> Tasks:
    """n held-out values of each parameter with choices, each value equally often.

    Where several have choices, all combinations come in turn.
    """
    tasks: Tasks = {}
    turn = np.arange(n)
    for p in parameters:
        if p.choices:
            dealt = np.asarray(p.held_out or p.choices, dtype=np.float64)
            tasks[p.name] = dealt[turn % len(dealt)]
            turn = turn // len(dealt)
    return tasks


def check_values(family: str, parameters: Sequence[TaskParameter], tasks: Tasks, n: int) -> Tasks:
    """The same tasks as float64 arrays of shape (n,).

    Args:
        family: its name, for complaints.

    Raises:
        InvalidTask: a parameter is missing, unknown, no number, not finite, of the wrong length
            or a value that makes no sense.
    """
    known = [p.name for p in parameters]
    if set(tasks) != set(known):
        raise InvalidTask(f"{family} takes the task parameters {known}, got {list(tasks)}")
    checked: Tasks = {}
    for p in parameters:
        try:
            values = np.asarray(tasks[p.name], float)
        except (TypeError, ValueError):
            raise InvalidTask(f"{family}: {p.name!r} is no number: {tasks[p.name]!r}") from None
        if values.shape not in ((), (1,), (n,)):
            raise InvalidTask(f"{family}: {n} of {p.name!r} expected, got shape {values.shape}")
        if not np.isfinite(values).all():
            raise InvalidTask(f"{family}: task parameter {p.name!r} is not finite: {values}")
        if p.choices and not np.isin(values, p.choices).all():
            raise InvalidTask(f"{family}: {p.name!r} must be one of {list(p.choices)}")
        for limit, beyond in ((p.least, values < p.least), (p.most, values > p.most)):
            if beyond.any():
                raise InvalidTask(
                    f"{family}: {p.name!r} cannot be {'below' if limit == p.least else 'above'} "
                    f"{limit:g} {p.unit}, got {values[beyond].ravel()[0]:g}"
                )
        checked[p.name] = np.broadcast_to(values, (n,))
    return checked
