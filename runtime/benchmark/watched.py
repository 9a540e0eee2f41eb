"""Recorder, viewer and exporter on the tap: what the control path pays for them."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from runtime.benchmark.latency import Robot, time_asking
from runtime.benchmark.pacing import pace
from runtime.benchmark.setting import Figure, NotMeasured, Setting, apart, frozen_garbage
from runtime.benchmark.side_process import SideProcess
from runtime.benchmark.spread import percentiles_us
from runtime.errors import InvalidConfig
from runtime.extras import need

PERIOD_S = 0.005
"""200 Hz: quicker than the shipped policies' robots, and slow enough that cores are idle."""
TARGET = 1.1
WATCHERS = {
    "record": ("--spare-gib", "0"),
    "view": ("--port", "0"),
    "exporter": ("--port", "0"),
}
"""Commands of `adaptd`, and their settings besides the endpoint."""


def watched(setting: Setting) -> list[Figure]:
    """One session at 200 Hz, in turn with nobody and with all three on the tap.

    The daemon is on one core; the robot and the watchers share the others.

    Raises:
        NotMeasured: their libraries are not installed.
    """
    try:
        need("record", "foxglove", "mcap", "orjson")
        need("monitor", "prometheus_client")
    except InvalidConfig as error:
        raise NotMeasured(str(error)) from None
    ticks = max(1, round(setting.seconds / PERIOD_S))
    alone, beside, used = [], [], []
    with (
        setting.daemon() as daemon,
        daemon.client() as client,
        apart(daemon.process.pid),
        frozen_garbage(),
    ):
        robot = Robot(client.open(setting.policy), setting.observations()[:, 0])
        time_asking(robot.ask, 200)
        for _ in range(setting.repeats):
            alone.append(percentiles_us(pace(robot.ask, ticks, PERIOD_S).trips, 50, 99))
            with _watchers(daemon.endpoint, robot) as watchers:
                before = sum(watcher.cpu_s() for watcher in watchers)
                beside.append(percentiles_us(pace(robot.ask, ticks, PERIOD_S).trips, 50, 99))
                spent = sum(watcher.cpu_s() for watcher in watchers) - before
                used.append(100 * spent / (ticks * PERIOD_S))
    return _figures(np.array(alone), np.array(beside), np.array(used))


def _figures(alone: np.ndarray, beside: np.ndarray, used: np.ndarray) -> list[Figure]:
    """Percentiles (repeats, 2) with nobody and with all, and the watchers' cores in percent."""
    figures = []
    for column, (point, target) in enumerate((("p50", None), ("p99", TARGET))):
        nobody, everybody = alone[:, column], beside[:, column]
        figures += [
            Figure(f"watched_alone_{point}_us", f"{point} with nobody on the tap [us]", nobody),
            Figure(
                f"watched_{point}_us", f"{point} with recorder, view and exporter [us]", everybody
            ),
            Figure(f"watched_ratio_{point}", f"{point} ratio", everybody / nobody, ".2f", target),
        ]
    words = "cores that the three take [%]"
    return [*figures, Figure("watched_watchers_percent", words, used, ".0f")]


@contextmanager
def _watchers(endpoint: str, robot: Robot) -> Iterator[list[SideProcess]]:
    """The three processes, each of which has seen a tick or says that it is ready."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="adaptd-bench-"))
        started = []
        for command, settings in WATCHERS.items():
            into = (folder,) if command == "record" else ()
            watcher = SideProcess("runtime.cli", command, *into, "--endpoint", endpoint, *settings)
            stack.callback(watcher.kill)
            started.append(watcher)
        for watcher in started:
            while not watcher.has_line():
                robot.ask(0)
                time.sleep(0.005)
            if not watcher.hear():
                raise NotMeasured("a process on the tap ended before it looked; try it by itself")
        yield started
