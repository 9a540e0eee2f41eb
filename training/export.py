"""From a trained run to a bundle that adaptd serves, behind a parity gate.

A bundle is written into a hidden folder beside its destination and renamed whole, after
torch and onnxruntime have run the same trial in lock step. If anything fails, nothing
is left behind.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save as save_arrays

import sim
from runtime.errors import InvalidBundle, InvalidConfig
from runtime.policy import Policy, replay_golden
from runtime.spec import (
    GOLDEN,
    MANIFEST,
    POLICY,
    SCHEMA_VERSION,
    Manifest,
    file_record,
    split_reference,
)
from training.card import model_card
from training.evaluate import (
    Evaluation,
    Returns,
    evaluate,
    evaluate_adapting,
    evaluation_record,
    over_seeds,
)
from training.exported_step import ExportedStep, to_onnx
from training.methods import Adapting
from training.parity import GOLDEN_STEPS, PARITY_ATOL, check_parity, record_golden
from training.pearl import PEARLTrainer
from training.pearl_doubt import usual_disagreement
from training.pearl_export import PosteriorStep
from training.pictures import adaptation_picture
from training.provenance import provenance
from training.recurrent_export import RecurrentStep
from training.reference import Reference
from training.train import Run


def export_run(
    trainer: Adapting,
    run: Path,
    name: str,
    into: Path,
    tasks: int = 30,
    seed: int = 0,
    reference: Reference | None = None,
    others: Mapping[Path, Adapting] | None = None,
    context: int | None = None,
) -> Path:
    """Write the next version of bundle `name` from a trained run.

    Args:
        trainer: at the checkpoint to export.
        run: its run folder, for the learning curve and the wall time.
        name: the bundle's name.
        into: the folder of bundles.
        tasks: held-out tasks of the evaluation.
        seed: of the evaluation.
        reference: told the task, to compare with.
        others: runs of the same setting with other training seeds, for the record.
        context: transitions that a policy's belief is made of, where it is one of so many; None:
            as many as it was trained with.

    Returns:
        The bundle's folder.

    Raises:
        ParityError: torch and onnxruntime disagree; nothing is left behind.
        InvalidBundle: the name cannot be a bundle's.
        InvalidConfig: there can be no such context.
    """
    if split_reference(name)[1] is not None:
        raise InvalidBundle(f"{name!r} names a version: the next free one is taken by itself")
    config, others = trainer.config, others or {}
    step = exported_step(trainer, context)
    told = reference.policy if reference else None
    settings = (config.family, tasks, None, seed, config.threads)
    evaluation = evaluate(trainer.policy, *settings, reference=told)
    measured = [(other, evaluate_adapting(other.policy, *settings)) for other in others.values()]
    beside = {"reference": reference.origin} if reference else {}
    beside |= _other_seeds(trainer, evaluation, measured)
    home = into / name
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    home.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.name) for p in home.iterdir() if p.name.isdecimal()), default=0)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=home))
    try:
        facts = describe(trainer, run, name, number, evaluation) | step.facts()
        facts["provenance"] |= beside
        manifest = _write(partial, step, facts)
        curves = [Run(each).curve() for each in (run, *others)]
        adaptation_picture(partial / "adaptation.png", name, evaluation, curves)
        (partial / "README.md").write_text(model_card(manifest, config, evaluation))
        partial.chmod(0o755)
        target = home / str(number)
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            folder.rmdir()
        raise
    return target


def exported_step(trainer: Adapting, context: int | None = None) -> ExportedStep:
    """The graph of a trained policy, before it is one.

    Raises:
        InvalidConfig: the policy's belief is not made of a context, or of a shorter one.
    """
    family = sim.family(trainer.config.family)
    if isinstance(trainer, PEARLTrainer):
        policy, config = trainer.policy, trainer.config
        window = policy.context if context is None else context
        usual = usual_disagreement(policy, family, window, config.threads)
        sample = config.acting == "sampled"
        return PosteriorStep(policy, family, context, usual, sample).eval()
    if context is not None:
        raise InvalidConfig(
            f"a context of {context} transitions: the memory of {trainer.method!r} is a hidden "
            f"state, which looks back as far as it learnt to; export it without --context"
        )
    return RecurrentStep(trainer.policy, family).eval()


def _other_seeds(
    trainer: Adapting, evaluation: Evaluation, others: list[tuple[Adapting, Returns]]
) -> dict[str, Any]:
    """What the provenance says of other training seeds: each of them, and the mean over all."""
    if not others:
        return {}
    seeds = [
        {"seed": t.config.seed, "episodes": r.summary(), "env_steps": t.env_steps}
        for t, r in others
    ]
    return {
        "seeds": seeds,
        "over_seeds": {
            "seeds": [trainer.config.seed, *(each["seed"] for each in seeds)],
            "episodes": over_seeds([evaluation.adapting, *(r for _, r in others)]),
        },
    }


def _write(folder: Path, step: ExportedStep, facts: dict[str, Any]) -> Manifest:
    """policy.onnx, golden.safetensors and manifest.json, after the parity gate."""
    family = step.family
    model = to_onnx(step)
    unchecked = {"files": _files(model, b""), "golden": {"steps": 1, "atol": PARITY_ATOL}}
    policy = Policy(Manifest.model_validate(facts | unchecked), model)
    check_parity(step, policy, family)
    trace = record_golden(policy, family)
    golden = save_arrays(trace)
    facts |= {
        "files": _files(model, golden),
        "golden": {"steps": GOLDEN_STEPS, "atol": PARITY_ATOL},
    }
    manifest = Manifest.model_validate(facts)
    replay_golden(Policy(manifest, model), golden)
    (folder / POLICY).write_bytes(model)
    (folder / GOLDEN).write_bytes(golden)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _files(model: bytes, golden: bytes) -> dict[str, Any]:
    records = {POLICY: file_record(model), GOLDEN: file_record(golden)}
    return {name: record.model_dump() for name, record in records.items()}


def describe(
    trainer: Adapting, run: Path, name: str, number: int, evaluation: Evaluation
) -> dict[str, Any]:
    """The manifest without `files`, `golden` and what `ExportedStep.facts` say."""
    config = trainer.config
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": number,
        "evaluation": evaluation_record(evaluation, [config.seed], trainer.env_steps),
        "provenance": provenance(run, _wall_time_s(run))
        | {
            "config": config.model_dump(mode="json"),
            "env_steps": trainer.env_steps,
            "evaluation_seed": evaluation.seed,
        },
    }


def _wall_time_s(run: Path) -> float:
    return sum(row["time/collect_s"] + row["time/learn_s"] for row in Run(run).curve())
