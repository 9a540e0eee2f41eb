"""What a GPU is worth to training, and whether it computes what the CPU computes.

    python -m benchmarks.gpu [FAMILY] [--trials 512] [--threads 16] [--repeats 5]

The same policy collects trials of the same tasks, start states and action noise on both. Bodies
are chaotic, so that the trials part after some steps: what is compared is the first step, to
rounding, and the return, to its statistical error. `--device cpu` tries the command itself.
"""

import copy
import os
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import sim
from runtime.benchmark.spread import spread
from runtime.errors import AdaptdError
from training.config import PPOConfig
from training.networks import TrialPolicy
from training.ppo import Chunks, losses, total_loss
from training.presets import rl2_preset
from training.rl2 import build_policy
from training.rollout import Shard, collect
from training.trials import Trials

SAME = 5e-3
"""Memory and actions of the first step may differ by this: GPUs round what they multiply to 11
bits (TF32), and add up in another order."""
STANDARD_ERRORS = 4.0
"""The mean return may differ by so many."""


def main(
    family: tyro.conf.Positional[str] = "halfcheetah-vel",
    trials: int = 512,
    threads: int = os.cpu_count() or 1,
    repeats: int = 5,
    device: str = "cuda",
) -> None:
    """Print whether CPU and GPU agree, and how fast each collects and learns.

    Args:
        family: which tasks.
        trials: collected in lock step, half of them in each of two shards.
        threads: of the simulator.
        repeats: of each measurement.
        device: compared with the CPU.

    Raises:
        UnknownName: there is no such family.
    """
    console = Console()
    sim.family(family)
    if device == "cuda" and not torch.cuda.is_available():
        console.print("no GPU here: nothing was measured")
        return
    torch.manual_seed(0)
    on_cpu = build_policy(rl2_preset(family))
    there = copy.deepcopy(on_cpu).to(device)

    def shards(count: int) -> list[Shard]:
        return [
            Shard(
                sim.make(family, trials // count, threads, seed=seed),
                torch.Generator().manual_seed(seed),
            )
            for seed in range(count)
        ]

    one, other = collect(shards(2), on_cpu, 50), collect(shards(2), there, 50)
    agree = _agreement(one, other, console)
    name = torch.cuda.get_device_name() if device == "cuda" else device
    title = f"{family}, {trials} trials, {threads} threads of the simulator, {name}"
    table = Table("what", "thousands of environment steps per second", title=title)
    for what, policy, count, overlap in (
        ("collecting, CPU", on_cpu, 1, False),
        (f"collecting, {device}", there, 1, False),
        (f"collecting, {device}, two shards in turn", there, 2, False),
        (f"collecting, {device}, two shards at once", there, 2, True),
    ):
        groups = shards(count)
        rates = _rates(lambda p=policy, g=groups, o=overlap: collect(g, p, 50, o), repeats)
        table.add_row(what, spread(rates, ".1f"))
    for what, policy, batch in (("CPU", on_cpu, one), (device, there, other)):
        rates = _rates(lambda p=policy, b=batch: _pass(p, b), repeats)
        table.add_row(f"one pass of learning, {what}", spread(rates, ".1f"))
    console.print(table)
    if not agree:
        sys.exit(1)


def _agreement(one: Trials, other: Trials, console: Console) -> bool:
    """Say how far the trials of CPU and GPU are apart, and whether that is too far."""
    pairs = ((one.features, other.features), (one.action, other.action))
    first = max(float((a[0] - b[0].cpu()).abs().max()) for a, b in pairs)
    returns = [(x.reward * x.mask).sum(0).cpu() for x in (one, other)]  # (B,) each
    apart = float(returns[1].mean() - returns[0].mean())
    error = float(sum(r.var() / len(r) for r in returns)) ** 0.5
    verdicts = [first <= SAME, abs(apart) <= STANDARD_ERRORS * max(error, 1e-6)]
    said = ["as they should be" if verdict else "TOO FAR APART" for verdict in verdicts]
    console.print(f"memory and actions of the first step differ by up to {first:.2g}: {said[0]}")
    console.print(f"mean return differs by {apart:.3g} +- {error:.2g} (1 s.e.): {said[1]}")
    return all(verdicts)


def _pass(policy: TrialPolicy, trials: Trials) -> Trials:
    """Losses and gradients of every minibatch once."""
    config, belief = PPOConfig(), None
    extra = {"advantage": trials.reward, "return": trials.reward, "value": trials.reward}
    chunks = Chunks(trials, extra, config.chunk)
    for batch in chunks.deal(config.minibatches, [torch.Generator().manual_seed(0)]):
        policy.zero_grad()
        total_loss(losses(policy, batch, config, belief), config, belief).backward()
    return trials


def _rates(work: Callable[[], Trials], repeats: int) -> np.ndarray:
    """Thousands of steps per second of each repeat, after one that fills caches."""
    rates = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        steps = _wait_for(work().mask.sum())
        rates.append(steps / (time.perf_counter() - started) / 1000)
    return np.array(rates[1:])


def _wait_for(steps: Tensor) -> float:
    """Its value, once all that was asked of the GPU is done."""
    if steps.is_cuda:
        torch.cuda.synchronize()
    return float(steps)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except AdaptdError as error:
        print(f"gpu: {error}", file=sys.stderr)
        sys.exit(2)
