"""A story as one HTML file: no server, no network, nothing to install for who reads it."""

import json
import math
import os
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import NotSaved
from runtime.view.story import LONGEST_GAP_S, MOST_POINTS, Chart, Story

ASSETS = Path(__file__).parent / "assets"
DIGITS = 5
"""Significant digits of a number on the page."""


def write_page(story: Story, path: Path) -> None:
    """Write the page; a file that is there is replaced when the new one is whole.

    Raises:
        NotSaved: it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(page(story), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise NotSaved(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def page(story: Story) -> str:
    """The whole page."""
    parts = {name: (ASSETS / name).read_text(encoding="utf-8") for name in _PARTS}
    # "</" would end the script that holds it.
    data = json.dumps(content(story), allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    title = f"adaptd: session {story.session}"
    return _TEMPLATE.format(
        title=escape(title), library_style=parts["uPlot.min.css"], style=parts["report.css"],
        library=parts["uPlot.iife.min.js"], script=parts["report.js"], data=data,
    )  # fmt: skip


_PARTS = ("uPlot.min.css", "report.css", "uPlot.iife.min.js", "report.js")
_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{library_style}</style>
<style>{style}</style>
</head>
<body>
<main id="report"><noscript>This page draws its curves with JavaScript.</noscript></main>
<script type="application/json" id="story">{data}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""


def content(story: Story) -> dict[str, Any]:
    """The page's data: what assets/report.js draws."""
    thin = Thinned(story.time_s)
    return {
        "session": story.session,
        "policies": story.policies,
        "began": story.began,
        "facts": story.facts,
        "time": numbers(thin.time_s),
        "ticksPerPoint": thin.per_bucket,
        "beliefs": [_chart(chart, thin) for chart in story.beliefs],
        "adaptation": numbers(thin.last(story.adaptation.astype(float))),
        "actions": [_chart(chart, thin) for chart in story.actions],
        "latency": _chart(story.latency, thin),
        "episodes": [numbers(np.array(episode)) for episode in story.episodes],
        "marks": story.marks,
    }


def _chart(chart: Chart, thin: "Thinned") -> dict[str, Any]:
    # A band is drawn between two curves: its ends must be of the same moments as its mean.
    take = thin.last if len(chart.curves) == _BAND else thin.extremes
    return {
        "title": chart.title.replace("_", " "),
        "unit": chart.unit,
        "low": chart.low,
        "high": chart.high,
        "curves": [{"name": c.name, "values": numbers(take(c.values))} for c in chart.curves],
    }


_BAND = 3
"""Curves of a chart with a band."""


def numbers(values: np.ndarray) -> list[float | None]:
    """As JSON has them: few digits, null for what is not finite."""
    return [float(f"{v:.{DIGITS}g}") if math.isfinite(v) else None for v in values.tolist()]


class Thinned:
    """Few enough points for a browser: two per bucket of ticks, its extremes.

    A moment without a tick breaks the curves.
    """

    def __init__(self, time_s: np.ndarray, most: int = MOST_POINTS):
        """
        Args:
            time_s: (ticks,), of each tick.
            most: points.
        """
        ticks = len(time_s)
        self.per_bucket = 1 if ticks <= most else math.ceil(2 * ticks / most)
        self._starts = np.arange(0, ticks, self.per_bucket)
        ends = np.append(self._starts[1:], ticks) - 1
        kept = self._starts if self.per_bucket == 1 else np.ravel([self._starts, ends], "F")
        self._kept = kept
        self._breaks = np.flatnonzero(np.diff(time_s[kept]) > LONGEST_GAP_S) + 1
        before = time_s[kept][self._breaks - 1]
        self.time_s = np.insert(time_s[kept], self._breaks, before + 1e-3)
        """(points,)"""

    def last(self, values: np.ndarray) -> np.ndarray:
        """The values at the points' moments, (points,)."""
        return np.insert(values[self._kept], self._breaks, math.nan)

    def extremes(self, values: np.ndarray) -> np.ndarray:
        """Lowest and highest value of each bucket, in the order in which they came, (points,)."""
        if self.per_bucket == 1:
            return self.last(values)
        pairs = [_pair(values[s : s + self.per_bucket]) for s in self._starts]
        return np.insert(np.ravel(pairs), self._breaks, math.nan)


def _pair(values: np.ndarray) -> tuple[float, float]:
    if np.isnan(values).all():
        return math.nan, math.nan
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    first, second = min(low, high), max(low, high)
    return float(values[first]), float(values[second])
