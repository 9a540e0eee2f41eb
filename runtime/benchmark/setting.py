"""What every scenario of `adaptd bench` shares: its settings, its figures, its clean start."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from runtime.benchmark.floor import Floor
from runtime.benchmark.spread import spread
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig
from runtime.messages import Limit
from runtime.spec import POLICY, Manifest
from runtime.store import Store

BY_FALLBACK = Limit.NOT_FINITE | Limit.STALE | Limit.SLOW | Limit.INVALID | Limit.STUCK
BY_FALLBACK |= Limit.STOPPED
"""Limits whose answer is no policy's action: a figure that counts them is not about a policy."""


@dataclass(frozen=True)
class Setting:
    """How to measure."""

    policy: str
    """``name`` or ``name@version``."""
    models: Path
    repeats: int
    ticks: int
    """Round trips per repeat, back to back."""
    seconds: float
    """Length of each paced phase."""
    sessions: tuple[int, ...]
    minutes: float
    """Of the soak."""

    @cached_property
    def manifest(self) -> Manifest:
        """Of the policy."""
        return Store(self.models).manifest(self.policy)

    def floor(self, sessions: int = 1) -> Floor:
        """The floor of this policy, for the frames of so many sessions at once."""
        model = Store(self.models).find(self.policy) / POLICY
        return Floor(model, self.manifest.obs_size, max(1000, 4 * sessions))

    def daemon(
        self, endpoint: str | None = None, key: Path | None = None, **settings: str
    ) -> DaemonProcess:
        """A daemon of its own for a scenario, with room for its sessions."""
        room = str(max(*self.sessions, 100) + 10)
        return DaemonProcess(self.models, endpoint, key, max_sessions=room, **settings)

    def observations(self, count: int = 1, steps: int = 64) -> np.ndarray:
        """Observations in [-1, 1), (steps, count, O); no two alike, as if a sensor were stuck."""
        shape = (steps, count, self.manifest.obs_size)
        return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


class NotMeasured(InvalidConfig):
    """A scenario that cannot be had with these bundles or on this machine, and why."""


@dataclass(frozen=True)
class Figure:
    """One measured thing: a number per repeat, and what it ought to be."""

    key: str
    """In the JSON line."""
    words: str
    """In the table, with the unit."""
    values: np.ndarray
    """(repeats,)"""
    form: str = ",.0f"
    target: float | None = None
    better: Literal["low", "high"] = "low"
    total: bool = False
    """Whether the sum of the repeats tells it, as of things counted, and not their median."""

    @property
    def number(self) -> float | None:
        """The median or the total; None where nothing was measured."""
        if not len(self.values) or not np.isfinite(self.values).all():
            return None
        return float(np.sum(self.values) if self.total else np.median(self.values))

    @property
    def reached(self) -> bool | None:
        """Whether the target is; None without one."""
        if self.target is None:
            return None
        if self.number is None:
            return False
        return self.number <= self.target if self.better == "low" else self.number >= self.target

    def cells(self) -> tuple[str, str, str]:
        """Words, number with spread, and target, for a table."""
        if self.number is None:
            told = "none"
        elif self.total or len(self.values) == 1:
            told = f"{self.number:{self.form}}"
        else:
            told = spread(self.values, self.form)
        if self.target is None:
            return self.words, told, ""
        bound = f"{'<=' if self.better == 'low' else '>='} {self.target:{self.form}}"
        return self.words, told, f"{bound} {'reached' if self.reached else 'MISSED'}"


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """Nothing that exists already is looked at by the collector while inside."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def apart(*served: int) -> Iterator[bool]:
    """The served processes on one core, all their threads, and this one on another.

    Gives whether that was possible: there may be one core only.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        yield False
        return
    for pid in served:
        pin(pid, {cores[0]})
    pin(os.getpid(), {cores[1]})
    try:
        yield True
    finally:
        pin(os.getpid(), set(cores))


def pin(pid: int, cores: set[int]) -> None:
    """Keep a process, every thread of it, on some cores; threads made later inherit it."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)
