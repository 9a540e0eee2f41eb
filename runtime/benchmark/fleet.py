"""Many sessions of one simulator host: as fast as it goes, and at 50 Hz."""

import time
from dataclasses import dataclass

import numpy as np

from runtime.benchmark.floor import Floor
from runtime.benchmark.pacing import Paced, pace
from runtime.benchmark.setting import BY_FALLBACK, Figure, Setting, apart, frozen_garbage
from runtime.benchmark.spread import in_turn
from runtime.client import Client
from runtime.fleet import Fleet

PERIOD_S = 0.020
MANY = 1000
WAIT_S = 10.0
TARGET = 25_000.0
SHARES = (1.0, 0.75, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Of the most sessions, tried at 50 Hz in this order until none is late."""


@dataclass
class Host:
    """Steps a fleet through observations, over and over, and counts what was no action."""

    fleet: Fleet
    observations: np.ndarray
    """(steps, n, O)"""
    timeout_s: float = WAIT_S
    unanswered: int = 0
    by_fallback: int = 0

    def __post_init__(self) -> None:
        self.rewards = np.full(len(self.fleet), 0.1)

    def ask(self, i: int) -> bool:
        """Step `i`; whether every session was answered in time."""
        observations = self.observations[i % len(self.observations)]
        answer = self.fleet.step(observations, self.rewards, timeout_s=self.timeout_s)
        unanswered = int(np.count_nonzero(answer.silent)) + len(answer.refused)
        self.unanswered += unanswered
        self.by_fallback += int(np.count_nonzero(answer.limits & int(BY_FALLBACK)))
        return not unanswered


def sessions(setting: Setting) -> list[Figure]:
    """Actions per second with the daemon on one core, then the most sessions at 50 Hz."""
    most = max(setting.sessions)
    with (
        setting.daemon() as daemon,
        setting.floor(most) as floor,
        daemon.client() as client,
        apart(daemon.process.pid, floor.process.pid) as pinned,
        frozen_garbage(),
    ):
        figures = [_number("one_core", "daemon on a core of its own (1: yes)", float(pinned))]
        for count in setting.sessions:
            figures += _flat_out(setting, client, floor, count)
        figures.append(_number("sessions", "the most sessions", float(most)))
        best = next(f for f in figures if f.key == f"actions_per_s_{most}")
        target = TARGET if most >= MANY else None
        words = f"actions/s over {most} sessions"
        figures.append(Figure("actions_per_s", words, best.values, target=target, better="high"))
        return figures + _at_50_hz(setting, client, most) + _most_at_50_hz(setting, client, most)


def _flat_out(setting: Setting, client: Client, floor: Floor, count: int) -> list[Figure]:
    host = Host(client.fleet(setting.policy, count), setting.observations(count))
    steps = max(10, setting.ticks // count)

    def ours() -> float:
        started = time.perf_counter()
        for i in range(steps):
            host.ask(i)
        return count * steps / (time.perf_counter() - started)

    def bare() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            floor.ask_many(count)
        return count * steps / (time.perf_counter() - started)

    host.ask(0)
    rows = np.array(in_turn(bare, ours, setting.repeats))
    host.fleet.close()
    return [
        Figure(f"floor_actions_per_s_{count}", f"floor, actions/s, {count} at once", rows[:, 0]),
        Figure(f"actions_per_s_{count}", f"adaptd, actions/s, {count} sessions", rows[:, 1]),
        _number(f"unanswered_{count}", "unanswered or the fallback",
                float(host.unanswered + host.by_fallback), 0),
    ]  # fmt: skip


def _at_50_hz(setting: Setting, client: Client, count: int) -> list[Figure]:
    ticks = max(1, round(setting.seconds / PERIOD_S))
    fleet = client.fleet(setting.policy, count)
    Host(fleet, setting.observations(count)).ask(0)
    hosts = [Host(fleet, setting.observations(count), PERIOD_S) for _ in range(setting.repeats)]
    phases = [pace(host.ask, ticks, PERIOD_S) for host in hosts]
    missed = np.array([float(p.missed) for p in phases])
    late = np.array([float(host.unanswered) for host in hosts])
    by_fallback = np.array([float(host.by_fallback) for host in hosts])
    median, worst = _step_ms(phases, 50), _step_ms(phases, 100)
    fleet.close()
    return [
        Figure("fleet_step_p50_ms", f"step of {count} sessions at 50 Hz, p50 [ms]", median, ".1f"),
        Figure("fleet_step_worst_ms", "the longest step [ms]", worst, ".1f"),
        Figure("deadlines_missed", "steps not done 20 ms after they were due", missed,
               target=0, total=True),
        Figure("late_answers", "single answers later than 20 ms", late, target=0, total=True),
        Figure("fleet_fallback_answers", "answers that were the fallback action", by_fallback,
               target=0, total=True),
        _number("fleet_steps", "steps asked for", float(ticks * setting.repeats)),
    ]  # fmt: skip


def _most_at_50_hz(setting: Setting, client: Client, most: int) -> list[Figure]:
    """How many sessions keep every deadline: a coarse search downwards, one phase each."""
    ticks = max(1, round(setting.seconds / PERIOD_S))
    for share in SHARES:
        count = max(1, round(most * share))
        host = Host(client.fleet(setting.policy, count), setting.observations(count), PERIOD_S)
        host.ask(0)
        host.unanswered = 0
        missed = pace(host.ask, ticks, PERIOD_S).missed
        host.fleet.close()
        if not missed + host.unanswered:
            break
    else:
        count = 0
    words = f"the most sessions at 50 Hz, of {', '.join(f'{s:.0%}' for s in SHARES)}, none late"
    return [_number("sessions_at_50_hz", words, float(count))]


def _step_ms(phases: list[Paced], point: float) -> np.ndarray:
    return np.array([1e3 * np.nanpercentile(phase.trips, point) for phase in phases])


def _number(key: str, words: str, value: float, target: float | None = None) -> Figure:
    return Figure(key, words, np.array([value]), target=target, total=True)
