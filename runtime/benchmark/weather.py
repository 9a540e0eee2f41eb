"""What happens to a daemon and its network meanwhile: kills, swaps, faults, at random moments."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.benchmark.bad_network import WORDS, BadNetwork
from runtime.benchmark.spread import slope
from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import ProtocolError

KILL_S, SWAP_S, FAULT_S, LOOK_S = 60.0, 7.0, 3.0, 1.0
"""Mean times between two; of looks at the memory."""
SETTLED_S = 20.0
"""Age of a daemon from which its memory is looked at: caches fill up first."""
ENOUGH = 10
"""Looks at one daemon for a line through them."""
SWAP_TIMEOUT_S = 30.0


@dataclass
class Weather:
    """What has happened so far, and what will."""

    daemon: DaemonProcess
    network: BadNetwork
    labels: list[str]
    """Policies to swap to."""
    rng: random.Random
    events: Counter[str] = field(default_factory=Counter)
    highest_mb: float = 0.0
    slopes: list[float] = field(default_factory=list)
    """Rise of memory within the life of each daemon that lived long enough [kB/min]."""
    _looks: list[tuple[float, float]] = field(default_factory=list)
    _swapping: threading.Thread | None = None

    def __post_init__(self) -> None:
        now = self._born = time.monotonic()
        self._next = {"kill": now + KILL_S, "swap": now + SWAP_S, "fault": now + FAULT_S}
        self._next["look"] = now

    def blow(self) -> None:
        """Whatever is due."""
        now = time.monotonic()
        means = {"kill": KILL_S, "swap": SWAP_S, "fault": FAULT_S, "look": LOOK_S}
        for event, mean_s in means.items():
            if now >= self._next[event]:
                self._next[event] = now + self.rng.uniform(0.5, 1.5) * mean_s
                getattr(self, f"_{event}")()

    def _kill(self) -> None:
        self._end_of_life()
        self.daemon.kill()
        self.daemon.start()
        self._born = time.monotonic()
        self.events["kills"] += 1

    def _look(self) -> None:
        anonymous, resident = memory_mb(self.daemon.process.pid)
        self.highest_mb = max(self.highest_mb, resident)
        age_s = time.monotonic() - self._born
        if age_s > SETTLED_S:
            self._looks.append((age_s / 60, 1e3 * anonymous))

    def _end_of_life(self) -> None:
        if len(self._looks) >= ENOUGH:
            self.slopes.append(slope(*np.array(self._looks).T)[0])
        self._looks.clear()

    def _fault(self) -> None:
        self.network.word = self.rng.choice([None, *WORDS])
        self.events["faults"] += self.network.word is not None

    def _swap(self) -> None:
        if self._swapping is not None and self._swapping.is_alive():
            return
        label = self.rng.choice(self.labels)
        self._swapping = threading.Thread(target=self._ask_for, args=(label,), daemon=True)
        self._swapping.start()

    def _ask_for(self, label: str) -> None:
        with Client(self.daemon.endpoint, SWAP_TIMEOUT_S) as client:
            try:
                client.request("swap", policy=label)
                self.events["swaps"] += 1
            except (ProtocolError, TimeoutError):  # a kill came between
                self.events["swaps_cut_short"] += 1

    def calm(self) -> None:
        """Let everything come to an end."""
        self.network.word = None
        self._end_of_life()
        if self._swapping is not None:
            self._swapping.join()


def memory_mb(pid: int) -> tuple[float, float]:
    """What a process holds in RAM [MB]: what is its own, and that with the files it has mapped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    own, whole = (int(found[name].split()[0]) for name in ("RssAnon", "VmRSS"))
    return own * 1024 / 1e6, whole * 1024 / 1e6
