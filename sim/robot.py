"""A simulated robot that lives on the wire: observations out, actions in."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import sim
from runtime.client import Answer
from runtime.errors import InvalidTask
from sim.change import Change
from sim.task import Tasks

PATIENCE = 3
"""Steps in a row that a robot of ours acts by the fallback before it gives up."""
ENDLESS = 2**31
"""Episodes of one task: a robot's task changes only by `Change`."""


class Stepped(Protocol):
    """What a robot needs of a session: `runtime.client.Session`, or one with faults."""

    @property
    def resumed(self) -> bool:
        """Whether it was open before."""
        ...

    def step(
        self,
        observation: Any,
        reward: float,
        applied_action: Any,
        episode_start: bool,
        new_task: bool,
        timeout_s: float,
    ) -> Answer:
        """As `runtime.client.Session.step`."""
        ...


@dataclass(frozen=True)
class Moment:
    """One control step, as the simulator knows it."""

    step: int
    episode: int
    seq: int
    reward: float
    task: dict[str, float]
    """The hidden task that this step was paid for."""
    changed: bool
    """Whether the task changed just before this step."""
    measure: float
    """`TaskFamily.measure`: what the task is about (forward velocity, say); nan if nothing is."""
    answer: Answer
    round_trip_s: float


class SimulatedRobot:
    """One simulation of a task family, driven through a session of a daemon."""

    def __init__(
        self,
        family: str,
        seed: int = 0,
        task: dict[str, float] | None = None,
        changes: Sequence[Change] = (),
    ):
        """
        Args:
            family: a registered task family.
            seed: of the start states, of random changes and, without `task`, of the task.
            task: value of every task parameter.
            changes: of the task, each with its time, counted in steps of this robot's life.
                Whoever drives the robot is not told.

        Raises:
            UnknownName: there is no such family.
            InvalidTask: the parameters of the task or of a change are not the family's.
        """
        self.env = sim.make(family, 1, 1, seed, ENDLESS, changes, testing=True)
        given = None if task is None else _one(task)
        self._obs, _ = self.env.reset(options={"tasks": given} if given else None)
        self._reward, self._done, self._moved, self._changed = 0.0, False, False, False
        self.steps = self.episode = 0

    @property
    def task(self) -> dict[str, float]:
        """The hidden task."""
        return {name: float(values[0]) for name, values in self.env.tasks.items()}

    @property
    def episodes_over(self) -> int:
        """How many episodes have ended, at their horizon or in a terminal state."""
        return self.episode + self._done

    @property
    def changes_ahead(self) -> list[Change]:
        """The changes that no step has been made after."""
        schedule = self.env.schedule
        times = schedule.times[:, 0]
        return [c for c, at in zip(schedule.changes, times, strict=True) if at >= self.steps]

    def tick(self, session: Stepped, first: bool = False, timeout_s: float = 1.0) -> Moment:
        """One control step: send the observation, apply the action that comes back.

        Args:
            session: where to send it.
            first: the first one of this robot: a new task to a new session, another
                episode of its task to a session that goes on.
            timeout_s: after that the fallback action is applied.
        """
        if self._done:
            self._obs, _ = self.env.reset(options={"reset_mask": np.array([True])})
            self.episode += 1
        applied = self.env.applied_action[0] if self._moved else None
        starts = self._done or (first and session.resumed)
        new_task = first and not session.resumed
        started = time.perf_counter()
        answer = session.step(self._obs[0], self._reward, applied, starts, new_task, timeout_s)
        round_trip = time.perf_counter() - started
        task, changed = self.task, self._changed
        self._obs, reward, terminated, truncated, info = self.env.step(answer.action[None])
        self._reward, self._moved = float(reward[0]), True
        self._done = bool(terminated[0] or truncated[0])
        self._changed = bool(info["changed"][0])
        self.steps += 1
        measured = self.env.family.measure(self.env.world)
        return Moment(
            self.steps, self.episode, answer.seq, self._reward, task, changed,
            float("nan") if measured is None else float(measured[0]), answer, round_trip,
        )  # fmt: skip


def drive(
    robot: SimulatedRobot,
    session: Stepped,
    steps: int,
    before: Callable[[int], None] = lambda step: None,
    rate_hz: float | None = None,
    episodes: int | None = None,
    patience: int = PATIENCE,
) -> Iterator[Moment]:
    """Tick a robot, as fast as answers come or at a fixed rate.

    Args:
        robot: which.
        session: where its observations go.
        steps: how many control steps.
        before: called with the number of each step before it is made.
        rate_hz: control steps per second; late ones are not made up for.
        episodes: stop earlier, when so many of the robot's are over; None: never.
        patience: steps in a row that the daemon may be silent.

    Raises:
        TimeoutError: it has been silent for longer.
    """
    deadline, silent = time.monotonic(), 0
    for step in range(steps):
        before(step)
        moment = robot.tick(session, first=step == 0)
        silent = silent + 1 if moment.answer.silent else 0
        if silent > patience:
            raise TimeoutError(f"the daemon has not answered {silent} observations in a row")
        yield moment
        if episodes is not None and robot.episodes_over >= episodes:
            return
        if rate_hz:
            deadline = max(deadline + 1 / rate_hz, time.monotonic() - 1 / rate_hz)
            time.sleep(max(0.0, deadline - time.monotonic()))


def parse_task(text: str, family: str) -> dict[str, float]:
    """A task from ``name=value[,name=value]``.

    Raises:
        InvalidTask: it cannot be read, names other parameters than the family's, or one twice.
        UnknownName: there is no such family.
    """
    known = {p.name: p for p in sim.family(family).task_parameters}
    try:
        pairs = [(k.strip(), float(v)) for k, v in (part.split("=") for part in text.split(","))]
    except ValueError:
        raise InvalidTask(
            f"{text!r} is no task: expected name=value,... of {list(known)}"
        ) from None
    task = dict(pairs)
    if len(task) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidTask(f"{text!r} gives {twice!r} twice")
    if set(task) != set(known):
        raise InvalidTask(f"{family} takes the task parameters {list(known)}, got {list(task)}")
    return task


def _one(task: dict[str, float]) -> Tasks:
    values: dict[str, NDArray[np.float64]] = {k: np.array([v]) for k, v in task.items()}
    return values
