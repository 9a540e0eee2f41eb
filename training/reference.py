"""A policy that is told the task, from a run of `metatrain train multitask`, to compare with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import InvalidConfig
from training.methods import load_trainer
from training.multitask import MultitaskTrainer, TaskConditionedPolicy
from training.provenance import provenance


@dataclass(frozen=True)
class Reference:
    """A task-conditioned policy and how it was trained."""

    policy: TaskConditionedPolicy
    origin: dict[str, Any]
    """command, commit, seed, env_steps."""


def load_reference(run: Path, family: str) -> Reference:
    """The reference in a run folder.

    Raises:
        InvalidConfig: there is no such folder, or its run is of another method or family, or told
            none of its trials the task.
    """
    if not run.is_dir():
        raise InvalidConfig(
            f"there is no run folder {run} to take the reference from; "
            f"`metatrain train multitask {family}` makes one"
        )
    trainer = load_trainer(run)
    if not isinstance(trainer, MultitaskTrainer):
        raise InvalidConfig(
            f"{run} is a run of {trainer.method!r}, which is not told the task; expected a "
            f"reference from `metatrain train multitask {family}`"
        )
    if trainer.config.family != family:
        raise InvalidConfig(
            f"the reference in {run} was trained on {trainer.config.family!r}, expected {family!r}"
        )
    if trainer.config.told_share == 0:
        raise InvalidConfig(f"the reference in {run} was never told the task: its told_share is 0")
    origin = provenance(run, 0.0)
    return Reference(
        trainer.policy,
        {
            "command": origin["command"],
            "commit": origin["commit"],
            "seed": trainer.config.seed,
            "env_steps": trainer.env_steps,
        },
    )
