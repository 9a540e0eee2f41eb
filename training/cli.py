"""`metatrain`: train, evaluate, export, list."""

import sys

import tyro
from rich.console import Console
from rich.table import Table

import sim
from runtime.commandline import run_program
from training import methods
from training.cli_evaluation import (
    curves_command,
    evaluate_command,
    export_command,
    results_command,
)
from training.cli_train import bench_command, train_command
from training.launch import Launched, end_process, end_with_parent, exit_status, reported
from training.ranks import RankLost, under_torchrun

USAGE = """\
usage: metatrain COMMAND ...

  train METHOD FAMILY [--preset fast|paper] [--run DIR] [--resume] [settings]
                                                          meta-train on a task family
  bench METHOD FAMILY [settings]                          training speed, and where time goes
  evaluate RUN ... [--reference RUN] [--change ..]        adaptation on held-out tasks
  export RUN --name NAME [--reference RUN] [--seeds ..]   write a bundle that adaptd serves
  results [--models DIR] [--into FILE.md]                 the page of results, from bundles
  curves RUN ... --into FILE.png                          a picture of learning curves
  list                                                    methods, presets and task families

`metatrain train rl2 halfcheetah-vel --help` lists every setting with its default.
"""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    if not under_torchrun():
        try:
            return run_program("metatrain", USAGE, COMMANDS, arguments)
        except Launched as launched:
            return launched.status
    end_with_parent()
    try:
        return exit_status(run_program("metatrain", USAGE, COMMANDS, arguments))
    except RankLost as error:
        if reported():  # the other rank is gone because it had to stop: all is said
            return 0
        print(f"metatrain: {error}", file=sys.stderr)
        return 1


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


COMMANDS = {
    "train": train_command,
    "bench": bench_command,
    "evaluate": evaluate_command,
    "export": export_command,
    "results": results_command,
    "curves": curves_command,
    "list": _list,
}

if __name__ == "__main__":
    end_process(main())
