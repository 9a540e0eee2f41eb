"""Sessions that tick together, every answer of theirs held to an offline reference."""

import base64
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays

from runtime.benchmark.offline import Offline, Told
from runtime.benchmark.resending import Answered, Resending, Silent
from runtime.client import Client
from runtime.errors import ProtocolError
from runtime.messages import ActionFlag, Limit

PERIOD_S = 0.020
TASK_STEPS = 500
"""After so many the task is a new one: the ring holds all of a task, for replays."""
TOO_OLD_NS = 1_100_000_000
"""`guard.max_age_s`, and what clocks and scheduling may add."""
REWARD = 0.1
ASKED_AGAIN_S = 2.0
"""A daemon that is killed takes a request with it."""


class Convoy:
    """Some sessions of one policy over one network, all at the same tick."""

    def __init__(
        self,
        ids: list[int],
        endpoint: str,
        operator: str,
        observations: NDArray[np.float32],
        offline: Offline,
    ):
        """
        Args:
            ids: of the sessions, which have not ticked yet.
            endpoint: where their observations go.
            operator: the daemon's own endpoint, for what is asked of it.
            observations: (steps, n, O), sent over and over.
            offline: the reference, of as many sessions.
        """
        self.ids, self._endpoint, self._operator = ids, endpoint, operator
        self._observations, self._offline = observations, offline
        self.tally: Counter[str] = Counter()
        self.hz = 0.0
        """Ticks per second, once it has run."""

    def run(self, stopping: threading.Event) -> None:
        """Tick at 50 Hz until it is time to stop, or as fast as all are answered."""
        began = due = time.monotonic()
        with Resending(self.ids, self._endpoint) as robots:
            while not stopping.is_set():
                try:
                    self._tick(robots)
                except Silent as silent:
                    self.tally["unanswered"] += silent.count
                    break
                due += PERIOD_S
                time.sleep(max(0.0, due - time.monotonic()))
                due = max(due, time.monotonic() - PERIOD_S)
        self.hz = self.tally["ticks"] / (time.monotonic() - began)

    def _tick(self, robots: Resending) -> None:
        tally, tick = self.tally, self.tally["ticks"]
        new_task = tick % TASK_STEPS == 0
        obs = self._observations[tick % len(self._observations)]
        answered = robots.ask(tick, obs, REWARD, new_task)
        expected = self._offline.step(Told(tick, obs, REWARD, new_task), self._swapped(answered))
        self._offline.acted(answered.actions)
        tally["ticks"] += 1
        tally["late"] += answered.took_s > PERIOD_S
        tally["resent"] += answered.resent
        tally["wrong"] += int((answered.requested != expected).any(axis=1).sum())
        tally["stale"] += _stale(answered)

    def _swapped(self, answered: Answered) -> dict[int, str]:
        """The policies that took over at this tick, by place; none of these sessions is on its
        way to the next one."""
        places = np.flatnonzero(answered.flags & int(ActionFlag.SWAPPED))
        return {int(i): self._status(self.ids[i])["policy"] for i in places}

    def _status(self, session: int) -> dict[str, Any]:
        while True:
            with Client(self._operator, ASKED_AGAIN_S) as client:
                try:
                    (row,) = client.request("status", session=session)["sessions"]
                    return row
                except TimeoutError:
                    continue

    def compare(self) -> None:
        """Count the sessions that are lost, and those whose carry or count is not the reference's.

        Nothing may be under way.
        """
        for i, session in enumerate(self.ids):
            try:
                with Client(self._operator, 60) as client:
                    taken = client.request("snapshot", session=session)
            except ProtocolError:
                self.tally["lost"] += 1
                continue
            arrays = load_arrays(base64.b64decode(taken["snapshot"]))
            expected = self._offline.carry_of(i)
            same = all(arrays[f"carry.{n}"].tobytes() == v.tobytes() for n, v in expected.items())
            row, ticks = self._status(session), self.tally["ticks"]
            self.tally["other"] += not same or row["next_seq"] != ticks or row["steps"] != ticks


def _stale(answered: Answered) -> int:
    """Actions of a policy on observations that were too old when they came."""
    acted = answered.limits & int(Limit.STALE) == 0
    return int((acted & (answered.ages_ns > TOO_OLD_NS)).sum())
