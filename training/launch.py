"""Several ranks on this host: the same command again, under torchrun."""

import os
import subprocess
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist

from training.config import TrialConfig

RESTARTS = 3
"""How often a lost rank makes all of them start again, from the last checkpoint."""


def usual_ranks(config: TrialConfig) -> int:
    """As many as the shards can be divided over: a rank per core and its threads, or per GPU."""
    if config.device == "cuda":
        most = torch.cuda.device_count()
    else:
        most = len(os.sched_getaffinity(0)) // config.threads
    return max(n for n in range(1, config.shards + 1) if not config.shards % n and n <= max(1, most))


def under_torchrun() -> bool:
    """Whether this process is a rank already."""
    return dist.is_available() and dist.is_torchelastic_launched()


def launch(ranks: int, arguments: Sequence[str]) -> int:
    """Run `metatrain ARGUMENTS` as several ranks on this host; the exit status.

    Signals reach the ranks through torchrun, which waits for them to save.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(ranks), "--max-restarts", str(RESTARTS)]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    process = subprocess.Popen([*command, "-m", "training.cli", *arguments], env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal told the ranks as well: let them save
            continue
