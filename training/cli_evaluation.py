"""`metatrain evaluate`, `export`, `results`, `curves`: what a trained policy is worth."""

from pathlib import Path
from typing import get_args

import tyro
from rich.console import Console

from runtime.errors import InvalidConfig
from sim.change import Change
from training.evaluate import Evaluation, References, evaluate, evaluate_references
from training.meta_trainer import MetaTrainer
from training.methods import Adapting
from training.multitask import MultitaskTrainer
from training.reference import Reference, load_reference
from training.report import evaluation_tables, seeds_table
from training.seeds import load_seeds


def evaluate_command(arguments: list[str]) -> None:
    """`metatrain evaluate`."""

    def run_evaluation(
        runs: tyro.conf.Positional[tuple[Path, ...]],
        tasks: int = 30,
        episodes: int | None = None,
        seed: int = 0,
        change: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
        reference: Path | None = None,
    ) -> None:
        """Return per episode on held-out tasks, beside references that cannot adapt.

        Args:
            runs: run folder; several of one setting, which differ in their seed, give the mean
                over seeds.
            tasks: held-out tasks.
            episodes: episodes per task; those of a trial if not given, four at least where it
                has several.
            seed: of the held-out tasks, their changes and the start states.
            change: every trial's task changes before a step of it, or a random one of a range:
                STEP[-STEP][:PARAMETER[=VALUE],...], drawn anew where no value is given, as
                250:target_velocity=0.5 or 100-150:payload; again for another change.
            reference: run folder of `metatrain train multitask` on the same family; its policy,
                which is told the task, is shown beside.
        """
        if not runs:
            raise InvalidConfig("name a run folder, as in `metatrain evaluate runs/my-run`")
        if change and len(runs) > 1:
            raise InvalidConfig("--change is shown for one run at a time: name one run folder")
        changes = tuple(map(Change.parse, change))
        trainers = list(load_seeds(runs).values())
        told = _reference(trainers[0], reference)
        found = [
            evaluate_trainer(t, tasks, episodes, seed, changes, told if k == 0 else None)
            for k, t in enumerate(trainers)
        ]
        console = Console()
        if len(found) == 1:
            print_evaluation(console, found[0])
        else:
            console.print(seeds_table([t.config.seed for t in trainers], found))

    tyro.cli(run_evaluation, args=arguments, prog="metatrain evaluate")


def export_command(arguments: list[str]) -> None:
    """`metatrain export`."""
    from training.export import export_run  # imports onnxscript, which is slow to start

    def run_export(
        run: tyro.conf.Positional[Path],
        name: str,
        into: Path = Path("exported_models"),
        tasks: int = 30,
        seed: int = 0,
        reference: Path | None = None,
        seeds: tuple[Path, ...] = (),
        context: int | None = None,
    ) -> None:
        """Export the newest checkpoint of a run as the next version of a bundle.

        Args:
            run: run folder.
            name: the bundle's name.
            into: folder of bundles.
            tasks: held-out tasks of the evaluation in the model card.
            seed: of the evaluation.
            reference: run folder of `metatrain train multitask` on the same family; its policy,
                which is told the task, is evaluated beside.
            seeds: run folders of the same setting with other training seeds; their returns are
                recorded beside, the policy is that of `run`.
            context: transitions that a belief of 'pearl' is made of, at most those that it was
                trained with; as many as these if not given.
        """
        trainers: dict[Path, Adapting] = {}
        for folder, trainer in load_seeds([run, *seeds]).items():
            if not isinstance(trainer, Adapting):
                expected = " or ".join(repr(each.method) for each in get_args(Adapting))
                raise InvalidConfig(
                    f"{folder} is a run of {trainer.method!r}, whose policy does not adapt: "
                    f"nothing to export; expected a run of {expected}"
                )
            trainers[folder] = trainer
        trainer = trainers.pop(run)
        told = _reference(trainer, reference)
        bundle = export_run(trainer, run, name, into, tasks, seed, told, trainers, context)
        Console().print(f"Exported {bundle}: parity held, golden trace recorded.")

    tyro.cli(run_export, args=arguments, prog="metatrain export")


def results_command(arguments: list[str]) -> None:
    """`metatrain results`."""
    from training.results import results_page

    def run_results(
        models: Path = Path("exported_models"), into: Path = Path("docs/results.md")
    ) -> None:
        """Rebuild the page of results from the manifests of bundles.

        Args:
            models: folder of bundles.
            into: the page to write.
        """
        page = results_page(models)
        try:
            into.write_text(page)
        except OSError as error:
            raise InvalidConfig(f"{into} cannot be written: {error.strerror}") from None
        Console().print(f"Wrote {into}.")

    tyro.cli(run_results, args=arguments, prog="metatrain results")


def curves_command(arguments: list[str]) -> None:
    """`metatrain curves`."""
    from training.curves import read_groups
    from training.pictures import learning_picture

    def run_curves(runs: tyro.conf.Positional[tuple[Path, ...]], into: Path) -> None:
        """Draw learning curves: return per episode against environment steps.

        Args:
            runs: run folders; those that differ in their seed alone are drawn as their mean and
                range, other settings beside them, other families in panels of their own.
            into: the picture to write, PNG.
        """
        if not runs:
            raise InvalidConfig(
                "name run folders, as in `metatrain curves runs/a runs/b --into x.png`"
            )
        if into.suffix != ".png":
            raise InvalidConfig(f"--into {into} names no PNG: expected a file that ends in .png")
        learning_picture(into, read_groups(runs))
        Console().print(f"Wrote {into}.")

    tyro.cli(run_curves, args=arguments, prog="metatrain curves")


def evaluate_trainer(
    trainer: MetaTrainer,
    tasks: int = 30,
    episodes: int | None = None,
    seed: int = 0,
    changes: tuple[Change, ...] = (),
    reference: Reference | None = None,
) -> Evaluation | References:
    """Evaluate what a trainer has trained; arguments as `training.evaluate.evaluate`.

    Raises:
        InvalidConfig: there is no such evaluation of its method.
    """
    config = trainer.config
    settings = (config.family, tasks, episodes, seed, config.threads)
    if isinstance(trainer, MultitaskTrainer):
        if changes:
            raise InvalidConfig(
                f"a policy of the method {trainer.method!r} adapts to no change: evaluate it "
                f"without --change"
            )
        return evaluate_references(trainer.policy, *settings)
    if isinstance(trainer, Adapting):
        told = reference.policy if reference else None
        return evaluate(trainer.policy, *settings, changes, told)
    raise InvalidConfig(f"there is no evaluation of the method {trainer.method!r}")


def print_evaluation(console: Console, evaluation: Evaluation | References) -> None:
    """Show it as tables."""
    for table in evaluation_tables(evaluation):
        console.print(table)


def _reference(trainer: MetaTrainer, run: Path | None) -> Reference | None:
    if run is None:
        return None
    if isinstance(trainer, MultitaskTrainer):
        raise InvalidConfig(
            "a run of 'multitask' is a reference itself: evaluate it without --reference"
        )
    return load_reference(run, trainer.config.family)
