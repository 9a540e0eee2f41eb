"""`metatrain`: train, evaluate, export, results, curves, list."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import PositiveInt
from rich.console import Console
from rich.table import Table

import sim
from runtime.commandline import run_program
from runtime.errors import InvalidConfig
from training import methods
from training.bench import bench
from training.cli_evaluation import (
    curves_command,
    evaluate_command,
    evaluate_trainer,
    export_command,
    print_evaluation,
    results_command,
)
from training.config import RL2Config, TrialConfig
from training.launch import end_with_parent, exit_status, launch, under_torchrun, usual_ranks
from training.ranks import RankLost, Ranks, check_shards

USAGE = """\
usage: metatrain COMMAND ...

  train METHOD FAMILY [--run DIR] [--resume] [settings]   meta-train on a task family
  evaluate RUN ... [--reference RUN] [--change ..]        adaptation on held-out tasks
  export RUN --name NAME [--reference RUN] [--seeds ..]   write a bundle that adaptd serves
  results [--models DIR] [--into FILE.md]                 the page of results, from bundles
  curves RUN ... --into FILE.png                          a picture of learning curves
  bench METHOD FAMILY [settings]                          training speed, and where time goes
  list                                                    methods and task families

`metatrain train rl2 halfcheetah-vel --help` lists every setting with its default.
"""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    if not under_torchrun():
        return run_program("metatrain", USAGE, COMMANDS, arguments)
    end_with_parent()
    try:
        return exit_status(run_program("metatrain", USAGE, COMMANDS, arguments))
    except RankLost as error:
        print(f"metatrain: {error}", file=sys.stderr)
        return 1


def _train(arguments: list[str]) -> None:
    from training.train import train  # imports TensorBoard, which is slow to start

    method, family, trained = _named(arguments, "train")
    preset = trained.preset(family)

    def run_training(
        config: Annotated[trained.config, tyro.conf.arg(name="")] = preset,  # type: ignore[name-defined]
        run: Annotated[Path | None, tyro.conf.arg(name="run-folder", aliases=("--run",))] = None,
        resume: bool = False,
        ranks: PositiveInt | None = None,
    ) -> None:
        """Meta-train.

        Args:
            config: settings of the method.
            run: run folder; runs/<method>-<family>-<cell>-s<seed> if not given.
            resume: go on from the newest checkpoint of the run folder.
            ranks: processes that share the simulations; as many as there are cores for, or
                GPUs, if not given. What is learned does not depend on it.
        """
        _as_ranks(config, ranks, ["train", *arguments])
        cell = f"-{config.network.cell}" if isinstance(config, RL2Config) else ""
        folder = (
            run or Path("runs") / f"{method}-{config.family.replace(':', '.')}{cell}-s{config.seed}"
        )
        if config.family != family:
            raise InvalidConfig(f"--family {config.family} contradicts the family {family}")
        trainer = trained.trainer(config, Ranks.join(config.device))
        console = Console(quiet=not trainer.ranks.main)
        train(trainer, folder, console, resume, arguments)
        trainer.ranks.leave()
        if trainer.finished and trainer.ranks.main:
            print_evaluation(console, evaluate_trainer(trainer))
            following = f" Next: metatrain export {folder} --name NAME" * trained.exports
            console.print(f"Run folder: {folder}.{following}")

    tyro.cli(
        tyro.conf.configure(tyro.conf.OmitArgPrefixes)(run_training),
        args=arguments[2:],
        prog=f"metatrain train {method} {family}",
    )


def _named(arguments: list[str], command: str) -> tuple[str, str, methods.Method]:
    """The method and the family that a command begins with.

    Raises:
        InvalidConfig: one is missing.
        UnknownName: there is no such method or family.
    """
    positional = [a for a in arguments[:2] if not a.startswith("-")]
    if len(positional) < 2:
        raise InvalidConfig(
            f"name a method and a task family, as in `metatrain {command} rl2 halfcheetah-vel`"
        )
    method, family = positional
    trained = methods.method(method)
    sim.family(family)  # complains of a name that does not exist
    return method, family, trained


def _as_ranks(config: TrialConfig, ranks: int | None, arguments: list[str]) -> None:
    """Run the command as several ranks and exit as they do, unless this is one or the only one."""
    if under_torchrun():
        return
    count = usual_ranks(config) if ranks is None else ranks
    if count > 1:
        check_shards(config, count)
        raise SystemExit(launch(count, arguments))


def _bench(arguments: list[str]) -> None:
    _, family, trained = _named(arguments, "bench")
    preset = trained.preset(family)

    def run_bench(
        config: Annotated[trained.config, tyro.conf.arg(name="")] = preset,  # type: ignore[name-defined]
        iterations: PositiveInt = 8,
        ranks: PositiveInt | None = None,
    ) -> None:
        """Environment steps per second of training, and what the time goes to.

        Args:
            config: settings of the method.
            iterations: measured.
            ranks: as in `metatrain train`.
        """
        _as_ranks(config, ranks, ["bench", *arguments])
        trainer = trained.trainer(config, Ranks.join(config.device))
        bench(trainer, iterations, Console())
        trainer.ranks.leave()

    tyro.cli(
        tyro.conf.configure(tyro.conf.OmitArgPrefixes)(run_bench),
        args=arguments[2:],
        prog=f"metatrain bench {' '.join(arguments[:2])}",
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
    "bench": _bench,
    "evaluate": evaluate_command,
    "export": export_command,
    "results": results_command,
    "curves": curves_command,
    "list": _list,
}

if __name__ == "__main__":
    sys.exit(main())
