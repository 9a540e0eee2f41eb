"""Checkpoints: safetensors for arrays, JSON for the rest, one folder each, renamed whole.

The order of writing: the files, the folder that holds them, its renaming, the folder above. So a
kill or a power cut at any moment leaves the checkpoints of before, and perhaps the new one.
"""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from runtime.errors import InvalidConfig, NotSaved
from training.files import sync

KEPT = 3
"""How many of the newest checkpoints stay on disk."""

TENSORS, FACTS = "tensors.safetensors", "facts.json"
PARTIAL = ".partial-"


def save(folder: Path, iteration: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Path:
    """Write checkpoint `iteration` under `folder`; it appears whole or not at all.

    Raises:
        NotSaved: the disk is full, or refuses; the checkpoints of before are still there.
    """
    target, partial = folder / f"{iteration:06d}", folder / f"{PARTIAL}{os.getpid()}"
    data = tensor_bytes({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder)
        _write(partial, data, facts)
        if target.exists():  # a damaged one: what is whole is not written again
            target.rename(folder / f"{PARTIAL}damaged-{iteration}")
        partial.rename(target)
        sync(folder)
        for old in checkpoints(folder)[:-KEPT]:  # renamed first: no half a checkpoint has a number
            old.rename(folder / f"{PARTIAL}old-{old.name}")
        clean(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise NotSaved(_not_saved(target, len(data), error)) from None
    return target


def _write(partial: Path, data: bytes, facts: dict[str, Any]) -> None:
    partial.mkdir()
    (partial / TENSORS).write_bytes(data)
    record = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (partial / FACTS).write_text(json.dumps({**facts, "tensors": record}, indent=1))
    for path in (*partial.iterdir(), partial):
        sync(path)


def _not_saved(target: Path, size: int, error: OSError) -> str:
    before = checkpoints(target.parent)
    kept = f"the last good checkpoint is {before[-1]}" if before else "there is none from before"
    room = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = next(shutil.disk_usage(p).free for p in target.parents if p.exists())
        room = f" (it takes {size / 1e6:.1f} MB, its disk has {free / 1e6:.1f} MB left)"
    return f"the checkpoint {target} cannot be written: {error.strerror or error}{room}; {kept}"


def clean(folder: Path) -> None:
    """Remove what interrupted writers left half done."""
    for partial in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)


def load(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of one checkpoint.

    Raises:
        InvalidConfig: it cannot be read, or is not what was written.
    """
    try:
        facts = json.loads((checkpoint / FACTS).read_text())
        data = (checkpoint / TENSORS).read_bytes()
        written = facts.pop("tensors", None)  # older checkpoints do not say
        if written and len(data) != written["size"]:
            raise ValueError(f"{TENSORS} has {len(data)} bytes of {written['size']}")
        if written and hashlib.sha256(data).hexdigest() != written["sha256"]:
            raise ValueError(f"{TENSORS} is not what was written")
        return load_tensors(data), facts
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidConfig(f"{checkpoint} cannot be read: {error}; delete it") from None


def load_newest(
    run: Path,
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Tensors and facts of a run folder's newest whole checkpoint, and what is wrong with newer.

    Raises:
        InvalidConfig: there is no checkpoint, or none that is whole.
    """
    latest(run)  # complains if there is none
    complaints: list[str] = []
    for checkpoint in reversed(checkpoints(run / "checkpoints")):
        try:
            return *load(checkpoint), complaints
        except InvalidConfig as error:
            complaints.append(str(error).removesuffix("; delete it"))
    raise InvalidConfig(f"{run} holds no checkpoint that is whole: {'; '.join(complaints)}")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def latest(run: Path) -> Path:
    """The newest checkpoint of a run folder.

    Raises:
        InvalidConfig: there is none.
    """
    found = checkpoints(run / "checkpoints")
    if not found:
        raise InvalidConfig(f"{run} holds no checkpoint; `metatrain train` makes one")
    return found[-1]


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
