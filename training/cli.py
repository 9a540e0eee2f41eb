"""`metatrain`: train, evaluate, export, list."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

import sim
from runtime.commandline import run_program
from runtime.errors import InvalidConfig
from sim.change import Change
from training import methods
from training.arguments import check_settings, given
from training.config import RL2Config, TrialConfig
from training.evaluate import Evaluation, References, evaluate, evaluate_references
from training.evaluate_change import change_tables
from training.multitask import MultitaskTrainer
from training.rl2 import RL2Trainer
from training.trainer import TrialTrainer

USAGE = """\
usage: metatrain COMMAND ...

  train METHOD FAMILY [--preset fast|paper] [--run DIR] [--resume] [settings]
                                                          meta-train on a task family
  evaluate RUN [--tasks 30] [--episodes N] [--change ..]  adaptation on held-out tasks
  export RUN --name NAME [--into DIR]                     write a bundle that adaptd serves
  list                                                    methods and task families

`metatrain train rl2 halfcheetah-vel --help` lists every setting with its default.
"""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    return run_program("metatrain", USAGE, COMMANDS, arguments)


def _train(arguments: list[str]) -> None:
    positional = [a for a in arguments[:2] if not a.startswith("-")]
    if len(positional) < 2:
        raise InvalidConfig(
            "name a method and a task family, as in `metatrain train rl2 halfcheetah-vel`"
        )
    method, family = positional
    trained = methods.method(method)
    sim.family(family)  # complains of a name that does not exist
    chosen = given(arguments, "preset", "fast")
    settings = trained.preset(family, chosen)

    def run_training(
        config: Annotated[trained.config, tyro.conf.arg(name="")] = settings,  # type: ignore[name-defined]
        preset: str = chosen,
        run: Path | None = None,
        resume: bool = False,
        track: str = "tensorboard",
        export: bool = True,
    ) -> None:
        """Meta-train.

        Args:
            config: settings of the method.
            preset: what the other settings are if not given: fast, our best; paper, as published.
            run: run folder; runs/<method>-<family>-<cell>-s<seed> if not given.
            resume: go on from the newest whole checkpoint of the run folder.
            track: where the curves go: none, tensorboard, wandb or trackio.
            export: at the end, write the bundle that adaptd serves into the run folder.
        """
        if config.family != family:
            raise InvalidConfig(f"--family {config.family} contradicts the family {family}")
        folder = run or Path("runs") / _run_name(method, preset, config)
        _train_to_the_end(trained, config, folder, resume, arguments, track, export)

    check_settings(arguments[2:], trained.config, run_training)
    tyro.cli(
        tyro.conf.configure(tyro.conf.OmitArgPrefixes)(run_training),
        args=arguments[2:],
        prog=f"metatrain train {method} {family}",
    )


def _run_name(method: str, preset: str, config: TrialConfig) -> str:
    cell = f"-{config.network.cell}" if isinstance(config, RL2Config) else ""
    kind = "" if preset == "fast" else f"-{preset}"
    return f"{method}-{config.family.replace(':', '.')}{cell}{kind}-s{config.seed}"


def _train_to_the_end(
    trained: methods.Method,
    config: TrialConfig,
    folder: Path,
    resume: bool,
    arguments: list[str],
    track: str,
    export: bool,
) -> None:
    from training.finish import finish
    from training.train import Run, train

    trainer = trained.trainer(config)
    console = Console(quiet=not trainer.ranks.main)
    train(trainer, folder, console, resume, arguments, track)
    if not (trainer.finished and trainer.ranks.main):
        return
    evaluation = _evaluate_trainer(trainer, 30, None, 0)
    _print_evaluation(console, evaluation)
    finish(Run(folder), trainer, evaluation, export, console)
    console.print(f"Run folder: {folder}", soft_wrap=True, markup=False, highlight=False)


def _evaluate(arguments: list[str]) -> None:
    def run_evaluation(
        run: tyro.conf.Positional[Path],
        tasks: int = 30,
        episodes: int | None = None,
        seed: int = 0,
        change: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    ) -> None:
        """Return per episode on held-out tasks, beside references that cannot adapt.

        Args:
            run: run folder.
            tasks: held-out tasks.
            episodes: episodes per task; those of a trial if not given, three at least where it
                has several.
            seed: of the held-out tasks, their changes and the start states.
            change: every trial's task changes before a step of it, or a random one of a range:
                STEP[-STEP][:PARAMETER[=VALUE],...], drawn anew where no value is given, as
                250:target_velocity=0.5 or 100-150:payload; again for another change.
        """
        changes = tuple(map(Change.parse, change))
        trainer = methods.load_trainer(run)
        _print_evaluation(Console(), _evaluate_trainer(trainer, tasks, episodes, seed, changes))

    tyro.cli(run_evaluation, args=arguments, prog="metatrain evaluate")


def _export(arguments: list[str]) -> None:
    from training.export import export_run  # imports onnxscript, which is slow to start

    def run_export(
        run: tyro.conf.Positional[Path],
        name: str,
        into: Path = Path("exported_models"),
        tasks: int = 30,
        seed: int = 0,
    ) -> None:
        """Export the newest checkpoint of a run as the next version of a bundle.

        Args:
            run: run folder.
            name: the bundle's name.
            into: folder of bundles.
            tasks: held-out tasks of the evaluation in the model card.
            seed: of the evaluation.
        """
        console = Console()
        trainer = methods.load_trainer(run)
        if not isinstance(trainer, RL2Trainer):
            raise InvalidConfig(
                f"{run} is a run of {trainer.method!r}, whose policy does not adapt: nothing to "
                f"export; expected a run of 'rl2'"
            )
        bundle = export_run(trainer, run, name, into, tasks, seed)
        console.print(f"Exported {bundle}: parity held, golden trace recorded.")

    tyro.cli(run_export, args=arguments, prog="metatrain export")


def _list(arguments: list[str]) -> None:
    def run_list() -> None:
        """Show the methods, their presets, and the task families."""
        table = Table("kind", "name", "what it is", box=None)
        for name, found in methods.METHODS.items():
            table.add_row("method", name, found.summary)
        for name, what in methods.PRESETS.items():
            table.add_row("preset", name, what)
        for row in sim.listing():
            table.add_row(*row)
        Console().print(table)

    tyro.cli(run_list, args=arguments, prog="metatrain list")


def _evaluate_trainer(
    trainer: TrialTrainer,
    tasks: int,
    episodes: int | None,
    seed: int,
    changes: tuple[Change, ...] = (),
) -> Evaluation | References:
    config = trainer.config
    settings = (config.family, tasks, episodes, seed, config.threads)
    if isinstance(trainer, MultitaskTrainer):
        if changes:
            raise InvalidConfig(
                f"a policy of the method {trainer.method!r} adapts to no change: evaluate it "
                f"without --change"
            )
        return evaluate_references(trainer.policy, *settings)
    if isinstance(trainer, RL2Trainer):
        return evaluate(trainer.policy, *settings, changes)
    raise InvalidConfig(f"there is no evaluation of the method {trainer.method!r}")


def _print_evaluation(console: Console, evaluation: Evaluation | References) -> None:
    episodes = len(evaluation.random.values)
    headings = [f"episode {i + 1}" for i in range(episodes)]
    table = Table("acting", *headings, title=f"Return on {evaluation.tasks} held-out tasks")
    for name, returns in evaluation.rows():
        cells = [f"{e['mean']:.1f} ± {e['ci95']:.1f}" for e in returns.summary()]
        table.add_row(name, *cells)
    console.print(table)
    if isinstance(evaluation, Evaluation):
        adapting, cleared, _ = [(name, r.around_changes) for name, r in evaluation.rows()]
        for table in change_tables([adapting, cleared], evaluation.tasks):
            console.print(table)


COMMANDS = {"train": _train, "evaluate": _evaluate, "export": _export, "list": _list}

if __name__ == "__main__":
    sys.exit(main())
