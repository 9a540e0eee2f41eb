"""Pictures of learning and adaptation."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from runtime.errors import InvalidConfig
from training.curves import Curve, Group, Rows
from training.evaluate import Evaluation
from training.published import Published, published

COLOURS = {
    "adapting": "#1b6ca8",
    "sampling per episode": "#8457a6",
    "told the task": "#3a8f4d",
    "memory cleared": "#c0562f",
    "random actions": "#8a8a8a",
}
LABEL_HEIGHT = 0.035  # of a panel
SERIES = ("#1b6ca8", "#c0562f", "#3a8f4d", "#8457a6", "#b58a1f", "#4aa3a2")


def adaptation_picture(
    path: Path, title: str, evaluation: Evaluation, curves: Sequence[Rows]
) -> None:
    """Write a picture: return per episode with references, and the learning curve beside it.

    Args:
        path: of the picture.
        title: above it.
        evaluation: what is on the left.
        curves: learning curves of the run and of others of its setting, as `curve.jsonl` has them.
    """
    read = [Curve.of(rows) for rows in curves if rows]
    panels = 2 if read else 1
    figure, axes = plt.subplots(
        1, panels, figsize=(5 * panels, 4), layout="constrained", squeeze=False
    )
    _adaptation(axes[0, 0], evaluation)
    if read:
        _learning(axes[0, 1], Group("", "", read))
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _adaptation(axes: Axes, evaluation: Evaluation) -> None:
    rows = evaluation.rows()
    for number, (name, returns) in enumerate(rows):
        stats = returns.summary()
        apart = 0.05 * (number - (len(rows) - 1) / 2)  # so that no interval hides another
        x = np.arange(1, len(stats) + 1) + apart
        means, errors = [s["mean"] for s in stats], [s["ci95"] for s in stats]
        axes.errorbar(x, means, errors, label=name, color=COLOURS[name], marker="o", capsize=3)
    axes.set(
        xlabel="episode of the task",
        ylabel="return per episode",
        xticks=range(1, len(evaluation.adapting.values) + 1),
    )
    axes.set_title(
        f"{evaluation.tasks} held-out tasks, deterministic, mean with 95 % interval", fontsize=10
    )
    _legend_below(axes, 2)


def _learning(axes: Axes, group: Group) -> None:
    """Smoothed curves over faint raw ones; with several seeds their mean and range."""
    steps, smooth = group.band()
    for episode in range(smooth.shape[1]):
        colour = SERIES[episode % len(SERIES)]
        if len(group.curves) == 1:
            raw = group.curves[0]
            axes.plot(raw.steps / 1e6, raw.returns[episode], color=colour, alpha=0.2, linewidth=0.6)
        _mean_and_range(axes, steps, smooth[:, episode], f"episode {episode + 1}", colour, "-")
    seeds = len(group.curves)
    said = f", mean and range of {seeds} seeds" if seeds > 1 else ""
    axes.set_title(f"training, sampled actions{said}", fontsize=10)
    axes.set(xlabel="environment steps [millions]", ylabel="return per episode")
    _focus(axes, [smooth])
    _legend_below(axes, smooth.shape[1])


def learning_picture(path: Path, groups: Sequence[Group]) -> None:
    """Write a picture of learning curves, a panel per family.

    The last episode of a trial is drawn whole, the first one dashed, published returns dotted;
    of several seeds the mean, with their range as a band.

    Raises:
        InvalidConfig: the picture cannot be written there.
    """
    families = sorted({group.family for group in groups})
    figure, panels = plt.subplots(
        1, len(families), figsize=(7.5 * len(families), 5.5), layout="constrained", squeeze=False
    )
    for axes, family in zip(panels[0], families, strict=True):
        _family_curves(axes, family, [group for group in groups if group.family == family])
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"no picture can be written to {path}: {error}") from None
    finally:
        plt.close(figure)


def _family_curves(axes: Axes, family: str, groups: Sequence[Group]) -> None:
    drawn = []
    for group, colour in zip(groups, _colours(len(groups)), strict=True):
        steps, smooth = group.band()
        drawn.append(smooth)
        seeds = len(group.curves)
        label = group.label + (f" (mean of {seeds} seeds)" if seeds > 1 else "")
        for curve in group.curves:
            faint = {"color": colour, "alpha": 0.18, "linewidth": 0.6}
            axes.plot(curve.steps / 1e6, curve.returns[-1], **faint)
        last = f"{label}, episode {smooth.shape[1]}"
        _mean_and_range(axes, steps, smooth[:, -1], last, colour, "-")
        if smooth.shape[1] > 1:
            first = {"color": colour, "linewidth": 1, "label": f"{label}, episode 1"}
            axes.plot(steps / 1e6, smooth[:, 0].mean(0), "--", **first)
    _focus(axes, drawn)
    _published_lines(axes, family)
    axes.set_title(f"{family}: training, sampled actions; dotted: published", fontsize=10)
    axes.set(xlabel="environment steps [millions]", ylabel="return per episode")
    _legend_below(axes, 2)


def _published_lines(axes: Axes, family: str) -> None:
    """The last published return of each method, dotted; those far below the curves are left out.

    Their labels stand beside the panel, in order, and apart from each other.
    """
    rows = {row.method: row for row in published(family)}.values()
    low, high = axes.get_ylim()
    margin = 0.02 * (high - low)
    high = max([high, *(row.last() + margin for row in rows)])
    near = low - 0.2 * (high - low)
    low = min([low, *(row.last() - margin for row in rows if row.last() > near)])
    axes.set_ylim(low, high)
    place = -1.0
    for row in sorted((row for row in rows if row.last() > low), key=Published.last):
        axes.axhline(row.last(), linestyle=":", color="0.35", linewidth=1)
        height = (row.last() - low) / (high - low)
        place = max(height, place + LABEL_HEIGHT)
        steps = f", {row.env_steps / 1e6:g} M steps" if row.env_steps else ""
        axes.annotate(
            f"{row.method} {row.last():g}{steps}",
            xy=(1, height),
            xytext=(1.03, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
            fontsize=8,
            color="0.25",
            va="center",
        )


def _mean_and_range(axes: Axes, steps, returns, label: str, colour: str, line: str) -> None:
    """Of `returns` (runs, T)."""
    axes.plot(steps / 1e6, returns.mean(0), line, color=colour, linewidth=1.6, label=label)
    if len(returns) > 1:
        band = (returns.min(0), returns.max(0))
        axes.fill_between(steps / 1e6, *band, color=colour, alpha=0.2, linewidth=0)


def _focus(axes: Axes, drawn: Sequence[np.ndarray]) -> None:
    """Leave out the steep rise of the first tenth, beside which the rest would look flat."""
    later = [returns[..., returns.shape[-1] // 10 :] for returns in drawn]
    low, high = min(r.min() for r in later), max(r.max() for r in later)
    margin = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _colours(n: int) -> list[str]:
    return [SERIES[k % len(SERIES)] for k in range(n)]


def _legend_below(axes: Axes, columns: int) -> None:
    """A legend where no line can run behind it."""
    axes.legend(
        frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns
    )
