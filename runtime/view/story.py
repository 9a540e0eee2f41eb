"""A session as curves over time, from a recording or from the tap."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.episodes import EpisodeReturns
from runtime.messages import ActionFlag, Limit, ObservationFlag
from runtime.recording.ticks import RecordedSession, RecordedTick
from runtime.spec import Manifest
from runtime.view.beliefs import band, beliefs

MOST_POINTS = 6000
"""Of a curve; more than a screen has columns are told by their extremes."""
LONGEST_GAP_S = 2.0
"""A curve is broken where no tick came for longer."""
_EPISODE_START, _NEW_TASK = int(ObservationFlag.EPISODE_START), int(ObservationFlag.NEW_TASK)
_MARKS = (
    (ActionFlag.SWAPPED, "swap", "another policy acts"),
    (ActionFlag.FRESH, "fresh", "memory at the prior"),
    (ActionFlag.GAP, "gap", "sequence numbers missing"),
)


@dataclass
class Curve:
    """A number over the ticks."""

    name: str
    values: np.ndarray
    """(ticks,); nan where there is none."""


@dataclass
class Chart:
    """Curves on common axes."""

    title: str
    unit: str
    curves: list[Curve]
    low: float | None = None
    high: float | None = None
    """Limits that are drawn, such as an action's."""


@dataclass
class Story:
    """What a page shows of a session."""

    session: int
    policies: list[str]
    """In the order in which they acted."""
    time_s: np.ndarray
    """(ticks,), since the first one."""
    began: float
    """Wall clock of the first tick, seconds since 1970."""
    beliefs: list[Chart]
    """Three curves each: mean, and the ends of the band of two standard deviations."""
    adaptation: np.ndarray
    """(ticks,), values of `Adaptation`."""
    actions: list[Chart]
    """Two curves each: applied and requested."""
    latency: Chart
    episodes: list[tuple[float, float]] = field(default_factory=list)
    """Time [s] at which each whole episode ended, and its return."""
    marks: list[dict[str, Any]] = field(default_factory=list)
    """What happened: ``at`` [s], ``kind``, ``text``."""
    facts: dict[str, str] = field(default_factory=dict)
    """Figures in words, by their names."""


def tell(session: RecordedSession, last_s: float | None = None) -> Story:
    """The story of a recorded session.

    Args:
        session: with at least one tick.
        last_s: only so many seconds before its last tick; None for all.
    """
    labels = session.labels
    ticks = session.ticks
    if last_s is not None:
        since_ns = ticks[-1].at_ns - round(1e9 * last_s)
        ticks = [tick for tick in ticks if tick.at_ns >= since_ns]
    began_ns = ticks[0].at_ns
    time_s = np.array([1e-9 * (tick.at_ns - began_ns) for tick in ticks])
    policies = list(dict.fromkeys(labels.get(t.generation) or t.policy or "?" for t in ticks))
    manifests = [m for p in policies if (m := session.manifests.get(p)) is not None]
    of_tick = [labels.get(tick.generation) or tick.policy for tick in ticks]
    queue, inference = (
        np.array([getattr(t, n) for t in ticks]) for n in ("queue_us", "inference_us")
    )
    story = Story(
        session.session, policies, time_s, 1e-9 * began_ns,
        _beliefs(ticks, of_tick, session.manifests),
        np.array([tick.adaptation for tick in ticks]),
        _actions(ticks, manifests[-1] if manifests else None),
        Chart("Time in the daemon", "us", [Curve("queue and inference", queue + inference),
                                           Curve("inference", inference)]),
    )  # fmt: skip
    story.episodes = _episodes(ticks, time_s)
    story.marks = _marks(ticks, time_s, labels) + _events(session.events, ticks, time_s)
    story.marks.sort(key=lambda mark: mark["at"])
    story.facts = _facts(story, ticks)
    return story


def _beliefs(
    ticks: Sequence[RecordedTick],
    of_tick: Sequence[str | None],
    manifests: Mapping[str, Manifest],
) -> list[Chart]:
    """One chart per number believed in; after a swap to a policy that believes in the same one,
    its curve goes on."""
    charts: dict[str, Chart] = {}
    for label in dict.fromkeys(label for label in of_tick if label in manifests):
        assert label is not None
        rows = [i for i, found in enumerate(of_tick) if found == label and ticks[i].belief.size]
        if not rows:
            continue
        values = np.stack([ticks[i].belief for i in rows]).astype(float)
        for belief in beliefs(manifests[label]):
            chart = charts.get(belief.name)
            if chart is None:
                curves = [Curve(n, np.full(len(ticks), math.nan)) for n in ("mean", "low", "high")]
                chart = Chart(belief.name, belief.unit, curves, belief.low, belief.high)
                charts[belief.name] = chart
            mean, wide = band(belief, values)
            for curve, found in zip(chart.curves, (mean, mean - wide, mean + wide), strict=True):
                curve.values[rows] = found
    return list(charts.values())


def _actions(ticks: Sequence[RecordedTick], manifest: Manifest | None) -> list[Chart]:
    applied = np.stack([tick.applied for tick in ticks]).astype(float)
    requested = np.stack([tick.requested for tick in ticks]).astype(float)
    charts = []
    for i in range(applied.shape[1]):
        known = manifest.action[i] if manifest and i < len(manifest.action) else None
        curves = [Curve("applied", applied[:, i]), Curve("requested", requested[:, i])]
        if known is None:
            charts.append(Chart(f"action {i}", "", curves))
        else:
            charts.append(Chart(known.name, known.unit, curves, known.low, known.high))
    return charts


def _episodes(ticks: Sequence[RecordedTick], time_s: np.ndarray) -> list[tuple[float, float]]:
    returns, expected, ended = EpisodeReturns(1), ticks[0].seq, []
    for tick, at in zip(ticks, time_s.tolist(), strict=True):
        if tick.seq != expected:
            returns.lose_track()
        expected = tick.seq + 1
        found = returns.follow(tick.seq, tick.observation_flags, tick.reward)
        if found is not None:
            ended.append((at, found))
    return ended


def _marks(
    ticks: Sequence[RecordedTick], time_s: np.ndarray, labels: Mapping[int, str]
) -> list[dict[str, Any]]:
    """What the flags of ticks tell."""
    marks = []
    for tick, at in zip(ticks, time_s.tolist(), strict=True):
        if tick.observation_flags & _NEW_TASK:
            marks.append({"at": at, "kind": "task", "text": "a new task"})
        elif tick.observation_flags & _EPISODE_START:
            marks.append({"at": at, "kind": "episode", "text": "an episode begins"})
        for flag, kind, text in _MARKS if tick.flags else ():
            # The first tick of a task begins at the prior: that is said already.
            if tick.flags & flag and not (kind == "fresh" and tick.observation_flags & _NEW_TASK):
                policy = labels.get(tick.generation)
                text = f"{policy} acts" if kind == "swap" and policy else text
                marks.append({"at": at, "kind": kind, "text": text})
    return marks


def _events(
    events: Sequence[Mapping[str, Any]], ticks: Sequence[RecordedTick], time_s: np.ndarray
) -> list[dict[str, Any]]:
    """What else happened (docs/events.md), at the first tick that it concerns."""
    seqs = [tick.seq for tick in ticks]
    marks = []
    for event in events:
        index = int(np.searchsorted(seqs, event.get("seq", 0)))
        if not seqs[0] <= event.get("seq", -1) or index >= len(seqs):
            continue
        besides = {k: v for k, v in event.items() if k in _TOLD and v is not None}
        text = ", ".join(f"{k} {_words(v)}" for k, v in besides.items())
        marks.append({"at": float(time_s[index]), "kind": "event",
                      "text": f"{event['event']}{': ' + text if text else ''}"})  # fmt: skip
    return marks


def _words(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


_TOLD = ("new", "old", "carry", "replayed_steps", "reason", "candidate", "frozen", "stopped",
         "last_good", "exception")  # fmt: skip
"""Keys of an event that are worth a word."""


def _facts(story: Story, ticks: Sequence[RecordedTick]) -> dict[str, str]:
    span = float(story.time_s[-1])
    latency = story.latency.curves[0].values
    limited = np.array([tick.limits for tick in ticks])
    facts = {
        "ticks": f"{len(ticks):,}",
        "seconds": f"{span:.1f}",
        "rate": f"{(len(ticks) - 1) / span:.1f} Hz" if span else "-",
        "latency p50 / p99": "{:.0f} / {:.0f} us".format(*np.percentile(latency, [50, 99])),
        "actions limited": f"{100 * np.mean(limited != 0):.1f} %",
        "missing": f"{ticks[-1].seq - ticks[0].seq + 1 - len(ticks):,}",
    }
    if limited.any():
        reasons = [str(limit.name).lower() for limit in Limit if (limited & limit).any()]
        facts["actions limited"] += f" ({', '.join(reasons)})"
    if story.episodes:
        first, last = story.episodes[0][1], story.episodes[-1][1]
        name = f"return, first and last of {len(story.episodes)} episodes"
        facts[name] = f"{first:.1f}, {last:.1f}"
    return facts
