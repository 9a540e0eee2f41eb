"""One session: round trips back to back, at 1 kHz, and with onlookers on the tap."""

import time
from collections.abc import Callable

import numpy as np

from runtime.benchmark.floor import Floor
from runtime.benchmark.pacing import Paced, pace
from runtime.benchmark.setting import BY_FALLBACK, Figure, Setting, apart, frozen_garbage
from runtime.benchmark.side_process import SideProcess
from runtime.benchmark.spread import in_turn, percentiles_us
from runtime.client import Session
from runtime.messages import Limit

PERIOD_S = 0.001
ONLOOKERS = (0, 1, 3)
REWARD = 0.1
Percentiles = tuple[float, ...]


class Robot:
    """Steps one session through observations, over and over, and keeps what limits acted."""

    def __init__(self, session: Session, observations: np.ndarray):
        self._step, self._observations = session.step, list(observations)
        self.limits: list[Limit] = []

    def ask(self, i: int) -> bool:
        """Tick `i`; whether it was answered."""
        answer = self._step(self._observations[i % len(self._observations)], REWARD)
        self.limits.append(answer.limits)
        return not answer.silent

    @property
    def by_fallback(self) -> int:
        """Answers that were no policy's action."""
        return sum(bool(limits & BY_FALLBACK) for limits in self.limits)


def time_asking(ask: Callable[[int], object], ticks: int) -> np.ndarray:
    """Round trips back to back, (ticks,) [s]."""
    trips = np.empty(ticks)
    clock = time.perf_counter
    for i in range(ticks):
        started = clock()
        ask(i)
        trips[i] = clock() - started
    return trips


def lone(setting: Setting) -> list[Figure]:
    """One session back to back, beside the floor: as the daemon comes, and without spinning.

    The daemons and the floor are on one core, the robot is on another: where all may share
    one, what is measured is the kernel's choice of the moment.
    """
    with (
        setting.daemon() as daemon,
        setting.daemon(realtime__spin_us="0") as sleeper,
        setting.floor() as floor,
        daemon.client() as client,
        sleeper.client() as sleepers,
        apart(daemon.process.pid, sleeper.process.pid, floor.process.pid) as pinned,
        frozen_garbage(),
    ):
        robot = Robot(client.open(setting.policy), setting.observations()[:, 0])
        other = Robot(sleepers.open(setting.policy), setting.observations()[:, 0])
        asked = (_asks(floor), robot.ask, other.ask)

        def measure() -> list[Percentiles]:
            return [percentiles_us(time_asking(ask, setting.ticks), 50, 99) for ask in asked]

        measure()  # all warm up once
        robot.limits.clear()
        rows = np.array([measure() for _ in range(setting.repeats)])  # (repeats, 3, 2)
    return [
        *_beside("", rows[:, 0], rows[:, 1]),
        *_beside("sleeping_", rows[:, 0], rows[:, 2], "adaptd with spin_us = 0"),
        _fallbacks("", robot),
        _count("ticks", len(robot.limits)),
        _count("cores_apart", int(pinned)),
    ]


def paced(setting: Setting) -> list[Figure]:
    """One session at 1 kHz, beside the floor at 1 kHz."""
    ticks = max(1, round(setting.seconds / PERIOD_S))
    with (
        setting.daemon() as daemon,
        setting.floor() as floor,
        daemon.client() as client,
        apart(daemon.process.pid, floor.process.pid),
        frozen_garbage(),
    ):
        robot = Robot(client.open(setting.policy), setting.observations()[:, 0])
        for ask in (robot.ask, _asks(floor)):
            time_asking(ask, 200)
        robot.limits.clear()
        rows = in_turn(
            lambda: pace(_asks(floor), ticks, PERIOD_S),
            lambda: pace(robot.ask, ticks, PERIOD_S),
            setting.repeats,
        )
    floors, ours = [f for f, _ in rows], [a for _, a in rows]
    return [
        *_beside("paced_", _percentiles(floors), _percentiles(ours)),
        _missed("paced_floor_missed_ticks", "ticks missed, floor", floors, None),
        _missed("paced_missed_ticks", "ticks missed, adaptd", ours, 0),
        _count("paced_floor_long_trips", sum(p.longer_than(PERIOD_S) for p in floors)),
        _count("paced_long_trips", sum(p.longer_than(PERIOD_S) for p in ours)),
        _count("paced_late_starts", sum(p.late_starts for p in floors + ours)),
        _fallbacks("paced_", robot),
    ]


def tap(setting: Setting) -> list[Figure]:
    """One session back to back, with nobody, one and three others listening to every tick."""
    found: dict[int, list[Percentiles]] = {count: [] for count in ONLOOKERS}
    with setting.daemon() as daemon, daemon.client() as client:
        robot = Robot(client.open(setting.policy), setting.observations()[:, 0])
        time_asking(robot.ask, 200)
        for _ in range(setting.repeats):
            for count, rows in found.items():
                rows.append(_overlooked(setting, robot, daemon.endpoint, count))
    p50 = {count: np.array([row[0] for row in rows]) for count, rows in found.items()}
    figures = [
        Figure(f"tap_{count}_p50_us", f"p50 with {count} subscribers [us]", values)
        for count, values in p50.items()
    ]
    ratio = p50[ONLOOKERS[-1]] / p50[0]
    words = f"p50 with {ONLOOKERS[-1]} subscribers over p50 with none"
    return [*figures, Figure("tap_ratio_p50", words, ratio, ".2f")]


def _overlooked(setting: Setting, robot: Robot, endpoint: str, count: int) -> Percentiles:
    listeners = [SideProcess("runtime.benchmark.listener", endpoint) for _ in range(count)]
    try:
        for listener in listeners:
            _await_ready(listener, robot)
        with frozen_garbage():
            return percentiles_us(time_asking(robot.ask, setting.ticks), 50, 99)
    finally:
        for listener in listeners:
            listener.kill()


def _await_ready(listener: SideProcess, robot: Robot) -> None:
    """Tick until the listener has seen a tick."""
    while not listener.has_line():
        robot.ask(0)
        time.sleep(0.005)
    listener.hear()


def _asks(floor: Floor) -> Callable[[int], bool]:
    socket, frame = floor.socket, floor.frame

    def ask(_: int) -> bool:
        socket.send(frame)
        socket.recv()
        return True

    return ask


def _percentiles(phases: list[Paced]) -> np.ndarray:
    return np.array([percentiles_us(phase.trips, 50, 99) for phase in phases])


def _beside(
    prefix: str, floors: np.ndarray, ours: np.ndarray, name_of_ours: str = "adaptd"
) -> list[Figure]:
    """p50 and p99 of both, (repeats, 2) each, and their ratios, repeat by repeat."""
    figures = []
    for column, (name, bound) in enumerate((("p50", 1.3), ("p99", 1.5))):
        floor, adaptd = floors[:, column], ours[:, column]
        figures += [
            Figure(f"{prefix}floor_{name}_us", f"{name} floor [us]", floor),
            Figure(f"{prefix}adaptd_{name}_us", f"{name} {name_of_ours} [us]", adaptd),
            Figure(f"{prefix}ratio_{name}", f"{name} ratio", adaptd / floor, ".2f", bound),
        ]
    return figures


def _missed(key: str, words: str, phases: list[Paced], target: float | None) -> Figure:
    values = np.array([float(phase.missed) for phase in phases])
    return Figure(key, words, values, target=target, total=True)


def _fallbacks(prefix: str, robot: Robot) -> Figure:
    values = np.array([float(robot.by_fallback)])
    words = "answers that were the fallback action"
    return Figure(f"{prefix}fallback_answers", words, values, target=0, total=True)


def _count(key: str, number: int) -> Figure:
    return Figure(key, key.replace("_", " "), np.array([float(number)]), total=True)
