"""Checkpoints: safetensors for arrays, JSON for the rest, one folder each, renamed whole."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.errors import InvalidConfig

KEPT = 3
"""How many of the newest checkpoints stay on disk."""


def save(folder: Path, iteration: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Path:
    """Write checkpoint `iteration` under `folder`; it appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / f"{iteration:06d}", folder / f".partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file(
        {k: v.detach().contiguous() for k, v in tensors.items()}, partial / "tensors.safetensors"
    )
    (partial / "facts.json").write_text(json.dumps(facts, indent=1))
    for path in (*partial.iterdir(), partial):
        _sync(path)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def load(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of one checkpoint.

    Raises:
        InvalidConfig: it cannot be read.
    """
    try:
        facts = json.loads((checkpoint / "facts.json").read_text())
        return load_file(checkpoint / "tensors.safetensors"), facts
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidConfig(f"{checkpoint} cannot be read: {error}; delete it") from None


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.isdigit())


def latest(run: Path) -> Path:
    """The newest checkpoint of a run folder.

    Raises:
        InvalidConfig: there is none.
    """
    found = checkpoints(run / "checkpoints")
    if not found:
        raise InvalidConfig(f"{run} holds no checkpoint; `metatrain train` makes one")
    return found[-1]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors, `optimiser.<parameter index>.<field>`."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{i}.{k}": v for i, fields in state.items() for k, v in fields.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took out; the groups stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
