"""The run around a trainer: folder, progress, curves, checkpoints, resume."""

import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from runtime.errors import InvalidConfig
from training import checkpoint
from training.provenance import record_origin
from training.trainer import TrialTrainer

CURVE = "curve.jsonl"


@dataclass(frozen=True)
class Run:
    """A run's folder: `config.json`, `curve.jsonl`, `checkpoints/`, TensorBoard events."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def curve(self) -> list[dict[str, float]]:
        """The learning curve so far, a row per iteration."""
        path = self.folder / CURVE
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def train(
    trainer: TrialTrainer,
    folder: Path,
    console: Console,
    resume: bool = False,
    arguments: Sequence[str] = (),
) -> None:
    """Train until the configured number of steps, saving as it goes.

    Args:
        trainer: what to train, fresh; on resume its configuration must be the run's own.
        folder: the run folder.
        console: where progress is shown.
        resume: go on from the newest checkpoint of `folder`.
        arguments: of the command, for the record.

    Raises:
        InvalidConfig: the folder holds another run, or nothing to resume.
        TrainingDiverged: a number stopped being finite; the last checkpoint is kept.
    """
    run = Run(folder)
    if resume:
        _restore(run, trainer)
    elif checkpoint.checkpoints(run.checkpoints):
        raise InvalidConfig(f"{folder} holds a run already: add --resume, or choose another --run")
    else:
        (folder / CURVE).unlink(missing_ok=True)  # of a run that ended before its first checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    record_origin(folder, arguments, resume)
    (folder / "config.json").write_text(trainer.config.model_dump_json(indent=1))
    with _interrupt() as interrupted:
        _loop(run, trainer, console, interrupted)
    if interrupted.is_set():
        console.print(f"Stopped at {trainer.env_steps:,} steps and saved; go on with --resume.")


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """Set the event on Ctrl-C, so that the iteration under way is finished; once only."""
    interrupted = threading.Event()

    def stop(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, previous)  # a second Ctrl-C stops at once

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def _loop(run: Run, trainer: TrialTrainer, console: Console, interrupted: threading.Event) -> None:
    writer = SummaryWriter(str(run.folder), purge_step=trainer.env_steps)
    started, steps_before = time.monotonic(), trainer.env_steps
    with open(run.folder / CURVE, "a") as curve, _progress(console) as progress:
        total = trainer.config.env_steps
        bar = progress.add_task("training", total=total, completed=trainer.env_steps, note="")
        while not (trainer.finished or trainer.ranks.any(interrupted.is_set())):
            row = trainer.iterate()
            for name, value in row.items():
                writer.add_scalar(name, value, trainer.env_steps)
            row = {"iteration": trainer.iteration, "env_steps": trainer.env_steps, **row}
            curve.write(json.dumps(row) + "\n")
            curve.flush()
            rate = (trainer.env_steps - steps_before) / (time.monotonic() - started)
            note = _note(row, rate)
            progress.update(bar, completed=trainer.env_steps, note=note)
            due = trainer.iteration % trainer.config.checkpoint_every == 0
            if due or trainer.finished:
                _save(run, trainer)
                if not console.is_terminal:
                    console.print(f"{trainer.env_steps:>12,} steps  {note}")
    if interrupted.is_set() and not trainer.finished:
        _save(run, trainer)
    writer.close()


def _note(row: dict[str, float], rate: float) -> str:
    returns = [f"{v:.1f}" for k, v in row.items() if k.startswith("return/")]
    return f"return per episode {' / '.join(returns)}  {rate:,.0f} steps/s"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} / {task.total:,.0f} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def _save(run: Run, trainer: TrialTrainer) -> None:
    checkpoint.save(run.checkpoints, trainer.iteration, trainer.tensors(), trainer.facts())


def _restore(run: Run, trainer: TrialTrainer) -> None:
    tensors, facts = checkpoint.load(checkpoint.latest(run.folder))
    saved = type(trainer.config).model_validate(facts["config"])
    if saved != trainer.config:
        ours, theirs = trainer.config.model_dump(), saved.model_dump()
        differing = [k for k in ours if ours[k] != theirs[k]]
        raise InvalidConfig(f"{run.folder} was trained with other settings: {differing} differ")
    trainer.load(tensors, facts)
    rows = [row for row in run.curve() if row["iteration"] <= trainer.iteration]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run.folder / CURVE).write_text(text)
