"""What `adaptd top` knows of each session; no terminal and no sockets."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runtime.episodes import EpisodeReturns
from runtime.messages import Kind, unpack
from runtime.tap import FRAMES_OF_TICK, Frames

LATENCIES = 500
"""Ticks over which percentiles are taken."""
RETURNS = 12
"""Episodes in a sparkline."""
BARS = "▁▂▃▄▅▆▇█"
_ACTION = int(Kind.ACTION)
TROUBLES = ("gaps", "limited", "stale", "refused")
"""Counters that tell of something wrong when they grow."""


class Glimpse(NamedTuple):
    """What the board wants of a tick."""

    session: int
    seq: int
    flags: int
    """Of the observation."""
    reward: float
    latency_ns: int
    """From the observation's arrival to the action: queue and inference."""


def glimpse(frames: Frames) -> Glimpse | None:
    """What a message of the tap shows; None if it is no tick.

    A whole `Tick` would take several times as long.
    """
    if len(frames) != FRAMES_OF_TICK:
        return None
    answer = unpack(frames[2])
    if answer.kind != _ACTION:
        return None
    seen = unpack(frames[1])
    latency_ns = answer.queue_ns + answer.inference_ns
    return Glimpse(seen.session, seen.seq, seen.flags, seen.reward, latency_ns)


@dataclass
class Row:
    """One session."""

    facts: dict[str, Any]
    """Of `status`."""
    rate_hz: float = math.nan
    """Ticks per second between the last two looks at `status`."""
    grown: frozenset[str] = frozenset()
    """Which of `TROUBLES` grew since the look before."""
    latencies: deque[int] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    episodes: EpisodeReturns = field(default_factory=lambda: EpisodeReturns(RETURNS))
    seen_s: float = 0.0
    _next_seq: int | None = None

    def percentiles_us(self, *points: float) -> list[float]:
        """Of the latest latencies [us]; nan where none were seen."""
        ordered = sorted(self.latencies) or [math.nan]
        last = len(ordered) - 1
        return [ordered[min(last, int(point / 100 * len(ordered)))] / 1000 for point in points]

    def take_status(self, facts: dict[str, Any], now_s: float) -> None:
        """Another look at `status`."""
        before, passed = self.facts, now_s - self.seen_s
        if self.seen_s and passed > 0:
            self.rate_hz = max(0, facts["next_seq"] - before["next_seq"]) / passed
        self.grown = frozenset(name for name in TROUBLES if facts[name] > before[name])
        self.facts, self.seen_s = facts, now_s

    def take_tick(self, tick: Glimpse) -> None:
        """A tick of this session."""
        if self._next_seq not in (None, tick.seq):
            self.episodes.lose_track()
        self._next_seq = tick.seq + 1
        self.latencies.append(tick.latency_ns)
        self.episodes.follow(tick.seq, tick.flags, tick.reward)


def _trouble(row: Row) -> tuple[Any, ...]:
    facts = row.facts
    unwell = facts["stopped"], facts["adaptation"] == "invalid", len(row.grown)
    return (*(-int(sign) for sign in unwell), facts["asleep"], facts["session"])


def _adaptation(row: Row) -> tuple[Any, ...]:
    order = ("invalid", "unadapted", "adapting", "adapted")
    return row.facts["asleep"], order.index(row.facts["adaptation"]), row.facts["session"]


ORDERS: dict[str, Callable[[Row], Any]] = {
    "session": lambda row: row.facts["session"],
    "trouble": _trouble,
    "adaptation": _adaptation,
    "rate": lambda row: (-row.rate_hz if row.rate_hz > 0 else 0, row.facts["session"]),
}
"""By what the sessions may be ordered."""


class Board:
    """All sessions, in an order."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.ids: list[int] = []
        """As they are shown."""
        self.order = "session"
        self.daemon: dict[str, Any] = {}
        """What `status` says besides the sessions."""

    def take_status(self, facts: dict[str, Any], now_s: float) -> None:
        """Another look at all sessions; those that are not in it are gone."""
        found = {row["session"]: row for row in facts["sessions"]}
        self.daemon = facts
        self.rows = {i: self.rows.get(i) or Row(row) for i, row in found.items()}
        for session, row in found.items():
            self.rows[session].take_status(row, now_s)
        self.sort()

    def take_messages(self, messages: Iterable[Frames]) -> None:
        """What came from the tap."""
        for frames in messages:
            tick = glimpse(frames)
            if tick is not None and (row := self.rows.get(tick.session)) is not None:
                row.take_tick(tick)

    def sort(self) -> None:
        """Order the sessions anew."""
        self.ids = sorted(self.rows, key=lambda i: ORDERS[self.order](self.rows[i]))

    def next_order(self) -> str:
        """Order by the next of `ORDERS`; its name."""
        names = list(ORDERS)
        self.order = names[(names.index(self.order) + 1) % len(names)]
        self.sort()
        return self.order


def sparkline(values: Iterable[float]) -> str:
    """One bar per number, from the lowest to the highest."""
    numbers = [value for value in values if math.isfinite(value)]
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    if low == high:
        return BARS[3] * len(numbers)
    top = len(BARS) - 1
    return "".join(BARS[round(top * (value - low) / (high - low))] for value in numbers)
