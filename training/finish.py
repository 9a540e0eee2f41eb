"""What a run folder gets once its training is finished: evaluation, picture, bundle."""

import json
import re
from pathlib import Path

from rich.console import Console

from runtime.errors import AdaptdError
from training.evaluate import Evaluation, References
from training.files import write_whole
from training.rl2 import RL2Trainer
from training.train import Run
from training.trainer import TrialTrainer

EVALUATION, PICTURE, BUNDLE = "evaluation.json", "curve.png", "bundle"


def write_evaluation(folder: Path, trainer: TrialTrainer, found: Evaluation | References) -> None:
    """`evaluation.json`: returns on held-out tasks, by way of acting.

    Each has a `summary` per episode and the `returns` themselves, (episodes, tasks).
    """
    record = {
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
    write_whole(folder / EVALUATION, json.dumps(record, indent=1))


def write_picture(folder: Path) -> None:
    """`curve.png`: the learning curve."""
    from training.pictures import curve_picture  # matplotlib is slow to start

    curve_picture(folder / PICTURE, folder.name, Run(folder).curve())


def write_bundle(folder: Path, trainer: TrialTrainer, console: Console) -> None:
    """`bundle/NAME/1`: what adaptd serves, if the method makes one and it is not there yet."""
    if not isinstance(trainer, RL2Trainer) or (folder / BUNDLE).exists():
        return
    from training.export import export_run  # imports onnxscript, which is slow to start

    name = bundle_name(trainer)
    try:
        bundle = export_run(trainer, folder, name, folder / BUNDLE)
    except AdaptdError as error:
        console.print(f"No bundle was exported: {error}", soft_wrap=True, markup=False)
        return
    console.print(f"Bundle: {bundle}", soft_wrap=True, markup=False, highlight=False)


def bundle_name(trainer: TrialTrainer) -> str:
    """Of a run's own bundle: family and method, as in `halfcheetah-vel-rl2`."""
    family = re.sub(r"[^a-z0-9_.-]+", "-", trainer.config.family.lower()).strip("-._")
    return f"{family}-{trainer.method}"[:100]
