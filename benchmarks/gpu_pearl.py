"""Whether PEARL's gradient steps played back as a CUDA graph are those that are made, and faster.

    python -m benchmarks.gpu_pearl [FAMILY] [--steps 200] [--repeats 5]

`--device cpu` tries the command itself: there nothing is recorded.
"""

import time

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor

from runtime.benchmark.spread import spread
from training.pearl import PEARLTrainer
from training.pearl_presets import pearl_preset
from training.ranks import Ranks

SAME = 1e-3
"""Parameters may differ by this after `COMPARED` steps: a GPU adds up in any order."""
COMPARED = 20


def main(
    family: tyro.conf.Positional[str] = "halfcheetah-vel",
    steps: int = 200,
    repeats: int = 5,
    device: str = "cuda",
) -> None:
    """Print whether both agree, and the gradient steps per second of each.

    Args:
        family: which tasks.
        steps: of each measurement.
        repeats: of each measurement, in turn.
        device: where the learner runs.

    Raises:
        UnknownName: there is no such family.
    """
    console = Console()
    if device == "cuda" and not torch.cuda.is_available():
        console.print("no GPU here: nothing was measured")
        return
    recorded, made = (_trainer(family, device, plain) for plain in (False, True))
    apart = (_parameters(recorded) - _parameters(made)).abs().max().item()
    verdict = "agree" if apart < SAME else "DISAGREE"
    console.print(f"after {COMPARED} steps parameters {verdict}: they differ by up to {apart:.1e}")
    rates = np.array(
        [[_rate(trainer, steps) for trainer in (recorded, made)] for _ in range(repeats)]
    )
    console.print(f"gradient steps/s, played back: {spread(rates[:, 0])}")
    console.print(f"gradient steps/s, made one by one: {spread(rates[:, 1])}")


def _trainer(family: str, device: str, plain: bool) -> PEARLTrainer:
    """A trainer after its first `COMPARED` gradient steps."""
    settings = {"device": device, "gradient_steps": COMPARED}
    trainer = PEARLTrainer(pearl_preset(family).model_copy(update=settings), Ranks(device=device))
    if plain:
        trainer.gradient_step = trainer.make_gradient_step
    trainer.iterate()
    return trainer


def _parameters(trainer: PEARLTrainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.learner.learned()])


def _rate(trainer: PEARLTrainer, steps: int) -> float:
    started = time.perf_counter()
    sums = trainer.gradient_step()
    for _ in range(steps - 1):
        sums += trainer.gradient_step()
    sums.cpu()  # waits for the GPU
    return steps / (time.perf_counter() - started)


if __name__ == "__main__":
    tyro.cli(main)
