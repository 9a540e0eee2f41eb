"""Several runs of one setting that differ in their training seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InvalidConfig
from training.meta_trainer import MetaTrainer
from training.methods import load_trainer

RUNNING = {"seed", "threads", "checkpoint_every", "shards", "device"}
"""Settings that say how a run is run, not what is learned: they may differ."""


def load_seeds(runs: Sequence[Path]) -> dict[Path, MetaTrainer]:
    """The trainers at the newest checkpoints of runs that differ in their seed.

    Raises:
        InvalidConfig: no checkpoint in one, the same seed twice, or another setting differs.
    """
    trainers: dict[Path, MetaTrainer] = {}
    for run in runs:
        trainer = load_trainer(run)
        for other, earlier in trainers.items():
            _check(other, earlier, run, trainer)
        trainers[run] = trainer
    return trainers


def _check(one: Path, first: MetaTrainer, other: Path, second: MetaTrainer) -> None:
    if first.method != second.method:
        raise InvalidConfig(
            f"{one} is a run of {first.method!r} and {other} of {second.method!r}: only runs of "
            f"one method can be averaged"
        )
    ours, theirs = setting(first.config.model_dump()), setting(second.config.model_dump())
    differing = [
        f"{k} ({ours.get(k)} and {theirs.get(k)})"
        for k in sorted(ours.keys() | theirs.keys())
        if ours.get(k) != theirs.get(k)
    ]
    if differing:
        raise InvalidConfig(
            f"{one} and {other} may differ in their seed only, but do in {', '.join(differing)}"
        )
    if first.config.seed == second.config.seed:
        raise InvalidConfig(
            f"{one} and {other} have the same seed, {first.config.seed}: their mean would count "
            f"one training twice"
        )


def setting(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What says what is learned, flat: `ppo.discount` and the like."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= setting(value, f"{prefix}{name}.")
        elif prefix or name not in RUNNING:
            flat[prefix + name] = value
    return flat
