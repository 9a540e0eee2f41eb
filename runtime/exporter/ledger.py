"""What the exporter adds up: exact counters from `status`, distributions from the tap.

Counters of `status` are the daemon's own, so they miss nothing; the tap drops ticks of a
subscriber that is too slow, which is counted too.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.episodes import EpisodeReturns
from runtime.exporter.belief import width
from runtime.exporter.histogram import Histogram
from runtime.fleet_answer import HEADER
from runtime.messages import HEADER_SIZE, Adaptation, Kind, Limit
from runtime.spec import Manifest
from runtime.tap import Continuity, Frames

COUNTERS = ("ticks", "steps", "gaps", "missed", "repeated", "refused", "limited", "stale")
"""Of a session, that are added up by policy: those of `status`, and `ticks`."""
OUTCOMES = ("ready", "failed", "rolled_back", "sent_back")
"""What may become of a swap: it takes over at the next tick, could not be switched to, was
rolled back by hand, or by the daemon since the new policy misbehaved."""
_OUTCOME_OF = {"swap": "ready", "promotion": "ready", "swap_failure": "failed"}
UNKNOWN = "unknown"
_NS = 1e-9
Rows = dict[int, dict[str, Any]]


@dataclass
class PolicyLedger:
    """What all sessions of one policy did."""

    counters: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    """From an observation's arrival to its action."""
    queue: Histogram = field(default_factory=Histogram)
    inference: Histogram = field(default_factory=Histogram)
    limited: Counter[Limit] = field(default_factory=Counter)
    """Actions by what limited them; several limits may act on one."""


@dataclass
class SessionLedger:
    """The latest of one session."""

    adaptation: Adaptation = Adaptation.UNADAPTED
    belief_width: float = math.nan
    seen_s: float = math.nan
    episodes: EpisodeReturns = field(default_factory=lambda: EpisodeReturns(1))


@dataclass
class Ledger:
    """Everything that is exported."""

    label: Callable[[int, int], str | None]
    """The policy of a session's generation."""
    manifest: Callable[[int, int], Manifest | None]
    policies: defaultdict[str, PolicyLedger] = field(
        default_factory=lambda: defaultdict(PolicyLedger)
    )
    sessions: dict[int, SessionLedger] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    """Of the last `status`."""
    daemon: dict[str, Any] = field(default_factory=dict)
    """The whole of it; empty while the daemon does not answer."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Swaps by the policy that was to act and by `OUTCOMES`."""
    continuity: Continuity = field(default_factory=Continuity)

    def take_status(self, status: dict[str, Any]) -> None:
        """Another look at all sessions; an empty one if the daemon does not answer."""
        self.daemon = status
        if not status:
            return
        rows = {row["session"]: {**row, "ticks": _ticks(row)} for row in status["sessions"]}
        for session, row in rows.items():
            before = self.rows.get(session)
            counters = self.policies[row["policy"]].counters
            for name in COUNTERS:
                counters[name] += _growth(before, row, name)
        self.rows = rows
        for gone in set(self.sessions) - set(rows):
            del self.sessions[gone]

    def take_event(self, event: dict[str, Any]) -> None:
        """What else happened to a session."""
        outcome = _OUTCOME_OF.get(event["event"])
        if event["event"] == "rollback":
            outcome = "sent_back" if "reason" in event else "rolled_back"
        if outcome is not None:
            self.outcomes[event.get("policy", UNKNOWN), outcome] += 1

    def take_ticks(self, messages: Iterable[Frames], now_s: float) -> None:
        """Ticks as they came from the tap, in their order.

        Args:
            messages: undecoded; ticks or refusals.
            now_s: when they were taken.
        """
        frames = [m for m in messages if m[2][5] == Kind.ACTION]
        if not frames:
            return
        seen, answers = _headers(frames, 1), _headers(frames, 2)
        sessions = answers["session"].tolist()
        self._follow(sessions, seen, answers)
        last = {session: i for i, session in enumerate(sessions)}
        generations = answers["generation"].tolist()
        labels = {s: self.label(s, generations[i]) or UNKNOWN for s, i in last.items()}
        of_tick = np.array([labels[session] for session in sessions])
        for label in set(labels.values()):
            _add(self.policies[label], answers[of_tick == label])
        for session, i in last.items():
            ledger = self.sessions[session]
            ledger.adaptation, ledger.seen_s = Adaptation(answers["adaptation"][i]), now_s
        stepped = {session: i for i, session in enumerate(sessions) if frames[i][3]}
        for session, i in stepped.items():
            self._measure(session, generations[i], frames[i][3])

    def _measure(self, session: int, generation: int, belief: bytes) -> None:
        """How wide the latest belief of a session is."""
        manifest = self.manifest(session, generation)
        if manifest is not None:
            found = width(manifest, np.frombuffer(belief, "<f4"))
            self.sessions[session].belief_width = found

    def _follow(self, sessions: list[int], seen: np.ndarray, answers: np.ndarray) -> None:
        """Sum up episodes, tick by tick; as plain numbers, which is quicker for so few."""
        told = (answers["seq"], answers["flags"], seen["flags"], seen["reward"])
        for session, seq, said, flags, reward in zip(
            sessions, *(t.tolist() for t in told), strict=True
        ):
            ledger = self.sessions.get(session)
            if ledger is None:
                ledger = self.sessions[session] = SessionLedger()
            if self.continuity.note(session, seq, said):
                ledger.episodes.lose_track()
            ledger.episodes.follow(seq, flags, reward)


def _ticks(row: dict[str, Any]) -> int:
    """Observations that were answered by an action, whether or not a step was made."""
    return row["next_seq"] - row["missed"]


def _growth(before: dict[str, Any] | None, row: dict[str, Any], name: str) -> int:
    """How much a session's counter grew; a session of the same id may have begun again."""
    if before is None or row[name] < before[name]:
        return row[name]
    return row[name] - before[name]


def _headers(frames: list[Frames], which: int) -> np.ndarray:
    return np.frombuffer(b"".join(m[which][:HEADER_SIZE] for m in frames), HEADER)


def _add(ledger: PolicyLedger, answers: np.ndarray) -> None:
    """Durations and limits of answers, (n,) headers."""
    queue, inference = _NS * answers["queue_ns"], _NS * answers["inference_ns"]
    ledger.queue.add(queue)
    ledger.inference.add(inference)
    ledger.latency.add(queue + inference)
    limits = answers["limits"]
    for limit in Limit if limits.any() else ():
        ledger.limited[limit] += int(np.count_nonzero(limits & limit))
