"""`metatrain`: train, evaluate, export, results, curves, list."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

import sim
from runtime.commandline import run_program
from runtime.errors import InvalidConfig
from training import methods
from training.cli_evaluation import (
    curves_command,
    evaluate_command,
    evaluate_trainer,
    export_command,
    print_evaluation,
    results_command,
)
from training.config import RL2Config

USAGE = """\
usage: metatrain COMMAND ...

  train METHOD FAMILY [--run DIR] [--resume] [settings]   meta-train on a task family
  evaluate RUN ... [--reference RUN] [--change ..]        adaptation on held-out tasks
  export RUN --name NAME [--reference RUN] [--seeds ..]   write a bundle that adaptd serves
  results [--models DIR] [--into FILE.md]                 the page of results, from bundles
  curves RUN ... --into FILE.png                          a picture of learning curves
  list                                                    methods and task families

`metatrain train rl2 halfcheetah-vel --help` lists every setting with its default.
"""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    return run_program("metatrain", USAGE, COMMANDS, arguments)


def _train(arguments: list[str]) -> None:
    from training.train import train  # imports TensorBoard, which is slow to start

    positional = [a for a in arguments[:2] if not a.startswith("-")]
    if len(positional) < 2:
        raise InvalidConfig(
            "name a method and a task family, as in `metatrain train rl2 halfcheetah-vel`"
        )
    method, family = positional
    trained = methods.method(method)
    sim.family(family)  # complains of a name that does not exist
    preset = trained.preset(family)

    def run_training(
        config: Annotated[trained.config, tyro.conf.arg(name="")] = preset,  # type: ignore[name-defined]
        run: Path | None = None,
        resume: bool = False,
    ) -> None:
        """Meta-train.

        Args:
            config: settings of the method.
            run: run folder; runs/<method>-<family>-<cell>-s<seed> if not given.
            resume: go on from the newest checkpoint of the run folder.
        """
        cell = f"-{config.network.cell}" if isinstance(config, RL2Config) else ""
        folder = (
            run or Path("runs") / f"{method}-{config.family.replace(':', '.')}{cell}-s{config.seed}"
        )
        console = Console()
        if config.family != family:
            raise InvalidConfig(f"--family {config.family} contradicts the family {family}")
        trainer = trained.trainer(config)
        train(trainer, folder, console, resume, arguments)
        if trainer.finished:
            print_evaluation(console, evaluate_trainer(trainer))
            following = f" Next: metatrain export {folder} --name NAME" * trained.exports
            console.print(f"Run folder: {folder}.{following}")

    tyro.cli(
        tyro.conf.configure(tyro.conf.OmitArgPrefixes)(run_training),
        args=arguments[2:],
        prog=f"metatrain train {method} {family}",
    )


def _list(arguments: list[str]) -> None:
    def run_list() -> None:
        """Show the methods and task families."""
        table = Table("kind", "name", "what it is", box=None)
        for name, found in methods.METHODS.items():
            table.add_row("method", name, found.summary)
        for row in sim.listing():
            table.add_row(*row)
        Console().print(table)

    tyro.cli(run_list, args=arguments, prog="metatrain list")


COMMANDS = {
    "train": _train,
    "evaluate": evaluate_command,
    "export": export_command,
    "results": results_command,
    "curves": curves_command,
    "list": _list,
}

if __name__ == "__main__":
    sys.exit(main())
