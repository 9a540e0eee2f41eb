"""The ledger as Prometheus metrics; docs/monitoring.md lists them."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from runtime.exporter.histogram import Histogram
from runtime.exporter.ledger import OUTCOMES, Ledger, PolicyLedger, SessionLedger
from runtime.messages import Adaptation, Limit

COUNTED = {
    "ticks": ("adaptd_ticks", "Observations answered by an action."),
    "steps": ("adaptd_steps", "Ticks in which the policy made a step."),
    "gaps": ("adaptd_gaps", "Places where sequence numbers were missing."),
    "missed": ("adaptd_missed_observations", "Sequence numbers that never came."),
    "repeated": ("adaptd_duplicates", "Observations that came again and got the same answer."),
    "refused": ("adaptd_refused_observations", "Observations answered by an error."),
    "limited": ("adaptd_limited_actions", "Actions that are not the requested ones."),
    "stale": (
        "adaptd_stale_observations",
        "Observations not acted on: too old, too seldom, declared invalid or stuck.",
    ),
}
"""Metrics of the counters of `status`, exact even where the exporter is late."""
TIMES = {
    "latency": ("adaptd_tick_latency_seconds", "From an observation's arrival to its action."),
    "queue": ("adaptd_queue_seconds", "From an observation's arrival to its step."),
    "inference": ("adaptd_inference_seconds", "ONNX Runtime, per session of a batch."),
}
REASONS = (
    "unknown_key", "revoked_key", "no_key", "not_decrypted", "replayed", "broken_off", "protocol",
    "malformed",
)  # fmt: skip
"""Why connections are not let in. Each has its series, so that it is seen to rise from 0."""
SESSION = ("session", "policy")


class Metrics:
    """A collector: gives what the ledger holds at the time of a scrape."""

    def __init__(self, ledger: Ledger, lock: threading.Lock, most_sessions: int):
        """
        Args:
            ledger: written by another thread under `lock`.
            lock: held while it is read here.
            most_sessions: sessions that get series of their own, those of the lowest ids.
        """
        self._ledger, self._lock, self._most = ledger, lock, most_sessions

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        with self._lock:
            metrics = [
                *_of_daemon(self._ledger.daemon),
                *_of_sessions(self._ledger.rows.values() if self._ledger.daemon else ()),
                *_of_policies(self._ledger.policies),
                *_of_swaps(self._ledger),
                *_of_each_session(self._ledger, self._most),
            ]
        yield from metrics


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _of_daemon(facts: dict[str, Any]) -> Iterator[Metric]:
    yield _gauge("adaptd_up", "Whether the daemon answers.", float(bool(facts)))
    if not facts:
        return
    refused = CounterMetricFamily(
        "adaptd_refused_frames", "Frames answered by an error, by code.", labels=["code"]
    )
    for code, count in facts["refused_frames"].items():
        refused.add_metric([code], count)
    yield refused
    bundles = CounterMetricFamily(
        "adaptd_refused_bundles", "Bundles refused, by why.", labels=["kind"]
    )
    for kind, count in facts["refused_bundles"].items():
        bundles.add_metric([kind], count)
    yield bundles
    lessons = CounterMetricFamily(
        "adaptd_lost_lessons", "Lessons that came to nothing, by why.", labels=["why"]
    )
    for why, count in facts["lost_lessons"].items():
        lessons.add_metric([why], count)
    yield lessons
    yield CounterMetricFamily(
        "adaptd_refused_requests", "Control requests refused.", value=facts["refused_requests"]
    )
    yield CounterMetricFamily(
        "adaptd_dropped_messages", "Messages not answered at all.", value=facts["dropped_messages"]
    )
    if facts["access"] is not None:
        yield from _of_access(facts["access"])
    quarantined = len(facts["quarantined"])
    yield _gauge("adaptd_quarantined_policies", "Policies in quarantine.", quarantined)
    yield _gauge("adaptd_loaded_policies", "Policies in memory.", len(facts["loaded"]))
    yield _gauge("adaptd_resident_memory_bytes", "Of the daemon.", facts["resident_bytes"])


def _of_access(facts: dict[str, Any]) -> Iterator[Metric]:
    """Of a daemon that asks for keys."""
    yield _gauge("adaptd_clients", "Clients on the allow-list.", facts["clients"])
    yield _gauge("adaptd_connections", "Connections that are open.", facts["connections"])
    broken = float(bool(facts["trouble"]))
    yield _gauge("adaptd_allowlist_broken", "Whether the list has become unreadable.", broken)
    messages = CounterMetricFamily(
        "adaptd_refused_access", "Messages that their sender may not send, by plane and code.",
        labels=["plane", "code"],
    )  # fmt: skip
    for plane, codes in facts["refused_messages"].items():
        for code, count in codes.items():
            messages.add_metric([plane, code], count)
    yield messages
    yield from _by_reason(
        "adaptd_refused_handshakes", "Connections that were not let in.",
        dict.fromkeys(REASONS, 0) | facts["refused_handshakes"],
    )  # fmt: skip
    yield from _by_reason(
        "adaptd_ended_connections", "Connections that the daemon ended.", facts["ended_connections"]
    )


def _by_reason(name: str, text: str, counts: dict[str, int]) -> Iterator[Metric]:
    family = CounterMetricFamily(name, text, labels=["reason"])
    for reason, count in counts.items():
        family.add_metric([reason], count)
    yield family


def _of_sessions(rows: Iterable[dict[str, Any]]) -> Iterator[Metric]:
    """How many sessions are how."""
    sessions = GaugeMetricFamily(
        "adaptd_sessions", "Sessions awake, by adaptation.", labels=["policy", "adaptation"]
    )
    switched = GaugeMetricFamily(
        "adaptd_sessions_switched", "Sessions asleep, frozen, stopped, on probation or shadowed.",
        labels=["policy", "state"],
    )  # fmt: skip
    awake: Counter[tuple[str, str]] = Counter()
    states: Counter[tuple[str, str]] = Counter()
    for row in rows:
        policy = row["policy"]
        # Every status has its series, so that one that comes up is seen to rise from 0.
        awake.update({(policy, status.name.lower()): 0 for status in Adaptation})
        awake[policy, row["adaptation"]] += not row["asleep"]
        for state in ("asleep", "frozen", "stopped"):
            states[policy, state] += row[state]
        states[policy, "probation"] += bool(row["probation"])
        states[policy, "shadowed"] += bool(row["candidate"])
    for labels, count in awake.items():
        sessions.add_metric(labels, count)
    for labels, count in states.items():
        switched.add_metric(labels, count)
    yield from (sessions, switched)


def _of_policies(policies: dict[str, PolicyLedger]) -> Iterator[Metric]:
    for counter, (name, text) in COUNTED.items():
        family = CounterMetricFamily(name, text, labels=["policy"])
        for policy, ledger in policies.items():
            family.add_metric([policy], ledger.counters[counter])
        yield family
    for which, (name, text) in TIMES.items():
        histograms = HistogramMetricFamily(name, text, labels=["policy"])
        for policy, ledger in policies.items():
            found: Histogram = getattr(ledger, which)
            histograms.add_metric([policy], found.cumulative(), found.sum_s)
        yield histograms
    limited = CounterMetricFamily(
        "adaptd_limits", "Limits that acted, as seen on the tap.", labels=["policy", "reason"]
    )
    for policy, ledger in policies.items():
        for limit in Limit:
            limited.add_metric([policy, str(limit.name).lower()], ledger.limited[limit])
    yield limited


def _of_swaps(ledger: Ledger) -> Iterator[Metric]:
    swaps = CounterMetricFamily(
        "adaptd_swaps", "What became of swaps, by the policy that acted when it was told.",
        labels=["policy", "outcome"],
    )  # fmt: skip
    policies = {policy for policy, _ in ledger.outcomes} | set(ledger.policies)
    for policy, outcome in product(sorted(policies), OUTCOMES):
        swaps.add_metric([policy, outcome], ledger.outcomes[policy, outcome])
    yield swaps
    missed = sum(ledger.continuity.missed.values())
    yield CounterMetricFamily(
        "adaptd_exporter_missed_ticks", "Ticks that the exporter was too slow to see.", value=missed
    )


def _of_each_session(ledger: Ledger, most: int) -> Iterator[Metric]:
    """Series of single sessions, of the first ones only: a fleet would make too many."""
    chosen = sorted(ledger.sessions.keys() & ledger.rows.keys())
    now_s = time.monotonic()

    def gauge(name: str, text: str, value: Any) -> Metric:
        family = GaugeMetricFamily(name, text, labels=SESSION)
        for session in chosen[:most]:
            number = value(ledger.sessions[session])
            if not np.isnan(number):
                family.add_metric([str(session), ledger.rows[session]["policy"]], number)
        return family

    yield gauge(
        "adaptd_session_adaptation", "0 unadapted, 1 adapting, 2 adapted, 3 invalid.",
        lambda found: int(found.adaptation),
    )  # fmt: skip
    yield gauge(
        "adaptd_session_belief_width", "Mean standard deviation of the belief about the task.",
        lambda found: found.belief_width,
    )  # fmt: skip
    yield gauge(
        "adaptd_session_idle_seconds", "Since its last tick.", lambda found: now_s - found.seen_s
    )
    yield gauge("adaptd_session_episode_return", "Of the last whole episode.", _last_return)
    left_out = max(0, len(chosen) - most)
    yield _gauge(
        "adaptd_exporter_sessions_left_out", "Sessions without series of theirs.", left_out
    )


def _last_return(found: SessionLedger) -> float:
    return found.episodes.returns[-1] if found.episodes.returns else np.nan
