"""`adaptd bench`: latency and throughput beside their floor, in the same run.

Every scenario starts its own daemon and asks it through `runtime.client`. Whatever has a
floor is measured in turn with it, repeat by repeat, so that a busy moment of the machine
falls on both; a ratio is the median of the repeats' ratios.
"""

import os
import platform
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import zmq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.benchmark.fleet import sessions as many_sessions
from runtime.benchmark.keys import keys
from runtime.benchmark.latency import lone, paced, tap
from runtime.benchmark.restart import restart
from runtime.benchmark.setting import Figure, NotMeasured, Setting
from runtime.benchmark.soak import soak
from runtime.benchmark.storm import storm
from runtime.benchmark.swap import swap
from runtime.benchmark.watched import watched
from runtime.errors import InvalidConfig, UnknownName

ALWAYS = (
    "floor_p50_us", "adaptd_p50_us", "ratio_p50", "ratio_p99", "sessions", "actions_per_s",
    "missed_ticks", "swap_gap_us", "keys_ratio_p50",
)  # fmt: skip
"""Keys that the JSON line has whatever was measured; null where it was not."""


class Scenario(NamedTuple):
    """Something to measure."""

    title: str
    measure: Callable[[Setting], list[Figure]]


SCENARIOS = {
    "lone": Scenario("one session, back to back", lone),
    "paced": Scenario("one session at 1 kHz", paced),
    "sessions": Scenario("many sessions of one host", many_sessions),
    "swap": Scenario("a swap every second under 1 kHz", swap),
    "tap": Scenario("others listening", tap),
    "watched": Scenario("recorder, view and exporter on the tap, 200 Hz", watched),
    "restart": Scenario("kill -9 and restart", restart),
    "keys": Scenario("one session over tcp, with keys and without", keys),
    "soak": Scenario("memory over time", soak),
    "storm": Scenario("kills, swaps and a bad network, against an offline reference", storm),
}
USUAL = "lone,paced,sessions,swap,tap,watched,restart,keys"


def bench(
    scenarios: str = USUAL,
    policy: str = "halfcheetah-vel-rl2-gru",
    models: Path = Path("exported_models"),
    repeats: int = 5,
    ticks: int = 2000,
    seconds: float = 5.0,
    sessions: str = "1,10,100,1000",
    minutes: float = 30.0,
    json: bool = False,
) -> None:
    """Measure latency, throughput, swaps and restarts on this machine.

    Args:
        scenarios: which, by commas: lone, paced, sessions, swap, tap, watched, restart,
            keys, soak, storm.
        policy: name or name@version.
        models: folder of bundles.
        repeats: of each measurement; fewer than 5 say little.
        ticks: round trips of a repeat, back to back.
        seconds: length of a repeat at a fixed rate.
        sessions: how many at once, by commas.
        minutes: length of the soak, and of the storm.
        json: print one JSON line and nothing else.
    """
    chosen = [name.strip() for name in scenarios.split(",")]
    for name in chosen:
        if name not in SCENARIOS:
            raise UnknownName("scenario", name, SCENARIOS)
    setting = make_setting(policy, models, repeats, ticks, seconds, sessions, minutes)
    found: dict[str, list[Figure]] = {}
    left_out: dict[str, str] = {}
    console = Console(quiet=json)
    for name in chosen:
        try:
            found[name] = SCENARIOS[name].measure(setting)
            console.print(as_table(SCENARIOS[name].title, found[name]))
        except NotMeasured as reason:
            left_out[name] = str(reason)
            console.print(f"{SCENARIOS[name].title}: not measured: {reason}")
    console.print(f"medians (lowest to highest) of {repeats} repeats, in turn with the floor")
    if json:
        print(as_json(setting, found, left_out))


def make_setting(
    policy: str,
    models: Path,
    repeats: int,
    ticks: int,
    seconds: float,
    sessions: str,
    minutes: float,
) -> Setting:
    """The settings, checked.

    Raises:
        InvalidConfig: a number that cannot be.
        UnknownName, InvalidBundle: the policy cannot be read.
    """
    try:
        counts = tuple(sorted({int(count) for count in sessions.split(",")}))
    except ValueError:
        raise InvalidConfig(f"--sessions {sessions!r} are not numbers by commas") from None
    numbers = {"repeats": repeats, "ticks": ticks, "seconds": seconds, "minutes": minutes}
    for name, number in {**numbers, "sessions": counts[0]}.items():
        if not number > 0:
            raise InvalidConfig(f"--{name} must be greater than 0, got {number}")
    setting = Setting(policy, models, repeats, ticks, seconds, counts, minutes)
    assert setting.manifest  # read now, so that a wrong name is one sentence
    return setting


def as_table(title: str, figures: list[Figure]) -> Table:
    """Figures with their targets beside them."""
    table = Table(title=title, box=None, title_justify="left")
    for heading in ("what", "measured", "target"):
        table.add_column(heading)
    for figure in figures:
        table.add_row(*map(Text, figure.cells()))  # as text: a unit in brackets is no markup
    return table


def as_json(setting: Setting, found: dict[str, list[Figure]], left_out: dict[str, str]) -> str:
    """One line: each figure's number by its key, its spread and whether it reached its target."""
    figures = [figure for scenario in found.values() for figure in scenario]
    content: dict[str, Any] = dict.fromkeys(ALWAYS)
    content |= {figure.key: figure.number for figure in figures}
    content["spread"] = {
        f.key: [float(np.min(f.values)), float(np.max(f.values))]
        for f in figures
        if len(f.values) > 1 and not f.total and f.number is not None
    }
    content["reached"] = {f.key: f.reached for f in figures if f.reached is not None}
    content |= {"scenarios": list(found), "left_out": left_out}
    content |= {"policy": setting.policy, "repeats": setting.repeats, "machine": machine()}
    return dumps(content)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "zeromq": zmq.zmq_version(),
    }
