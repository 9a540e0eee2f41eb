"""Where a run's curves go besides its own `curve.jsonl`: TensorBoard, W&B, trackio, or nowhere."""

import json
import uuid
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from runtime.errors import InvalidConfig, UnknownName
from training.files import write_whole

PROJECT = "metatrain"
IDENTITY = "tracking.json"
"""Under which name a run folder is known to W&B or trackio, so that a resumed run goes on there."""


class Tracker(Protocol):
    """Takes the numbers of each iteration."""

    def log(self, row: Mapping[str, float], step: int) -> None:
        """Take what happened up to environment step `step`, by name."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Nowhere:
    """Keeps nothing."""

    def log(self, row: Mapping[str, float], step: int) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int):
        from torch.utils.tensorboard import SummaryWriter  # slow to start

        self._writer = SummaryWriter(str(folder), purge_step=step)

    def log(self, row: Mapping[str, float], step: int) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Online:
    """W&B, or trackio, which has the same interface; offline by their own settings."""

    def __init__(self, service: ModuleType, folder: Path, config: Mapping[str, Any], **where: Any):
        self._run = service.init(project=PROJECT, config=dict(config), resume="allow", **where)

    def log(self, row: Mapping[str, float], step: int) -> None:
        # Not as their own step: theirs counts calls, and refuses to go back when a run is resumed.
        self._run.log({**row, "env_steps": step})

    def close(self) -> None:
        self._run.finish()


def _wandb(folder: Path, config: Mapping[str, Any], step: int) -> Tracker:
    service, name = _service("wandb"), _identity(folder)
    return Online(service, folder, config, id=name, name=folder.name, dir=str(folder))


def _trackio(folder: Path, config: Mapping[str, Any], step: int) -> Tracker:
    return Online(_service("trackio"), folder, config, name=_identity(folder))


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any], int], Tracker]] = {
    "none": lambda *_: Nowhere(),
    "tensorboard": TensorBoard,
    "wandb": _wandb,
    "trackio": _trackio,
}


def check_tracker(name: str) -> None:
    """Complain before any work is done.

    Raises:
        UnknownName: there is no such tracker.
        InvalidConfig: its package is not installed; names the extra that installs it.
    """
    if name not in TRACKERS:
        raise UnknownName("tracker", name, TRACKERS)
    if name in ("wandb", "trackio"):
        _service(name)


def open_tracker(name: str, folder: Path, config: Mapping[str, Any], step: int) -> Tracker:
    """The tracker of that name; errors as `check_tracker`.

    Args:
        name: one of `TRACKERS`.
        folder: the run folder.
        config: the run's settings, to show beside its curves.
        step: environment steps done so far; TensorBoard forgets what came after.
    """
    check_tracker(name)
    return TRACKERS[name](folder, config, step)


def _service(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise InvalidConfig(
            f"--track {name} needs the package {name} ({error}): pip install 'adaptd[{name}]'"
        ) from None


def _identity(folder: Path) -> str:
    """The run's name there: the folder's, with something that tells it from others so named."""
    path = folder / IDENTITY
    if path.exists():
        return json.loads(path.read_text())["name"]
    name = f"{folder.name}-{uuid.uuid4().hex[:6]}"
    write_whole(path, json.dumps({"name": name}))
    return name
