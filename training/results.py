"""docs/results.md: the returns of the bundles, beside those that others published.

Written from nothing but the bundles' manifests and `training.published`; a test holds the page
to them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InvalidBundle, InvalidConfig
from runtime.spec import MANIFEST, Manifest, ReturnStat, parse_manifest
from training.published import PUBLISHED, Published, published

PREFACE = """\
# Results

Returns per episode of the policies in `{models}/`, beside published ones. Written by
`metatrain results` from the bundles' manifests; [evaluation.md](evaluation.md) says how they
were measured.

**Read the published rows with care.** They are on MuJoCo 1.3 to 2.x, ours on {simulator}. They
were evaluated by other protocols, in part with sampled actions, at other episodes of a trial and
with other numbers of training seeds. They were read from papers and their data, not measured here.

Ours are deterministic, on held-out tasks, mean ± half the width of a bootstrapped 95 % interval
over tasks; in a row of several training seeds over seeds and tasks, the bundle being of the first
of them. *Steps* are environment steps of meta-training. *Told* is another policy that is told the
task, *cleared* the same policy with its memory cleared before every step. A policy that acts on a
belief acts on its mean at every step; *sampling per episode* is the same policy acting on a sample,
drawn as an episode starts.
"""
EPISODES = 4
"""How many have a column; the protocol's."""


def results_page(models: Path) -> str:
    """The page on the newest version of every bundle in a folder.

    Raises:
        InvalidConfig: there is no bundle.
        InvalidBundle: a manifest is missing or wrong.
    """
    manifests = _newest(models)
    if not manifests:
        raise InvalidConfig(f"{models} holds no policy bundles; `metatrain export` writes one")
    families = sorted({m.family for m in manifests})
    sections = [_section(f, [m for m in manifests if m.family == f]) for f in families]
    preface = PREFACE.format(models=models.name, simulator=_simulators(manifests))
    return "\n".join([preface, *sections, _others(families)]).rstrip() + "\n"


def _newest(models: Path) -> list[Manifest]:
    """The manifest of the highest version of each name."""
    versions: dict[str, int] = {}
    for folder in models.glob("[!.]*/[1-9]*/"):
        if folder.name.isdecimal():
            name = folder.parent.name
            versions[name] = max(int(folder.name), versions.get(name, 0))
    manifests = []
    for name, version in sorted(versions.items()):
        path = models / name / str(version) / MANIFEST
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InvalidBundle(f"{path} cannot be read: {error.strerror}") from None
        manifests.append(parse_manifest(text, str(path)))
    return manifests


def _simulators(manifests: Sequence[Manifest]) -> str:
    libraries = (m.provenance.get("libraries", {}) for m in manifests)
    found = sorted({each["mujoco"] for each in libraries if "mujoco" in each})
    return f"MuJoCo {', '.join(found)}" if found else "another"


def _section(family: str, manifests: Sequence[Manifest]) -> str:
    ours = [row for manifest in manifests for row in _bundle_rows(manifest)]
    theirs = [_published_row(row) for row in published(family)]
    return f"""\
## {family}

{_table(_HEADER, [*ours, *theirs])}

{_table(_REFERENCES, map(_reference_row, manifests))}

{_commands(manifests)}
"""


_HEADER = [
    "policy",
    *(f"episode {i + 1}" for i in range(EPISODES)),
    "other episodes",
    "steps",
    "training seeds",
    "source",
]
_REFERENCES = ["episode 1 on the same tasks", "adapting", "told", "cleared", "random", "wall time"]


def _bundle_rows(manifest: Manifest) -> list[list[str]]:
    """A row of the bundle's own training, and one of the mean over seeds, if there were more."""
    evaluation, provenance = manifest.evaluation, manifest.provenance
    label = f"**`{manifest.name}@{manifest.version}`**"
    seed = f"1 (seed {', '.join(map(str, evaluation.seeds))})"
    rows = [_row(label, evaluation.episodes, _steps(evaluation.env_steps), seed, "this repository")]
    if evaluation.sampled:
        label = "the same, sampling per episode"
        rows.append(_row(label, evaluation.sampled, _steps(evaluation.env_steps), seed, ""))
    pooled = provenance.get("over_seeds")
    if pooled is not None:
        steps = [evaluation.env_steps, *(each["env_steps"] for each in provenance["seeds"])]
        seeds = f"{len(steps)} (seeds {', '.join(map(str, pooled['seeds']))})"
        episodes = [ReturnStat.model_validate(stat) for stat in pooled["episodes"]]
        rows.append(_row("**mean over seeds**", episodes, _steps(*steps), seeds, "this repository"))
    return rows


def _row(
    label: str, episodes: Sequence[ReturnStat], steps: str, seeds: str, source: str
) -> list[str]:
    shown = [_figure(stat) for stat in episodes[:EPISODES]]
    beyond = [f"{i + 1}: {_figure(s)}" for i, s in enumerate(episodes) if i >= EPISODES]
    empty = [""] * (EPISODES - len(shown))
    return [label, *shown, *empty, "; ".join(beyond), steps, seeds, source]


def _published_row(row: Published) -> list[str]:
    columns = [str(i + 1) for i in range(EPISODES)]
    shown = [f"{row.returns[c]:g}" if c in row.returns else "" for c in columns]
    beyond = [f"{label}: {v:g}" for label, v in row.returns.items() if label not in columns]
    steps = _steps(row.env_steps) if row.env_steps else "not known"
    seeds = str(row.seeds) if row.seeds else "not known"
    return [row.method, *shown, "; ".join(beyond), steps, seeds, row.source]


def _reference_row(manifest: Manifest) -> list[str]:
    found, provenance = manifest.evaluation, manifest.provenance
    ways = (found.episodes, found.task_told, found.cleared_memory, found.random)
    told_steps = provenance.get("reference", {}).get("env_steps")
    cells = [_figure(way[0]) if way else "not measured" for way in ways]
    if told_steps:
        cells[1] += f" after {_steps(told_steps)}"
    return [f"`{manifest.name}`, {found.tasks} tasks", *cells, _wall_time(provenance)]


def _wall_time(provenance: dict[str, Any]) -> str:
    seconds = provenance.get("wall_time_s")
    return f"{seconds / 60:.0f} min" if seconds else "not known"


def _commands(manifests: Iterable[Manifest]) -> str:
    """How each bundle was trained."""
    lines = [command for m in manifests if (command := m.provenance.get("command"))]
    if not lines:
        return "How they were trained is not recorded."
    return "\n".join(['```sh title="how it was trained"', *lines, "```"])


def _others(shown: Sequence[str]) -> str:
    """The published figures of families that no bundle is of."""
    rows = [row for row in PUBLISHED if row.family not in shown]
    if not rows:
        return ""
    body = [[f"`{row.family}`", *_published_row(row)] for row in rows]
    return f"## Published, and no bundle here\n\n{_table(['family', *_HEADER], body)}\n"


def _figure(stat: ReturnStat) -> str:
    return f"{stat.mean:.1f} ± {stat.ci95:.1f}"


def _steps(*steps: int) -> str:
    """Millions, or the range of them."""
    low, high = (f"{n / 1e6:.1f}".removesuffix(".0") for n in (min(steps), max(steps)))
    return f"{low} M" if low == high else f"{low} to {high} M"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
