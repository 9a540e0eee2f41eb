"""`metatrain train` and `bench`: a method on a task family, by one rank or several."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import PositiveInt
from rich.console import Console

import sim
from runtime.errors import InvalidConfig
from training import methods
from training.arguments import check_settings, given
from training.cli_evaluation import evaluate_trainer, print_evaluation
from training.config import RL2Config, RunConfig
from training.launch import Launched, launch, usual_ranks
from training.ranks import Ranks, check_parts, under_torchrun
from training.tracking import check_tracker

RunFolder = Annotated[Path | None, tyro.conf.arg(name="run-folder", aliases=("--run",))]
"""torchrun would take `--run` for an option of its own."""
Source = Annotated[Path | None, tyro.conf.arg(name="from")]
"""`from` is a word of Python's."""


def train_command(arguments: list[str]) -> None:
    """`metatrain train`."""
    method, family, trained = _named(arguments, "train")
    chosen = given(arguments, "preset", "fast")
    settings = trained.preset(family, chosen)

    def run_training(
        config: Annotated[trained.config, tyro.conf.arg(name="")] = settings,  # type: ignore[name-defined]
        preset: str = chosen,
        run: RunFolder = None,
        resume: bool = False,
        source: Source = None,
        ranks: PositiveInt | None = None,
        track: str = "tensorboard",
        export: bool = True,
    ) -> None:
        """Meta-train.

        Args:
            config: settings of the method.
            preset: what the other settings are if not given: fast, our best; paper, as published.
            run: run folder; runs/<method>-<family>-<cell>-s<seed> if not given.
            resume: go on from the newest whole checkpoint of the run folder.
            source: a run folder to go on from with other settings, in a run folder of its own.
            ranks: processes that share the simulations; as many as there are cores for, or
                GPUs, if not given. What is learned does not depend on it.
            track: where the curves go: none, tensorboard, wandb or trackio.
            export: at the end, write the bundle that adaptd serves into the run folder.
        """
        _check_family(config, family)
        check_tracker(track)
        _as_ranks(config, ranks, ["train", *arguments])
        folder = run or Path("runs") / _run_name(method, preset, config)
        _train_to_the_end(trained, config, folder, resume, source, arguments, track, export)

    check_settings(arguments[2:], trained.config, run_training, ("run-folder", "from"))
    tyro.cli(
        tyro.conf.configure(tyro.conf.OmitArgPrefixes)(run_training),
        args=arguments[2:],
        prog=f"metatrain train {method} {family}",
    )


def bench_command(arguments: list[str]) -> None:
    """`metatrain bench`."""
    method, family, trained = _named(arguments, "bench")
    chosen = given(arguments, "preset", "fast")
    settings = trained.preset(family, chosen)

    def run_bench(
        config: Annotated[trained.config, tyro.conf.arg(name="")] = settings,  # type: ignore[name-defined]
        preset: str = chosen,
        iterations: PositiveInt = 8,
        ranks: PositiveInt | None = None,
    ) -> None:
        """Environment steps per second of training, and what the time goes to.

        Args:
            config: settings of the method.
            preset: as in `metatrain train`.
            iterations: measured.
            ranks: as in `metatrain train`.
        """
        _check_family(config, family)
        _as_ranks(config, ranks, ["bench", *arguments])
        trainer = trained.trainer(config, Ranks.join(config.device))
        trained.bench(trainer, iterations, Console())
        trainer.ranks.leave()

    check_settings(arguments[2:], trained.config, run_bench)
    tyro.cli(
        tyro.conf.configure(tyro.conf.OmitArgPrefixes)(run_bench),
        args=arguments[2:],
        prog=f"metatrain bench {method} {family}",
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


def _check_family(config: RunConfig, family: str) -> None:
    if config.family != family:
        raise InvalidConfig(f"--family {config.family} contradicts the family {family}")


def _as_ranks(config: RunConfig, ranks: int | None, arguments: list[str]) -> None:
    """Run the command as several ranks, unless this is one or the only one.

    Raises:
        Launched: it was, and this process has nothing more to do.
    """
    if under_torchrun():
        return
    count = usual_ranks(config) if ranks is None else ranks
    if count > 1:
        check_parts(config, count)
        raise Launched(launch(count, arguments))


def _run_name(method: str, preset: str, config: RunConfig) -> str:
    cell = f"-{config.network.cell}" if isinstance(config, RL2Config) else ""
    kind = "" if preset == "fast" else f"-{preset}"
    return f"{method}-{config.family.replace(':', '.')}{cell}{kind}-s{config.seed}"


def _train_to_the_end(
    trained: methods.Method,
    config: RunConfig,
    folder: Path,
    resume: bool,
    source: Path | None,
    arguments: list[str],
    track: str,
    export: bool,
) -> None:
    from training.finish import finish
    from training.train import Run, train

    trainer = trained.trainer(config, Ranks.join(config.device))
    console = Console(quiet=not trainer.ranks.main)
    train(trainer, folder, console, resume, arguments, track, source)
    trainer.ranks.leave()
    if not (trainer.finished and trainer.ranks.main):
        return
    evaluation = evaluate_trainer(trainer)
    print_evaluation(console, evaluation)
    finish(Run(folder), trainer, evaluation, export, console)
    console.print(f"Run folder: {folder}", soft_wrap=True, markup=False, highlight=False)
