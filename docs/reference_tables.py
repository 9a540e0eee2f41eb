"""Tables of docs/references.json, which `python -m benchmarks.references` measures."""

import json
from pathlib import Path
from typing import Any

from docs.markdown import table, wrapped

FIGURES = Path(__file__).parent / "references.json"
PUBLISHED = {
    "ant-dir": "1082, PEARL",
    "ant-dir-1rad": "1293, VariBAD",
    "ant-goal": "-128, VariBAD",
    "halfcheetah-dir": "1900, VariBAD",
    "halfcheetah-vel": "-24.8, VariBAD",
    "humanoid-dir": "997, VariBAD",
    "walker-rand-params": "988, VariBAD",
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
    parts = [_scripted(scripted), *_scripted_sentences(scripted)]
    if trained:
        parts += [_trained(trained), *_trained_sentences(trained)]
    if found["missing"]:
        names = ", ".join(f"`{name}`" for name in found["missing"])
        parts.append(wrapped(f"No figures yet for {names}."))
    return "\n\n".join(parts)


def _scripted(rows: dict[str, Row]) -> str:
    header = ["family", "told", "not told", "random", "worth of knowing", "adapting, per episode"]
    return table(
        header,
        [
            [f"`{name}`", *_ways(row), _worth(row), _learners(row)[0].partition(": ")[2]]
            for name, row in rows.items()
        ],
    )


def _trained(rows: dict[str, Row]) -> str:
    header = ["family", "told", "not told", "random", "worth of knowing", "steps", "published"]
    return table(
        header,
        [
            [f"`{name}`", *_ways(row), _worth(row), _steps(row), PUBLISHED.get(name, "")]
            for name, row in rows.items()
        ],
    )


def _scripted_sentences(rows: dict[str, Row]) -> list[str]:
    shown = sum(_is_shown(row) for row in rows.values())
    last = {name: row["adapting"]["scripted"][-1] for name, row in rows.items()}
    reached = [n for n in rows if last[n]["mean"] + last[n]["ci95"] >= rows[n]["told"][-1]["mean"]]
    gained = [
        name
        for name, row in rows.items()
        if len(row["told"]) > 1
        and row["adapting"]["scripted"][0]["mean"] + row["adapting"]["scripted"][0]["ci95"]
        < last[name]["mean"]
    ]
    names = [", ".join(f"`{name}`" for name in found) for found in (gained, reached)]
    return [
        wrapped(
            f"Who is told earns more in {shown} of these {len(rows)} families. The scripted learner "
            f"earns more in its last episode than in its first in {names[0]}; in its last it is "
            f"level with who is told in {names[1]}."
        )
    ]


def _trained_sentences(rows: dict[str, Row]) -> list[str]:
    shown = [f"`{name}`" for name, row in rows.items() if _is_shown(row)]
    hidden = [f"`{name}`" for name, row in rows.items() if not _is_shown(row)]
    unfinished = [f"`{name}`" for name, row in rows.items() if not row["finished"]]
    sentences = []
    if shown:
        sentences.append(f"Knowing the task is worth something in {', '.join(shown)}.")
    if hidden:
        sentences.append(
            f"No worth is seen in {', '.join(hidden)}: either a policy that ignores the task does "
            f"as well there, or so short a training does not yet make use of it."
        )
    if unfinished:
        sentences.append(f"Training was not finished in {', '.join(unfinished)}.")
    learners = [
        f"- `{name}`: {learner}"
        for name, row in rows.items()
        for learner in _learners(row)
        if row["adapting"]
    ]
    parts = [wrapped(" ".join(sentences))]
    if learners:
        parts.append("Shipped policies that adapt, per episode:")
        parts.append("\n".join(learners))
    return parts


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
    share = worth["mean"] / (row["told"][0]["mean"] - row["random"][0]["mean"])
    return f"{_figure(worth)}, {100 * share:.0f} %"


def _is_shown(row: Row) -> bool:
    return row["worth"]["mean"] > row["worth"]["ci95"]


def _steps(row: Row) -> str:
    steps = f"{row['env_steps'] / 1e6:.1f} M"
    return steps if row["finished"] else f"{steps}, unfinished"


def _learners(row: Row) -> list[str]:
    return [
        f"`{name}`: " + ", ".join(_figure(episode) for episode in episodes)
        for name, episodes in row["adapting"].items()
    ]
