"""`make fuzz`: noise for long, and what became of it.

Any failure leaves its input as ``FOUND/TARGET-NUMBER``; put it into the corpus with its mend.
"""

import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import structlog
import tyro

from tests.fuzz.edits import edited, random_edits
from tests.fuzz.targets import TARGETS, corpus, make

WARM_UP = 2000
"""Inputs after which memory is looked at first."""
OTHERS = 100_000
SLOWEST_S = 10.0
"""An input that takes longer has hung."""


@dataclass
class Tally:
    """What became of the inputs of one target."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    slowest_s: float = 0.0
    grown_mb: float = 0.0
    seconds: float = 0.0


def main(
    frames: int = 1_000_000,
    bundles: int = 100_000,
    others: int = OTHERS,
    targets: str = ",".join(TARGETS),
    seed: int = 0,
    found: Path = Path("runs/fuzz"),
) -> None:
    """Fuzz targets one after the other.

    Args:
        frames: how many observations.
        bundles: how many bundles.
        others: how many inputs of each other target; a tenth as many slabs.
        targets: which, by commas.
        seed: of the noise; another one makes other inputs.
        found: folder for inputs that failed.
    """
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # refusals log a line each
    counts = dict.fromkeys(TARGETS, others) | {"frame": frames, "bundle": bundles}
    counts["slab"] = others // 10
    failures = 0
    for name in targets.split(","):
        tally = fuzz(name, counts[name], seed, found)
        failures += tally.failures
        told = ", ".join(f"{word} {count:,}" for word, count in tally.outcomes.most_common())
        print(
            f"{name}: {tally.outcomes.total():,} inputs in {tally.seconds:.0f} s: {told}; "
            f"failures {tally.failures}; slowest {1e3 * tally.slowest_s:.0f} ms; "
            f"grown {tally.grown_mb:.1f} MB",
            flush=True,
        )
    sys.exit(bool(failures))


def fuzz(name: str, count: int, seed: int, found: Path) -> Tally:
    """Try so many inputs on one target."""
    target, sound, rng, tally = make(name), corpus(name), Random(seed), Tally()
    for data in sound:
        target(data)
    began, resident = time.monotonic(), 0.0
    for number in range(count):
        data = edited(rng.choice(sound), random_edits(rng))
        started = time.monotonic()
        try:
            tally.outcomes[target(data)] += 1
        except Exception:
            tally.failures += 1
            tally.outcomes["failed"] += 1
            found.mkdir(parents=True, exist_ok=True)
            (found / f"{name}-{number}").write_bytes(data)
            traceback.print_exc()
        took = time.monotonic() - started
        tally.slowest_s = max(tally.slowest_s, took)
        tally.failures += took > SLOWEST_S
        if number == min(WARM_UP, count // 10):
            resident = _resident_mb()
    tally.seconds = time.monotonic() - began
    tally.grown_mb = _resident_mb() - resident
    return tally


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    tyro.cli(main)
