"""Pictures of learning and adaptation."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from training.evaluate import Evaluation

COLOURS = {
    "adapting": "#1b6ca8",
    "memory cleared every step": "#c0562f",
    "random actions": "#8a8a8a",
}


def adaptation_picture(
    path: Path, title: str, evaluation: Evaluation, curve: list[dict[str, float]]
) -> None:
    """Write a picture: return per episode with references, and the learning curve beside it."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for name, returns in evaluation.rows():
        stats = returns.summary()
        x = range(1, len(stats) + 1)
        means, errors = [s["mean"] for s in stats], [s["ci95"] for s in stats]
        left.errorbar(x, means, errors, label=name, color=COLOURS[name], marker="o", capsize=3)
    left.set(
        title=f"{evaluation.tasks} held-out tasks, deterministic, mean with 95 % interval",
        xlabel="episode of the task",
        ylabel="return per episode",
        xticks=range(1, len(evaluation.adapting.values) + 1),
    )
    left.title.set_fontsize(10)
    left.legend(frameon=False, fontsize=8, loc="center", bbox_to_anchor=(0.5, 0.8))
    _learning_curve(right, curve)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curve_picture(path: Path, title: str, curve: list[dict[str, float]]) -> None:
    """Write a picture of one run's learning curve."""
    figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    _learning_curve(axes, curve)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _learning_curve(axes, curve: list[dict[str, float]]) -> None:
    steps = [row["env_steps"] / 1e6 for row in curve]
    for name in sorted(k for k in (curve[0] if curve else {}) if k.startswith("return/")):
        label = name.removeprefix("return/").replace("_", " ")
        axes.plot(steps, [row[name] for row in curve], label=label, linewidth=1)
    axes.set_title("training, sampled actions", fontsize=10)
    axes.set(xlabel="environment steps [millions]", ylabel="return per episode")
    if curve:
        axes.legend(frameon=False, fontsize=8)
