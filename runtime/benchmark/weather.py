"""What happens to a daemon and its network meanwhile: kills, swaps, faults, at random moments."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from runtime.benchmark.bad_network import WORDS, BadNetwork
from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import ProtocolError

KILL_S, SWAP_S, FAULT_S, LOOK_S = 60.0, 7.0, 3.0, 1.0
"""Mean times between two; of looks at the memory."""
KILLS_END = 2 / 3
"""Share of the time after which nobody is killed any more: memory takes a long life to judge."""
SETTLED_S = 120.0
"""Age of a daemon from which its memory is looked at: rings, caches and batches fill up first."""
SWAP_TIMEOUT_S = 30.0


@dataclass
class Weather:
    """What has happened so far, and what will."""

    daemon: DaemonProcess
    network: BadNetwork
    labels: list[str]
    """Policies to swap to."""
    rng: random.Random
    seconds: float
    """How long it lasts."""
    events: Counter[str] = field(default_factory=Counter)
    highest_mb: float = 0.0
    looks: list[tuple[float, float]] = field(default_factory=list)
    """At the daemon that lives: its age [min] and the memory of its own [kB]."""
    _swapping: threading.Thread | None = None

    def __post_init__(self) -> None:
        now = self._born = time.monotonic()
        self._next = {"kill": now + KILL_S, "swap": now + SWAP_S, "fault": now + FAULT_S}
        self._next["look"] = now
        self._last_kill = now + KILLS_END * self.seconds

    def blow(self) -> None:
        """Whatever is due."""
        now = time.monotonic()
        means = {"kill": KILL_S, "swap": SWAP_S, "fault": FAULT_S, "look": LOOK_S}
        for event, mean_s in means.items():
            if now >= self._next[event]:
                self._next[event] = now + self.rng.uniform(0.5, 1.5) * mean_s
                getattr(self, f"_{event}")()

    def _kill(self) -> None:
        if time.monotonic() > self._last_kill:
            return
        self.looks.clear()
        self.daemon.kill()
        self.daemon.start()
        self._born = time.monotonic()
        self.events["kills"] += 1

    def _look(self) -> None:
        anonymous, resident = memory_mb(self.daemon.process.pid)
        self.highest_mb = max(self.highest_mb, resident)
        age_s = time.monotonic() - self._born
        if age_s > SETTLED_S:
            self.looks.append((age_s / 60, 1e3 * anonymous))

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
        if self._swapping is not None:
            self._swapping.join()


def memory_mb(pid: int) -> tuple[float, float]:
    """What a process holds in RAM [MB]: what is its own, and that with the files it has mapped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    own, whole = (int(found[name].split()[0]) for name in ("RssAnon", "VmRSS"))
    return own * 1024 / 1e6, whole * 1024 / 1e6
