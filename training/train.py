"""The run around a trainer: folder, progress, curves, checkpoints, stopping, resuming."""

import json
import os
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from runtime.errors import InvalidConfig, NotSaved, TrainingDiverged
from training import checkpoint
from training.files import write_whole
from training.fork import fork
from training.interruption import interruption
from training.launch import STATUS_FILE
from training.meta_trainer import MetaTrainer
from training.progress import note, progress
from training.provenance import record_origin
from training.ranks import restarted, under_torchrun
from training.tracking import Tracker, check_tracker, open_tracker

CURVE = "curve.jsonl"


@dataclass(frozen=True)
class Run:
    """A run's folder.

    In it: `config.json`, `origin.json`, `curve.jsonl`, `checkpoints/`, and the tracker's files;
    once training is finished also what `training.finish` writes.
    """

    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def curve(self) -> list[dict[str, float]]:
        """The learning curve so far, a row per iteration, up to where a kill tore it off."""
        path = self.folder / CURVE
        text = path.read_text(errors="replace") if path.exists() else ""
        rows = []
        for line in text.splitlines(keepends=True):
            try:
                rows.append(json.loads(line) if line.endswith("\n") else None)
            except ValueError:
                break
        return [row for row in rows if row]


def train(
    trainer: MetaTrainer,
    folder: Path,
    console: Console,
    resume: bool = False,
    arguments: Sequence[str] = (),
    track: str = "tensorboard",
    source: Path | None = None,
) -> None:
    """Train until the configured number of steps, saving as it goes.

    On Ctrl-C or SIGTERM the iteration under way is finished and saved. Of several ranks, only the
    main one writes and speaks. A job that torchrun has restarted resumes by itself.

    Args:
        trainer: what to train, fresh; on resume its configuration must be the run's own.
        folder: the run folder.
        console: where progress is shown.
        resume: go on from the newest whole checkpoint of `folder`.
        arguments: of the command, for the record and to say how to go on.
        track: where the curves go, see `training.tracking`.
        source: a run folder to go on from with other settings (`training.fork`), when not resumed.

    Raises:
        InvalidConfig: the folder holds another run, or nothing to resume; or `source` cannot be
            gone on from.
        UnknownName: there is no such tracker.
        TrainingDiverged: a number stopped being finite; the last checkpoint is kept.
        NotSaved: the disk is full, or refuses; the last checkpoint is kept.
    """
    run, main, forked = Run(folder), trainer.ranks.main, None
    console = console if main else Console(quiet=True)
    check_tracker(track)
    found = checkpoint.checkpoints(run.checkpoints)
    again = _command_to_resume(arguments)
    if resume or (found and restarted()):
        resume = True
        _restore(run, trainer, console)
    elif found:
        raise InvalidConfig(f"{folder} holds a run already: add --resume, or choose another --run")
    elif source:
        forked = fork(trainer, source, console)
    with interruption() as interrupted, _going_on(run, again):
        tracker = None
        if main:
            with writing(run):
                rows = Run(source).curve() if source and forked else run.curve() if resume else []
                _prepare(run, trainer, rows)
                record_origin(folder, arguments, resume, forked)
                settings = trainer.config.model_dump(mode="json")
                tracker = open_tracker(track, folder, settings, trainer.env_steps)
        try:
            _loop(run, trainer, console, interrupted, tracker)
        finally:
            with suppress(OSError):  # of a disk that is full; it is told already
                tracker.close() if tracker else None
    if not trainer.finished:
        console.print(f"Stopped at {trainer.env_steps:,} steps and saved. Go on with:")
        console.print(f"  {again}", soft_wrap=True, markup=False, highlight=False)


def _command_to_resume(arguments: Sequence[str]) -> str:
    resume = [] if "--resume" in arguments else ["--resume"]
    command = shlex.join(["metatrain", "train", *arguments, *resume])
    return command + "   # by torchrun, as before" * (
        under_torchrun() and STATUS_FILE not in os.environ
    )


@contextmanager
def _going_on(run: Run, again: str) -> Iterator[None]:
    """Errors that stop training say where the run is and how it goes on."""
    try:
        yield
    except NotSaved as error:
        raise NotSaved(f"{error}. Make room, and go on with: {again}") from None
    except TrainingDiverged as error:
        found = checkpoint.checkpoints(run.checkpoints)
        kept = f"{found[-1]} is from before" if found else f"{run.folder} holds no checkpoint yet"
        following = f"go on from there with: {again}" if found else "nothing to go on from"
        raise TrainingDiverged(
            f"{error}. {kept}; {following}. If it diverges again, start another --run with a "
            f"smaller --learning-rate"
        ) from None


@contextmanager
def writing(run: Run) -> Iterator[None]:
    """Say of the run folder that it cannot be written, as `NotSaved`."""
    try:
        yield
    except OSError as error:
        found = checkpoint.checkpoints(run.checkpoints)
        kept = f"the last good checkpoint is {found[-1]}" if found else "it holds no checkpoint yet"
        where = error.filename or run.folder
        raise NotSaved(
            f"the run folder {run.folder} cannot be written: {error.strerror or error} "
            f"({where}); {kept}"
        ) from None


def _prepare(run: Run, trainer: MetaTrainer, rows: list[dict[str, float]]) -> None:
    """Put the run folder in order: the learning curve is that up to where the trainer is."""
    run.folder.mkdir(parents=True, exist_ok=True)
    checkpoint.clean(run.checkpoints)
    rows = [row for row in rows if row["iteration"] <= trainer.iteration]
    write_whole(run.folder / CURVE, "".join(json.dumps(row) + "\n" for row in rows))
    write_whole(run.folder / "config.json", trainer.config.model_dump_json(indent=1))


def _loop(
    run: Run,
    trainer: MetaTrainer,
    console: Console,
    interrupted: threading.Event,
    tracker: Tracker | None,
) -> None:
    started, steps_before = time.monotonic(), trainer.env_steps
    total, saved = trainer.config.env_steps, trainer.iteration
    with progress(console) as shown:
        first = "the first trials are under way"
        bar = shown.add_task("", total=total, completed=trainer.env_steps, note=first)
        while not (trainer.finished or trainer.ranks.any(interrupted.is_set())):
            row = trainer.iterate()
            if tracker is None:
                continue
            row = {"iteration": trainer.iteration, "env_steps": trainer.env_steps, **row}
            _keep(run, row, tracker)
            rate = (trainer.env_steps - steps_before) / (time.monotonic() - started)
            said = note(row, total, rate)
            shown.update(bar, completed=trainer.env_steps, note=said)
            if trainer.iteration % trainer.config.checkpoint_every == 0 or trainer.finished:
                _save(run, trainer)
                saved = trainer.iteration
                if not console.is_terminal:
                    console.print(said, soft_wrap=True)
    if tracker is not None and trainer.iteration != saved:
        _save(run, trainer)


def _keep(run: Run, row: dict[str, float], tracker: Tracker) -> None:
    """A row of the learning curve, on disk and in the tracker."""
    with writing(run):
        with open(run.folder / CURVE, "a") as curve:
            curve.write(json.dumps(row) + "\n")
        numbers = {name: x for name, x in row.items() if name not in ("iteration", "env_steps")}
        tracker.log(numbers, int(row["env_steps"]))


def _save(run: Run, trainer: MetaTrainer) -> None:
    tensors = trainer.tensors()
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():  # a checkpoint is good, or there is none
            raise TrainingDiverged(f"{name} is not finite after iteration {trainer.iteration}")
    checkpoint.save(run.checkpoints, trainer.iteration, tensors, trainer.facts())


def _restore(run: Run, trainer: MetaTrainer, console: Console) -> None:
    tensors, facts, damaged = checkpoint.load_newest(run.folder)
    saved = type(trainer.config).model_validate(facts["config"])
    if saved != trainer.config:
        ours, theirs = trainer.config.model_dump(), saved.model_dump()
        differing = [k for k in ours if ours[k] != theirs[k]]
        raise InvalidConfig(f"{run.folder} was trained with other settings: {differing} differ")
    trainer.load(tensors, facts)
    for complaint in damaged:
        console.print(f"Damaged: {complaint}.", soft_wrap=True, markup=False)
    console.print(f"Going on after iteration {trainer.iteration}, {trainer.env_steps:,} steps.")
