"""What a run folder gets once its training is finished: evaluation, picture, bundle."""

import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from runtime.errors import InvalidBundle, ParityError
from training.evaluate import Evaluation, References
from training.files import write_whole
from training.meta_trainer import MetaTrainer
from training.methods import Adapting
from training.train import Run, writing

EVALUATION, PICTURE, BUNDLE = "evaluation.json", "curve.png", "bundle"


def finish(
    run: Run,
    trainer: MetaTrainer,
    evaluation: Evaluation | References,
    export: bool,
    console: Console,
) -> None:
    """Write `evaluation.json`, `curve.png` and, where the method makes one, `bundle/NAME/1`.

    Args:
        run: of the trainer.
        trainer: at the end of its training.
        evaluation: on held-out tasks.
        export: whether to write the bundle.
        console: where the bundle is named, or why there is none.

    Raises:
        NotSaved: the disk is full, or refuses.
    """
    from training.curves import read_groups
    from training.pictures import learning_picture  # matplotlib is slow to start

    with writing(run):
        record = held_out_record(trainer, evaluation)
        write_whole(run.folder / EVALUATION, json.dumps(record, indent=1))
        learning_picture(run.folder / PICTURE, read_groups([run.folder]))
        if export and isinstance(trainer, Adapting):
            _write_bundle(run.folder, trainer, console)


def held_out_record(trainer: MetaTrainer, found: Evaluation | References) -> dict[str, Any]:
    """Returns on held-out tasks, by way of acting.

    Each has a `summary` per episode and the `returns` themselves, (episodes, tasks).
    """
    return {
        "method": trainer.method,
        "family": trainer.config.family,
        "env_steps": trainer.env_steps,
        "tasks": found.tasks,
        "seed": found.seed,
        "acting": {
            name: {"summary": returns.summary(), "returns": returns.values.tolist()}
            for name, returns in found.rows()
        },
    }


def _write_bundle(folder: Path, trainer: Adapting, console: Console) -> None:
    from training.export import export_run  # imports onnxscript, which is slow to start

    name = bundle_name(trainer)
    if (folder / BUNDLE / name / "1").exists():  # of an earlier end of this same run
        return
    try:
        bundle = export_run(trainer, folder, name, folder / BUNDLE)
    except (ParityError, InvalidBundle) as error:
        console.print(f"No bundle was exported: {error}", soft_wrap=True, markup=False)
        return
    console.print(f"Bundle: {bundle}", soft_wrap=True, markup=False, highlight=False)


def bundle_name(trainer: MetaTrainer) -> str:
    """Of a run's own bundle: family and method, as in `halfcheetah-vel-rl2`."""
    family = re.sub(r"[^a-z0-9_.-]+", "-", trainer.config.family.lower()).strip("-._")
    return f"{family}-{trainer.method}"[:100]
