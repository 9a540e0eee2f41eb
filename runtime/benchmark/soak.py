"""Hours in minutes: sessions tick, come and go, policies are swapped; does memory stay put?"""

import os
import time
from pathlib import Path

import numpy as np

from runtime.benchmark.fleet import Host
from runtime.benchmark.pacing import pace
from runtime.benchmark.setting import Figure, NotMeasured, Setting
from runtime.benchmark.spread import slope
from runtime.benchmark.swap import find_other
from runtime.client import Client
from runtime.errors import ProtocolError

SESSIONS = 50
PERIOD_S = 0.020
ROUND_S = 1.0
SWAP_EVERY = 5
"""Rounds between swaps of all sessions."""
PATIENCE_S = 60.0
"""A swap of all sessions replays the history of each, one after the other."""
SETTLING = 0.2
"""Share of the soak that the line is not fitted to: rings and caches fill up first."""


def soak(setting: Setting) -> list[Figure]:
    """RSS of the daemon about once a second, and the line through it."""
    count = min(SESSIONS, max(setting.sessions))
    with setting.daemon() as daemon, Client(daemon.endpoint, PATIENCE_S) as client:
        host = Host(client.fleet(setting.policy, count), setting.observations(count))
        labels = policies_of(client, setting)
        steps = max(1, round(min(ROUND_S, 15 * setting.minutes) / PERIOD_S))
        begun, samples = time.monotonic(), []
        rounds = swaps = refused = 0
        while time.monotonic() - begun < 60 * setting.minutes:
            pace(host.ask, steps, PERIOD_S)
            _come_and_go(client, setting)
            rounds += 1
            if len(labels) > 1 and rounds % SWAP_EVERY == 0:
                swaps += 1
                refused += not _swap_all(client, labels[swaps % len(labels)])
            samples.append((time.monotonic() - begun, rss_bytes(daemon.process.pid)))
    return _figures(np.array(samples), host, swaps, refused)


def _figures(samples: np.ndarray, host: Host, swaps: int, refused: int) -> list[Figure]:
    seconds, rss = samples.T
    fitted = seconds >= SETTLING * seconds[-1]
    rise, error = slope(seconds[fitted] / 60, rss[fitted] / 1024)

    def one(key: str, words: str, value: float, form: str = ",.0f") -> Figure:
        return Figure(key, words, np.array([value]), form)

    over_time = [
        one(f"soak_rss_mb_at_{share}", f"RSS after {minutes:.1f} min [MB]", megabytes, ".1f")
        for share, minutes, megabytes in _glances(seconds / 60, rss / 1e6)
    ]
    return [
        *over_time,
        one("soak_slope_kb_per_min", f"slope after the first {SETTLING:.0%} [kB/min]", rise, ".2f"),
        one("soak_slope_error", "its standard error [kB/min]", error, ".2f"),
        Figure("soak_slope_in_errors", "slope in standard errors",
               np.array([abs(rise) / error if error else float(rise != 0)]), ".1f", 2.0),
        one("soak_samples", "samples", len(samples)),
        one("soak_swaps", "swaps of all sessions", swaps),
        Figure("soak_swaps_refused", "swaps refused", np.array([float(refused)]), target=0),
        Figure("soak_unanswered", "ticks unanswered", np.array([float(host.unanswered)]), target=0),
    ]  # fmt: skip


def _glances(minutes: np.ndarray, megabytes: np.ndarray) -> list[tuple[int, float, float]]:
    """A few moments of the soak: percent of it, minutes, megabytes."""
    shares = (0, 20, 40, 60, 80, 100)
    at = [round(share / 100 * (len(minutes) - 1)) for share in shares]
    return [(s, minutes[i], megabytes[i]) for s, i in zip(shares, at, strict=True)]


def policies_of(client: Client, setting: Setting) -> list[str]:
    """The policy, and another to swap to where there is one."""
    session = client.open(setting.policy)
    try:
        return list(find_other(client, session))
    except NotMeasured:
        return [session.facts["policy"]]
    finally:
        session.close()


def _come_and_go(client: Client, setting: Setting) -> None:
    session = client.open(setting.policy)
    for observation in setting.observations(steps=10)[:, 0]:
        session.step(observation)
    session.close()


def _swap_all(client: Client, label: str) -> bool:
    try:
        client.request("swap", policy=label)
    except ProtocolError:
        return False
    return True


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
