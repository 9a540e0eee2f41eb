"""A change of task inside a trial: a payload drops off, a motor weakens, the goal moves."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidTask
from sim.family import TaskFamily
from sim.task import Tasks

NEVER = -1
CHANGE_STREAM = 0xC4A6
"""Key that separates the random stream of changes from that of tasks and start states."""
HELD_OUT_POOL = 256


@dataclass(frozen=True)
class Change:
    """Once in a trial, the task changes before one of its steps; the state stays as it is.

    Args:
        between: first and last control step of the trial, counted from 0, before which it
            may happen, each equally likely; the same twice for a given time. None: any but
            the first, before which a trial's task is drawn anyway.
        to: new values, by parameter.
        redraw: parameters that are drawn anew from the family's distribution, a lone one also
            as a plain string. With neither `to` nor `redraw` the whole task is.
        share: of the trials that have such a change, if they last. Its time is drawn before
            a trial begins, over the steps that the trial has at most: one that ends before,
            because its episodes end early, does not change.

    Raises:
        InvalidTask: a share outside [0, 1], times that are not two whole numbers, below 1 or
            in the wrong order, a value that is no number, or a parameter given twice.
    """

    between: tuple[int, int] | None = None
    to: Mapping[str, float] = field(default_factory=dict)
    redraw: Sequence[str] = ()
    share: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.share, Real) or not 0 <= self.share <= 1:
            raise InvalidTask(f"the share of trials that change must be in [0, 1]: {self.share}")
        object.__setattr__(self, "between", _two_steps(self.between))
        object.__setattr__(self, "to", _numbers(self.to))
        object.__setattr__(self, "redraw", _names(self.redraw))
        names = [*self.to, *self.redraw]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidTask(f"one change cannot change {twice[0]!r} twice at once")

    @classmethod
    def parse(cls, text: str) -> "Change":
        """A change from ``STEP[-STEP][:PARAMETER[=VALUE],...]``, as on the command line.

        ``100:payload=0`` drops the payload before step 100, ``50-150:target_velocity`` draws
        a new target at a random one of those steps, ``100`` a whole new task.

        Raises:
            InvalidTask: it cannot be read.
        """
        when, _, what = text.partition(":")
        first, ranged, last = when.partition("-")
        parts = [part.partition("=") for part in what.split(",") if part.strip()]
        names = [name.strip() for name, _, _ in parts]
        try:
            between = (int(first), int(last if ranged else first))
            to = {n: float(v) for n, (_, given, v) in zip(names, parts, strict=True) if given}
        except ValueError:
            raise InvalidTask(
                f"{text!r} is no change: expected STEP[-STEP][:PARAMETER[=VALUE],...], "
                f"as 100:payload=0"
            ) from None
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidTask(f"{text!r} changes {twice[0]!r} twice at once")
        return cls(between, to, tuple(n for n in names if n not in to))

    def __str__(self) -> str:
        """As `parse` reads it, but for the share."""
        first, last = self.between or ("any", "any")
        what = [*(f"{name}={value}" for name, value in self.to.items()), *self.redraw]
        when = str(first) if first == last else f"{first}-{last}"
        return when + (":" + ",".join(what)) * bool(what)

    def check(self, family: TaskFamily, steps: int) -> None:
        """Refuse a change that cannot happen in trials of `steps` control steps.

        Raises:
            InvalidTask: a parameter that the family does not have, a value it cannot take,
                a redraw of only some parameters that are drawn together, or a time after the
                trial's end.
        """
        known = [p.name for p in family.task_parameters]
        unknown = [name for name in (*self.to, *self.redraw) if name not in known]
        if unknown:
            raise InvalidTask(
                f"{family.name} has no task parameter {unknown[0]!r} to change; it has {known}"
            )
        self._check_redraw(family)
        latest = self.between[1] if self.between else 1
        if latest >= steps:
            raise InvalidTask(
                f"{family.name}: a change before step {latest} may never happen, the last step "
                f"is {steps - 1}"
            )
        task = {k: v[:1] for k, v in family.held_out(1).items()}
        family.check_tasks({**task, **{k: np.array([v]) for k, v in self.to.items()}}, 1)

    def _check_redraw(self, family: TaskFamily) -> None:
        """Refuse to draw a part of a joint distribution: it would not fit the rest."""
        together = family.drawn_together
        rest = [name for name in together if name not in self.redraw]
        part = [name for name in together if name in self.redraw]
        if part and rest:
            raise InvalidTask(
                f"{family.name} draws {', '.join(part)} together with {', '.join(rest)}: redraw "
                f"all of them, or the whole task"
            )

    def draw_times(self, rng: np.random.Generator, n: int, steps: int) -> NDArray[np.int64]:
        """The step before which each of n trials changes, `NEVER` for some, (n,)."""
        first, last = self.between or (1, steps - 1)
        times = rng.integers(first, last + 1, size=n)
        return np.where(rng.random(n) < self.share, times, NEVER)

    def tasks_after(
        self, family: TaskFamily, before: Tasks, rng: np.random.Generator, held_out: bool = False
    ) -> Tasks:
        """The tasks that follow the tasks `before`, (n,) per parameter.

        Args:
            family: whose tasks.
            before: the tasks so far.
            rng: what is redrawn is drawn from it.
            held_out: redraw held-out tasks, not those of training.
        """
        n = len(next(iter(before.values())))
        redraw = self.redraw if self.redraw or self.to else tuple(before)
        drawn: Tasks = {}
        if redraw:
            drawn = _any_held_out(family, rng, n) if held_out else family.sample(rng, n)
        after = {name: drawn[name] if name in redraw else old for name, old in before.items()}
        return {**after, **{name: np.full(n, value) for name, value in self.to.items()}}


def _two_steps(between: Any) -> tuple[int, int] | None:
    """The first and the last step of `Change.between`."""
    if between is None:
        return None
    try:
        first, last = map(operator.index, between)
    except (TypeError, ValueError):
        raise InvalidTask(
            f"a change happens between two steps, whole numbers, as (100, 150), or (100, 100) for "
            f"a given time; got {between!r}"
        ) from None
    if not 1 <= first <= last:
        raise InvalidTask(
            f"a change happens between two steps, the first not below 1 and not above the second, "
            f"got {(first, last)}"
        )
    return first, last


def _numbers(to: Any) -> dict[str, float]:
    """The new values of `Change.to`."""
    if not isinstance(to, Mapping):
        raise InvalidTask(f"new values are given by parameter, as {{'payload': 0}}, got {to!r}")
    for name, value in to.items():
        if not isinstance(value, Real):
            raise InvalidTask(f"the new value of {name!r} must be a number, got {value!r}")
    return {name: float(value) for name, value in to.items()}


def _names(redraw: Any) -> tuple[str, ...]:
    """The parameters of `Change.redraw`."""
    names = (redraw,) if isinstance(redraw, str) else redraw
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InvalidTask(f"what is redrawn is given by the parameters' names, got {redraw!r}")
    return tuple(names)


def _any_held_out(family: TaskFamily, rng: np.random.Generator, n: int) -> Tasks:
    """n held-out tasks in random order, where `TaskFamily.held_out` deals them out in turn."""
    pool = family.held_out(HELD_OUT_POOL, int(rng.integers(2**31)))
    rows = rng.integers(HELD_OUT_POOL, size=n)
    return {name: values[rows] for name, values in pool.items()}


class Schedule:
    """When the changes of n trials are due, each trial counting its own steps.

    It has a random stream of its own, so that start states and whatever else is random in
    the simulation are the same with and without changes.
    """

    def __init__(
        self, family: TaskFamily, changes: tuple[Change, ...], n: int, steps: int, seed: int = 0
    ):
        """
        Args:
            family: whose tasks change.
            changes: each happens at most once in a trial.
            n: trials at a time.
            steps: of the longest trial.
            seed: of the times and of what is redrawn.

        Raises:
            InvalidTask: as `Change.check`.
        """
        for change in changes:
            change.check(family, steps)
        self.family, self.changes, self.steps = family, changes, steps
        self.elapsed = np.zeros(n, np.int64)
        self.times = np.full((len(changes), n), NEVER)
        """The step before which each change comes in each trial, or `NEVER`, (changes, n)."""
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start the random stream anew."""
        self.rng = np.random.default_rng([CHANGE_STREAM, seed])

    def restart(self, ids: NDArray[np.intp]) -> None:
        """The trials `ids` begin anew."""
        self.elapsed[ids] = 0
        for times, change in zip(self.times, self.changes, strict=True):
            times[ids] = change.draw_times(self.rng, len(ids), self.steps)

    def advance(self) -> list[tuple[Change, NDArray[np.intp]]]:
        """Count a step just made; the changes that come before the next one, with their trials."""
        self.elapsed += 1
        return [
            (change, ids)
            for times, change in zip(self.times, self.changes, strict=True)
            if len(ids := np.flatnonzero(times == self.elapsed))
        ]
