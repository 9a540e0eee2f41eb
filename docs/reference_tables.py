"""Tables of docs/references.json, which `python -m benchmarks.references` measures."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docs.markdown import table, wrapped
from training import published

FIGURES = Path(__file__).parent / "references.json"
PUBLISHED = {
    row.family: (next(iter(row.returns.values())), row.method)
    for method in ("PEARL", "VariBAD")
    for row in published.PUBLISHED
    if row.method == method
}
"""Return per episode of policies that adapt: VariBAD's in its first episode (Zintgraf et al. 2020),
PEARL's after adaptation (Rakelly et al. 2019)."""

Row = dict[str, Any]


def references() -> str:
    """What knowing the task is worth, with scripted and with trained references."""
    found = json.loads(FIGURES.read_text())
    rows: dict[str, Row] = found["families"]
    scripted = {name: row for name, row in rows.items() if row["how"] == "scripted"}
    trained = {name: row for name, row in rows.items() if row["how"] != "scripted"}
    parts = [_scripted(scripted), _scripted_sentences(scripted)]
    if trained:
        parts += [_trained(trained), _trained_sentences(trained)]
    if found["shipped"]:
        parts += _shipped(found["shipped"])
    if found["missing"]:
        parts.append(wrapped(f"Not measured: {_list(found['missing'])}."))
    return "\n\n".join(parts)


def _scripted(rows: dict[str, Row]) -> str:
    return table(
        ["family", "told", "not told", "random", "worth of knowing", "adapting, per episode"],
        [
            [f"`{name}`", *_ways(row), _worth(row), _episodes(row["adapting"])]
            for name, row in rows.items()
        ],
    )


def _trained(rows: dict[str, Row]) -> str:
    lines = []
    for name, row in rows.items():
        value, method = PUBLISHED.get(name, ("", ""))
        published = f"{value:g}, {method}" if method else ""
        lines.append([f"`{name}`", *_ways(row), _worth(row), _steps(row), published])
    header = ["family", "told", "not told", "random", "worth of knowing", "steps", "published"]
    return table(header, lines)


def _scripted_sentences(rows: dict[str, Row]) -> str:
    """What the table of scripted references says."""
    hidden = [name for name, row in rows.items() if not _is_shown(row)]
    gained, level = [], []
    for name, row in rows.items():
        first, last = row["adapting"][0], row["adapting"][-1]
        if last["mean"] - first["mean"] > first["ci95"] + last["ci95"]:
            gained.append(name)
        told = row["told"][-1]
        if last["mean"] + last["ci95"] >= told["mean"] - told["ci95"]:
            level.append(name)
    below = [name for name in rows if name not in level]
    where = f"in all but {_list(hidden)}" if hidden else "in every family"
    least = min(rows, key=lambda name: _share(rows[name]))
    return wrapped(
        f"Who is told earns more {where}; compared with random actions, least in `{least}`. The "
        f"scripted learner earns more in its last episode than in its first in {_list(gained)}. In "
        f"its last it is level with who is told, as the intervals overlap, in {_list(level)}"
        + (f"; it stays below in {_list(below)}." if below else ".")
    )


def _trained_sentences(rows: dict[str, Row]) -> str:
    """What the table of trained references says, and what it cannot say."""
    shown = [name for name, row in rows.items() if _is_shown(row)]
    hidden = [name for name, row in rows.items() if not _is_shown(row)]
    short = [name for name, row in rows.items() if _is_short(name, row)]
    sentences = []
    if shown:
        sentences.append(f"Knowing the task is worth something in {_list(shown)}.")
    if hidden:
        sentences.append(
            f"Nothing of the kind is seen in {_list(hidden)}: either a policy that ignores the "
            "task does as well there, or training was too short to make use of it."
        )
    worse = [n for n, row in rows.items() if row["worth"]["mean"] < -row["worth"]["ci95"]]
    if worse:
        sentences.append(
            f"In {_list(worse)} who is told even earns less, which in the end knowing cannot do: "
            "that reference is not converged."
        )
    if short:
        sentences.append(
            f"In {_list(short)} the told policy earns less than a published one that adapts: it is "
            "far from what can be had, and the worth of knowing may be another in the end."
        )
    return wrapped(" ".join(sentences))


def _is_short(name: str, row: Row) -> bool:
    """Whether the told reference is surely below what is published."""
    told = row["told"][0]
    return name in PUBLISHED and told["mean"] + told["ci95"] < PUBLISHED[name][0]


def _shipped(policies: dict[str, Row]) -> list[str]:
    """What the shipped policies' own cards say of adaptation."""
    header = ["shipped policy", "adapting, per episode", "memory cleared at every step", "steps"]
    lines = [
        [f"`{name}`", _episodes(p["adapting"]), _figure(p["cleared"][0]), _millions(p["env_steps"])]
        for name, p in policies.items()
    ]
    sentence = "Policies that were trained to adapt, beside themselves with their memory cleared:"
    return [sentence, table(header, lines)]


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _ways(row: Row) -> list[str]:
    return [_figure(row[way][0]) for way in ("told", "not_told", "random")]


def _figure(episode: dict[str, float]) -> str:
    mean, ci95 = episode["mean"], episode["ci95"]
    places = 0 if max(abs(mean), ci95) >= 100 else 1 if max(abs(mean), ci95) >= 10 else 2
    return f"{mean:.{places}f} ± {ci95:.{places}f}"


def _worth(row: Row) -> str:
    """Paired difference, and its share of the way from random to told."""
    worth = row["worth"]
    if not _is_shown(row):
        return f"{_figure(worth)}, none seen"
    return f"{_figure(worth)}, {100 * _share(row):.0f} %"


def _share(row: Row) -> float:
    return row["worth"]["mean"] / (row["told"][0]["mean"] - row["random"][0]["mean"])


def _is_shown(row: Row) -> bool:
    return row["worth"]["mean"] > row["worth"]["ci95"]


def _steps(row: Row) -> str:
    return _millions(row["env_steps"]) + ("" if row["finished"] else ", unfinished")


def _millions(steps: int) -> str:
    return f"{steps / 1e6:.1f} M"


def _episodes(episodes: list[dict[str, float]]) -> str:
    return ", ".join(_figure(episode) for episode in episodes)
