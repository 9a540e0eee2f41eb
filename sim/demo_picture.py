"""The demo's picture: speed against the hidden target, what the policy believes, how sure it is."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray

from runtime.messages import Adaptation
from sim.demo_recording import EPISODE, Recording

BELIEF, SPEED, TARGET, SWAP = "#e39b2d", "#1b6ca8", "#222222", "#a03070"
LATENT = ("#1b6ca8", "#c0562f", "#3a8f4d", "#8457a6", "#b58a1f", "#4aa3a2")
STATUS_COLOURS = {
    Adaptation.UNADAPTED: "#d9d9d9",
    Adaptation.ADAPTING: "#f2c46d",
    Adaptation.ADAPTED: "#6bb38a",
    Adaptation.INVALID: "#c0392b",
}


def draw(recording: Recording, path: Path) -> None:
    """Write the picture of a recording; with a latent belief, a row for each of its dimensions."""
    latent = recording.believed("latent")
    dimensions = latent.shape[2]
    heights = [9.0, *[2.2] * dimensions, *[3.5] * bool(dimensions), 1.0]
    figure, panels = plt.subplots(
        len(heights), 1, figsize=(12, 0.52 * sum(heights)), sharex=True, layout="constrained",
        height_ratios=heights,
    )  # fmt: skip
    top, *rows, strip = panels
    _speed(top, recording)
    _marks(top, recording)
    if rows:
        _posterior(rows[:-1], latent)
        _deviations(rows[-1], latent[1])
        _absences(rows[dimensions // 2], latent, recording)
    for row in rows:
        _lines(row, recording)
    _status(strip, recording)
    first, second = recording.swaps[0]["old"], recording.swaps[0]["new"]
    back = ", and back" * (len(recording.swaps) > 1)
    figure.suptitle(f"adaptd: {first} adapts to a hidden target, then hands over to {second}{back}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _speed(axes: Axes, recording: Recording) -> None:
    steps = np.arange(len(recording.moments))
    means, deviations = recording.believed("task")
    if means.size:
        mean, deviation = means[:, 0], deviations[:, 0]
        axes.fill_between(
            steps, mean - 2 * deviation, mean + 2 * deviation, color=BELIEF, alpha=0.25,
            linewidth=0, label="what the policy believes: mean ± 2σ",
        )  # fmt: skip
        axes.plot(steps, mean, color=BELIEF, linewidth=0.8)
    speed = recording.column("measure")
    axes.plot(steps, speed, color=SPEED, alpha=0.25, linewidth=0.7)
    window = np.ones(10) / 10  # half a second: the gait's own swing is shorter
    smooth = np.convolve(speed, window, mode="valid")
    axes.plot(steps[9:], smooth, color=SPEED, linewidth=1.4, label="speed, mean over 0.5 s")
    axes.plot(
        steps, recording.target, color=TARGET, linewidth=1.4, linestyle="--", label="hidden target"
    )
    axes.set(ylabel="forward speed [m/s]", xlim=(0, len(steps)), ylim=(-1.0, 4.6))
    axes.legend(loc="upper right", frameon=False, ncols=3, fontsize=9)


def _marks(axes: Axes, recording: Recording) -> None:
    steps = len(recording.moments)
    for start in range(EPISODE, steps, EPISODE):
        axes.axvline(start, color="#999999", linewidth=0.8, linestyle=":")
    for number, start in enumerate(range(0, steps, EPISODE), start=1):
        axes.text(start + 5, -0.9, f"episode {number}", fontsize=8, color="#777777")
    for times, text, height, colour in (
        (recording.changed_at, "target changes", 3.65, TARGET),
        (recording.swapped_at, "policy swapped", 3.9, SWAP),
    ):
        for at in times:
            axes.text(at, height, text, fontsize=9, ha="center", color=colour, va="bottom")
            axes.plot([at, at], [-1.0, height], color=colour, linewidth=1.0)


def _lines(axes: Axes, recording: Recording) -> None:
    """The same moments as in the panel above, without words."""
    for times, colour in ((recording.changed_at, TARGET), (recording.swapped_at, SWAP)):
        for at in times:
            axes.axvline(at, color=colour, linewidth=0.8)


def _absences(axes: Axes, latent: NDArray[np.float64], recording: Recording) -> None:
    """Say whose time it is where there is no z."""
    absent = np.isnan(latent[0, :, 0])
    edges = np.flatnonzero(np.diff(absent, prepend=False, append=False))
    for start, end in edges.reshape(-1, 2):
        if end - start >= EPISODE // 2:  # a tick that the tap did not bring is none
            axes.text(
                (start + end) / 2, 0, f"{recording.acting(int(start))}\nhas no z", fontsize=8,
                color="#777777", ha="center", va="center", bbox={"color": "white"},
            )  # fmt: skip


def _posterior(rows: list[Axes], latent: NDArray[np.float64]) -> None:
    """A row per dimension of z: mean with a band of two deviations."""
    steps = np.arange(latent.shape[1])
    for number, (axes, mean, deviation, colour) in enumerate(
        zip(rows, latent[0].T, latent[1].T, _colours(len(rows)), strict=True), start=1
    ):
        axes.fill_between(
            steps, mean - 2 * deviation, mean + 2 * deviation, color=colour, alpha=0.3, linewidth=0
        )
        axes.plot(steps, mean, color=colour, linewidth=1.0)
        axes.set_ylim(-2.4, 2.4)  # the prior is N(0, 1)
        axes.set_ylabel(f"z{number}", rotation=0, ha="right", va="center")
    rows[0].set_title(
        "the posterior over z: mean ± 2σ per dimension", fontsize=10, loc="left", pad=3
    )


def _deviations(axes: Axes, deviations: NDArray[np.float64]) -> None:
    """How wide the posterior is, on a scale where small widths show as well."""
    for values, colour in zip(deviations.T, _colours(deviations.shape[1]), strict=True):
        axes.plot(values, color=colour, linewidth=0.9)
    axes.plot(deviations.mean(1), color=TARGET, linewidth=1.6, label="mean over dimensions")
    axes.set_yscale("log")
    axes.set_ylabel("σ of z", rotation=0, ha="right", va="center")
    axes.legend(loc="upper right", frameon=False, fontsize=8)


def _colours(count: int) -> list[str]:
    return [LATENT[k % len(LATENT)] for k in range(count)]


def _status(axes: Axes, recording: Recording) -> None:
    colours = ListedColormap([STATUS_COLOURS[s] for s in Adaptation])
    status = np.array([[m.answer.adaptation for m in recording.moments]])
    axes.imshow(
        status, aspect="auto", cmap=colours, vmin=-0.5, vmax=len(Adaptation) - 0.5,
        extent=(0, len(recording.moments), 0, 1), interpolation="nearest",
    )  # fmt: skip
    axes.set(yticks=[], xlabel="control step (20 per second)")
    axes.set_ylabel("adaptation", rotation=0, ha="right", va="center")
    for s in Adaptation:
        axes.plot([], [], "s", color=STATUS_COLOURS[s], label=s.name.lower())
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -1.6), ncols=4, frameon=False, fontsize=8)
