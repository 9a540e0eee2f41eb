"""The picture of a what-if: actions side by side, how far apart, how adapted each is."""

import itertools
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from runtime.errors import NotSaved
from runtime.recording.what_if import WhatIf

RECORDED, OTHER = "#222222", "#1b6ca8"
MOST_ACTIONS = 4
"""Elements of the action that are drawn: those that differ most."""
SMOOTH = 25
"""Ticks over which differences are averaged."""


def draw(comparison: WhatIf, path: Path) -> None:
    """Write the picture of a comparison.

    Raises:
        NotSaved: the file cannot be written.
    """
    rows = comparison.rows()
    shown = sorted(range(len(rows)), key=lambda i: -rows[i].of_range)[:MOST_ACTIONS]
    count = len(shown) + 3
    figure, axes = plt.subplots(
        count, 1, figsize=(12, 1.7 * count), sharex=True, layout="constrained"
    )
    for each, i in zip(axes, shown, strict=False):
        _action(each, comparison, i)
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=2, fontsize=9)
    _distance(axes[-3], comparison)
    _width(axes[-2], comparison)
    _returns(axes[-1], comparison)
    axes[-1].set(xlabel="tick")
    for each in axes:
        for start in comparison.episode_starts:
            at = comparison.seqs[start]
            each.axvline(at, color="#999999", linewidth=0.8, linestyle=":")
        each.set_xlim(comparison.seqs[0], comparison.seqs[-1] + 1)
    who = ", ".join(comparison.recorded_policies) or "the recorded policy"
    figure.suptitle(f"{comparison.policy} on what {who} saw and did")
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise NotSaved(f"{path} cannot be written: {error.strerror}") from None
    finally:
        plt.close(figure)


def _action(axes: Axes, comparison: WhatIf, i: int) -> None:
    seqs = comparison.seqs
    axes.plot(seqs, comparison.recorded[:, i], color=RECORDED, linewidth=0.7, label="recorded")
    axes.plot(seqs, comparison.other[:, i], color=OTHER, linewidth=0.7, label=comparison.policy)
    axes.set_ylabel(comparison.names[i], fontsize=9)


def _distance(axes: Axes, comparison: WhatIf) -> None:
    gap = np.abs(comparison.recorded - comparison.other) / (comparison.high - comparison.low)
    mean = gap.mean(axis=1)
    window = min(SMOOTH, len(mean))
    smooth = np.convolve(mean, np.ones(window) / window, mode="valid")
    axes.plot(comparison.seqs, 100 * mean, color=OTHER, alpha=0.25, linewidth=0.6)
    axes.plot(comparison.seqs[window - 1 :], 100 * smooth, color=OTHER, linewidth=1.4)
    axes.set_ylabel("difference\n[% of range]", fontsize=9)
    axes.set_ylim(bottom=0)


def _width(axes: Axes, comparison: WhatIf) -> None:
    """The adaptation curve: the belief's width where there is one, else the status."""
    pairs = ((comparison.width_recorded, RECORDED), (comparison.width, OTHER))
    if all(np.isnan(width).all() for width, _ in pairs):
        axes.step(comparison.seqs, comparison.adaptation_recorded, color=RECORDED, linewidth=1.2)
        axes.step(comparison.seqs, comparison.adaptation, color=OTHER, linewidth=1.2)
        axes.set_yticks([0, 1, 2, 3], ["unadapted", "adapting", "adapted", "invalid"], fontsize=8)
        return
    for width, colour in pairs:
        axes.plot(comparison.seqs, width, color=colour, linewidth=1.0)
    axes.set_ylabel("belief's width\n[of the first]", fontsize=9)
    axes.set_ylim(bottom=0)


def _returns(axes: Axes, comparison: WhatIf) -> None:
    """The return of each recorded episode so far."""
    total = comparison.rewards.copy()
    starts = [0, *[i for i in comparison.episode_starts if i], len(total)]
    for begin, end in itertools.pairwise(starts):
        # The reward at an episode's first tick is of the episode before.
        part = total[begin:end]
        part[:1] = 0.0
        total[begin:end] = np.cumsum(part)
        axes.plot(comparison.seqs[begin:end], total[begin:end], color=RECORDED, linewidth=1.2)
    axes.set_ylabel("recorded return\nso far", fontsize=9)
