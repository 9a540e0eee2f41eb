"""A swap every second while a robot ticks at 1 kHz."""

import json
import time
from dataclasses import dataclass, field

import numpy as np

from runtime.benchmark.latency import PERIOD_S, REWARD, time_asking
from runtime.benchmark.pacing import Paced, pace
from runtime.benchmark.setting import Figure, NotMeasured, Setting, frozen_garbage
from runtime.benchmark.side_process import SideProcess
from runtime.benchmark.spread import in_turn, percentiles_us
from runtime.client import Client, Session
from runtime.errors import ProtocolError


@dataclass
class WatchedRobot:
    """Steps one session and keeps which policy answered, and when."""

    session: Session
    observations: np.ndarray
    generations: list[int] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)

    def ask(self, i: int) -> bool:
        """Tick `i`; whether it was answered."""
        answer = self.session.step(self.observations[i % len(self.observations)], REWARD)
        if not answer.silent:
            self.generations.append(answer.generation)
            self.answered_s.append(time.perf_counter())
        return not answer.silent

    def gaps_us(self) -> np.ndarray:
        """From the last answer of each policy to the first of the next one, (swaps,)."""
        swapped = np.flatnonzero(np.diff(self.generations))
        return 1e6 * np.diff(self.answered_s)[swapped]


@dataclass
class Phase:
    """One phase of ticks, with or without swaps."""

    paced: Paced
    gaps_us: np.ndarray
    swaps: list[dict]


def swap(setting: Setting) -> list[Figure]:
    """Phases without and with swaps in turn.

    Raises:
        NotMeasured: no other bundle fits the session.
    """
    with setting.daemon() as daemon, daemon.client() as client:
        session = client.open(setting.policy)
        robot = WatchedRobot(session, setting.observations()[:, 0])
        time_asking(robot.ask, 200)
        policies = find_other(client, session)
        operator = SideProcess(
            "runtime.benchmark.operator", daemon.endpoint, str(session.id), *policies
        )
        try:
            operator.hear()
            with frozen_garbage():
                phases = in_turn(
                    lambda: run_phase(setting, robot, None),
                    lambda: run_phase(setting, robot, operator),
                    setting.repeats,
                )
        finally:
            operator.kill()
    return _figures([without for without, _ in phases], [swapped for _, swapped in phases])


def find_other(client: Client, session: Session) -> tuple[str, str]:
    """The session's policy and another that fits it, of the same name if there is one.

    Raises:
        NotMeasured: there is none.
    """
    rows = client.request("policies")["policies"]
    own = session.facts["policy"]
    labels = [row["policy"] for row in rows if "broken" not in row and row["policy"] != own]
    labels.sort(key=lambda label: label.partition("@")[0] != own.partition("@")[0])
    for label in labels:
        try:
            client.request("swap", policy=label, session=session.id)
        except ProtocolError:
            continue
        client.request("rollback", session=session.id)  # taken back before any tick
        return own, label
    raise NotMeasured(f"no other bundle fits a session of {own}, so there is nothing to swap to")


def run_phase(setting: Setting, robot: WatchedRobot, operator: SideProcess | None) -> Phase:
    """Ticks at 1 kHz; with an operator, one swap a second meanwhile."""
    ticks = max(1, round(setting.seconds / PERIOD_S))
    every_s = min(1.0, setting.seconds)
    if operator is not None:
        operator.tell(f"{max(1, int(setting.seconds / every_s))} {every_s}".encode())
    robot.generations.clear()
    robot.answered_s.clear()
    found = pace(robot.ask, ticks, PERIOD_S)
    swaps = [] if operator is None else json.loads(operator.hear())
    return Phase(found, robot.gaps_us(), swaps)


def _figures(without: list[Phase], swapped: list[Phase]) -> list[Figure]:
    calm = np.array([percentiles_us(p.paced.trips, 99.9)[0] for p in without])
    busy = np.array([percentiles_us(p.paced.trips, 99.9)[0] for p in swapped])
    gaps = [p.gaps_us for p in swapped if len(p.gaps_us)]
    swaps = [swap for phase in swapped for swap in phase.swaps]
    refused = sum(swap["refused"] is not None for swap in swaps)
    took_ms = 1e3 * np.array([s["took_s"] for s in swaps if s["refused"] is None])

    def counted(key: str, words: str, values: list[int], target: float | None = None) -> Figure:
        return Figure(key, words, np.array(values, float), target=target, total=True)

    return [
        Figure("no_swap_p999_us", "p99.9 without swaps [us]", calm),
        Figure("swap_p999_us", "p99.9 with swaps [us]", busy),
        Figure("ratio_p999", "p99.9 ratio", busy / calm, ".2f", 2.0),
        counted("no_swap_missed_ticks", "ticks missed without", [p.paced.missed for p in without]),
        counted("missed_ticks", "ticks missed with", [p.paced.missed for p in swapped], 0),
        counted("no_swap_long_trips", "round trips longer than a period, without",
                [p.paced.longer_than(PERIOD_S) for p in without]),
        counted("swap_long_trips", "round trips longer than a period, with",
                [p.paced.longer_than(PERIOD_S) for p in swapped]),
        Figure("swap_gap_us", f"old policy's last to new one's first answer, {PERIOD_S * 1e6:.0f} "
               "us apart by the clock [us]", np.array([np.median(g) for g in gaps])),
        Figure("swap_gap_worst_us", "the longest of them [us]", np.array([g.max() for g in gaps])),
        Figure("swap_request_ms", "request to reply [ms]", took_ms, ".1f"),
        counted("swaps_seen", "swaps seen by the robot", [len(p.gaps_us) for p in swapped]),
        counted("swaps_asked", "swaps asked for", [len(swaps)]),
        counted("swaps_refused", "swaps refused", [refused], 0),
    ]  # fmt: skip
