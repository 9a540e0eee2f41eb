"""Killed at once and started again: how long until its sessions are answered."""

import threading
import time
from typing import NamedTuple

import numpy as np

from runtime.benchmark.setting import Figure, Setting

SESSIONS = 100
GIVE_UP_S = 20.0
STEP_TIMEOUT_S = 0.1


class Restart(NamedTuple):
    """One restart; times from the kill, nan where it never came to that."""

    first_s: float
    """Until a session was answered."""
    all_s: float
    """Until all were."""
    lost: int
    """Sessions that the daemon did not know any more."""


def restart(setting: Setting) -> list[Figure]:
    """kill -9, start, and the sessions' next ticks."""
    count = min(SESSIONS, max(setting.sessions))
    found = [_restart_once(setting, count) for _ in range(setting.repeats)]
    first, every, lost = (np.array(column, float) for column in zip(*found, strict=True))
    return [
        Figure(
            "restart_s", f"kill -9 to the first answer, {count} sessions [s]", first, ".2f", 1.0
        ),
        Figure("restart_all_s", "to the answers of all of them [s]", every, ".2f"),
        Figure("restart_lost", "sessions lost", lost, target=0, total=True),
    ]


def _restart_once(setting: Setting, count: int) -> Restart:
    with setting.daemon() as daemon, daemon.client() as client:
        fleet = client.fleet(setting.policy, count)
        observations = setting.observations(count)
        for observation in observations[:20]:
            fleet.step(observation, timeout_s=GIVE_UP_S)
        killed = time.perf_counter()
        daemon.kill()
        starting = threading.Thread(target=daemon.start)
        starting.start()
        first, answered, lost = float("nan"), np.zeros(count, bool), set[int]()
        i = 20
        while answered.sum() + len(lost) < count and time.perf_counter() - killed < GIVE_UP_S:
            answer = fleet.step(observations[i % len(observations)], timeout_s=STEP_TIMEOUT_S)
            i += 1
            lost |= set(answer.refused)
            heard = ~answer.silent
            heard[list(answer.refused)] = False
            if heard.any() and np.isnan(first):
                first = time.perf_counter() - killed
            answered |= heard
        every = time.perf_counter() - killed if answered.all() else float("nan")
        starting.join()
        return Restart(first, every, len(lost))
