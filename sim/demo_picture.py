"""The demo's picture: speed against the hidden target, what the policy believes, how sure it is."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from runtime.messages import Adaptation
from sim.demo import EPISODE, STEPS, Recording

BELIEF, SPEED, TARGET = "#e39b2d", "#1b6ca8", "#222222"
STATUS_COLOURS = {
    Adaptation.UNADAPTED: "#d9d9d9",
    Adaptation.ADAPTING: "#f2c46d",
    Adaptation.ADAPTED: "#6bb38a",
    Adaptation.INVALID: "#c0392b",
}


def draw(recording: Recording, path: Path) -> None:
    """Write the picture of a recording."""
    figure, (top, strip) = plt.subplots(
        2, 1, figsize=(12, 5.2), sharex=True, layout="constrained", height_ratios=(9, 1)
    )
    _speed(top, recording)
    _marks(top, recording.changed_at, recording.swapped_at)
    _status(strip, recording)
    first, second = recording.swap["old"], recording.swap["new"]
    figure.suptitle(f"adaptd: {first} adapts to a hidden target, then hands over to {second}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _speed(axes: Axes, recording: Recording) -> None:
    steps = np.arange(STEPS)
    seqs = [m.seq for m in recording.moments]
    known = [s in recording.beliefs and len(recording.beliefs[s]) == 2 for s in seqs]
    if any(known):
        belief = np.array([recording.beliefs[s] for s, k in zip(seqs, known, strict=True) if k])
        mean, deviation = belief[:, 0], np.sqrt(belief[:, 1])
        x = steps[np.array(known)]
        axes.fill_between(
            x, mean - 2 * deviation, mean + 2 * deviation, color=BELIEF, alpha=0.25, linewidth=0,
            label="what the policy believes: mean ± 2σ",
        )  # fmt: skip
        axes.plot(x, mean, color=BELIEF, linewidth=0.8)
    speed = recording.column("measure")
    axes.plot(steps, speed, color=SPEED, alpha=0.25, linewidth=0.7)
    window = np.ones(10) / 10  # half a second: the gait's own swing is shorter
    smooth = np.convolve(speed, window, mode="valid")
    axes.plot(steps[9:], smooth, color=SPEED, linewidth=1.4, label="speed, mean over 0.5 s")
    axes.plot(
        steps, recording.target, color=TARGET, linewidth=1.4, linestyle="--", label="hidden target"
    )
    axes.set(ylabel="forward speed [m/s]", xlim=(0, STEPS), ylim=(-1.0, 4.6))
    axes.legend(loc="upper right", frameon=False, ncols=3, fontsize=9)


def _marks(axes: Axes, changed_at: list[int], swapped_at: int) -> None:
    for start in range(EPISODE, STEPS, EPISODE):
        axes.axvline(start, color="#999999", linewidth=0.8, linestyle=":")
    for number, start in enumerate(range(0, STEPS, EPISODE), start=1):
        axes.text(start + 5, -0.9, f"episode {number}", fontsize=8, color="#777777")
    for at in changed_at:
        axes.annotate(
            "target changes", (at, 3.7), fontsize=9, ha="center", color=TARGET, va="bottom"
        )
        axes.axvline(at, ymax=0.835, color=TARGET, linewidth=0.8)
    axes.annotate(
        "policy swapped", (swapped_at, 3.7), fontsize=9, ha="center", color="#a03070", va="bottom"
    )
    axes.axvline(swapped_at, ymax=0.835, color="#a03070", linewidth=1.2)


def _status(axes: Axes, recording: Recording) -> None:
    colours = ListedColormap([STATUS_COLOURS[s] for s in Adaptation])
    status = np.array([[m.answer.adaptation for m in recording.moments]])
    axes.imshow(
        status, aspect="auto", cmap=colours, vmin=-0.5, vmax=len(Adaptation) - 0.5,
        extent=(0, STEPS, 0, 1), interpolation="nearest",
    )  # fmt: skip
    axes.set(yticks=[], xlabel="control step (20 per second)")
    axes.set_ylabel("adaptation", rotation=0, ha="right", va="center")
    for s in Adaptation:
        axes.plot([], [], "s", color=STATUS_COLOURS[s], label=s.name.lower())
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -1.6), ncols=4, frameon=False, fontsize=8)
