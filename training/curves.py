"""Learning curves of runs: read, smoothed, and brought together by setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidConfig
from training import checkpoint
from training.seeds import setting
from training.train import Run

Rows = Sequence[Mapping[str, float]]
SHOWN_SETTINGS = 3
"""How many of the settings that differ a label names."""


@dataclass(frozen=True)
class Curve:
    """Return per episode over a training, of one run."""

    steps: NDArray[np.float64]  # (T,)
    returns: NDArray[np.float64]  # (episodes, T)

    @classmethod
    def of(cls, rows: Rows) -> "Curve":
        """From the rows of `curve.jsonl`, whose returns are `return/episode_1` and on."""
        named = sorted({k for row in rows for k in row if k.startswith("return/")}, key=_number)
        steps = np.array([row["env_steps"] for row in rows], float)
        returns = np.array([[row.get(name, np.nan) for row in rows] for name in named])
        for episode in returns:  # where no trial reached it, as its neighbours
            there = np.isfinite(episode)
            episode[~there] = np.interp(steps[~there], steps[there], episode[there])
        return cls(steps, returns)

    def smooth(self, share: float = 0.02) -> NDArray[np.float64]:
        """A running mean over `share` of the training; (episodes, T).

        Narrower at the start, where returns rise fast; one-sided at the end.
        """
        half = int(share * len(self.steps) / 2)
        total = np.cumsum(np.pad(self.returns, ((0, 0), (1, 0))), axis=1)
        at = np.arange(len(self.steps))
        low = at - np.minimum(half, at)
        high = np.minimum(at + np.minimum(half, at), len(at) - 1) + 1
        return (total[:, high] - total[:, low]) / (high - low)


@dataclass(frozen=True)
class Group:
    """Runs of one setting, which differ in their seed."""

    label: str
    family: str
    curves: list[Curve]

    def band(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Steps (T,), and the smoothed returns of every run at them (runs, episodes, T).

        They end where the first of the runs does.
        """
        start = max(c.steps[0] for c in self.curves)
        end = min(c.steps[-1] for c in self.curves)
        steps = np.linspace(start, max(start, end), max(len(c.steps) for c in self.curves))
        smooth = [
            [np.interp(steps, c.steps, episode) for episode in c.smooth()] for c in self.curves
        ]
        return steps, np.array(smooth)


def read_groups(runs: Sequence[Path]) -> list[Group]:
    """The learning curves of runs, those of one setting together.

    Raises:
        InvalidConfig: a folder is missing or holds no learning curve, or one that cannot be read.
    """
    described = [(_describe(run), _read(run)) for run in runs]
    groups: dict[str, list[tuple[dict[str, Any], Curve]]] = {}
    for config, curve in described:
        groups.setdefault(repr(sorted(config.items())), []).append((config, curve))
    configs = [members[0][0] for members in groups.values()]
    return [
        Group(_label(config, configs), config["family"], [curve for _, curve in members])
        for config, members in zip(configs, groups.values(), strict=True)
    ]


def _read(run: Path) -> Curve:
    try:
        rows = Run(run).curve()
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"the learning curve in {run} cannot be read: {error}") from None
    if not rows:
        raise InvalidConfig(f"{run} holds no learning curve; `metatrain train` makes one")
    return Curve.of(rows)


def _describe(run: Path) -> dict[str, Any]:
    """Method and settings of a run, flat."""
    if not run.is_dir():
        raise InvalidConfig(f"there is no run folder {run}")
    _, facts = checkpoint.load(checkpoint.latest(run))
    return {"method": facts["method"], **setting(facts["config"])}


def _label(config: Mapping[str, Any], all_of_them: Sequence[Mapping[str, Any]]) -> str:
    """The method, and the settings by which this group differs from the others of its family."""
    family = [c for c in all_of_them if c["family"] == config["family"]]
    names = sorted(set().union(*family) - {"method", "family"})
    differing = [n for n in names if len({repr(c.get(n)) for c in family}) > 1]
    parts = [f"{n.rpartition('.')[2]} {_value(config.get(n))}" for n in differing[:SHOWN_SETTINGS]]
    more = ["..."] * (len(differing) > SHOWN_SETTINGS)
    return ", ".join([str(config["method"]), *parts, *more])


def _value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1_000_000:
        return f"{value / 1e6:g} M"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0
