"""Measure all references and write docs/references.json, of which docs/families.md shows a table.

    python -m benchmarks.references [--runs runs] [--path docs/references.json]

Scripted references are played here. Trained ones are evaluated at the newest checkpoint of
``runs/multitask-FAMILY-s0``, which ``metatrain train multitask FAMILY`` makes; one that is not
yet finished is marked with its steps. A family without either is listed as missing.
"""

import json
import sys
from pathlib import Path

import tyro

import sim
from benchmarks.references.measure import SCRIPTED, Row, scripted, shipped, trained
from runtime.errors import AdaptdError
from training.checkpoint import checkpoints


def main(
    runs: Path = Path("runs"),
    path: Path = Path("docs/references.json"),
    bundles: Path = Path("exported_models"),
    tasks: int = 100,
    trained_tasks: int = 30,
    threads: int = 2,
) -> None:
    """Measure the references.

    Args:
        runs: folder of run folders.
        path: what to write.
        bundles: folder of exported policies; what their cards say is shown beside.
        tasks: held-out tasks, of scripted references.
        trained_tasks: held-out tasks, of trained references.
        threads: of the simulator.
    """
    rows: dict[str, Row] = {}
    for name in sim.names():
        run = runs / f"multitask-{name}-s0"
        if name in SCRIPTED:
            rows[name] = scripted(name, tasks)
        elif checkpoints(run / "checkpoints"):
            rows[name] = trained(run, trained_tasks, threads)
        else:
            print(f"{name:24} no scripted reference, no checkpoint in {run}", flush=True)
            continue
        print(f"{name:24} {summary(rows[name])}", flush=True)
    missing = [name for name in sim.names() if name not in rows]
    path.write_text(text(missing, rows, shipped(bundles)))
    print(f"wrote {path}; `python -m docs.families` writes its tables")


def summary(row: Row) -> str:
    """First episodes, in one line."""
    ways = ((way, row[way][0]) for way in ("told", "not_told", "random", "adapting") if way in row)
    return ", ".join(f"{way} {e['mean']:g} ± {e['ci95']:g}" for way, e in ways)


def text(missing: list[str], families: dict[str, Row], policies: dict[str, Row]) -> str:
    """As JSON, with a line per way of acting."""
    return (
        f'{{\n "missing": {json.dumps(missing)},\n'
        f' "families": {_object(families)},\n "shipped": {_object(policies)}\n}}\n'
    )


def _object(rows: dict[str, Row]) -> str:
    written = []
    for name, row in rows.items():
        entries = (f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in row.items())
        written.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(entries) + "\n  }")
    return "{\n" + ",\n".join(written) + "\n }"


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except AdaptdError as error:
        print(f"references: {error}", file=sys.stderr)
        sys.exit(2)
