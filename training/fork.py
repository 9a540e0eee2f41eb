"""A new run that goes on from another one's checkpoint, with other settings."""

from pathlib import Path
from typing import Any

from rich.console import Console

from runtime.errors import InvalidConfig
from training import checkpoint
from training.meta_trainer import MetaTrainer
from training.provenance import origin


def fork(trainer: MetaTrainer, source: Path, console: Console) -> dict[str, Any]:
    """Load the newest whole checkpoint of the run folder `source` into a fresh trainer.

    Returns:
        Where that came from: `command`, `commit`, `env_steps`, and `from`, if it was a fork, too.

    Raises:
        InvalidConfig: there is no checkpoint, or it is of another method, or of settings that
            no other run can go on from.
    """
    tensors, facts, damaged = checkpoint.load_newest(source)
    if facts["method"] != trainer.method:
        raise InvalidConfig(f"{source} is a run of {facts['method']!r}, not of {trainer.method!r}")
    theirs = type(trainer.config).model_validate(facts["config"]).model_dump()
    ours = trainer.config.model_dump()
    differing = sorted(k for k in trainer.config.CHECKPOINTED if ours[k] != theirs[k])
    if differing:
        raise InvalidConfig(
            f"a run cannot go on from {source} with other settings of {differing}: its checkpoint "
            f"is made by { ({k: theirs[k] for k in differing}) }"
        )
    trainer.load(tensors, facts)
    for complaint in damaged:
        console.print(f"Damaged: {complaint}.", soft_wrap=True, markup=False)
    console.print(f"Going on from {source}, {trainer.env_steps:,} steps.", soft_wrap=True)
    return origin(source) | {"env_steps": trainer.env_steps}
