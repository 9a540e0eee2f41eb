"""Several ranks on this host: the same command again, as torchrun would start it."""

import ctypes
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from training.config import RunConfig
from training.ranks import under_torchrun

RESTARTS = 3
"""How often a lost rank makes all of them start again, from the last checkpoint."""

STATUS_FILE = "METATRAIN_STATUS_FILE"
"""Environment variable: where a rank leaves the exit status of a run that shall not start again."""


def usual_ranks(config: RunConfig) -> int:
    """As many as the shards can be divided over: a rank per core and its threads, or per GPU."""
    if config.device == "cuda":
        most = torch.cuda.device_count()
    else:
        most = len(os.sched_getaffinity(0)) // config.threads
    return max(n for n in range(1, config.parts + 1) if not config.parts % n and n <= max(1, most))


class Launched(Exception):
    """The command was run as several ranks, and ended with this exit status."""

    def __init__(self, status: int):
        super().__init__(f"the ranks ended with status {status}")
        self.status = status


def launch(ranks: int, arguments: Sequence[str]) -> int:
    """Run `metatrain ARGUMENTS` as several ranks on this host; the exit status.

    A signal is passed on to the ranks, which save and end.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)  # signals are no news
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=RESTARTS,
    )
    with tempfile.TemporaryDirectory() as folder:
        status = Path(folder) / "status"
        os.environ[STATUS_FILE] = str(status)
        try:
            elastic_launch(config, sys.executable)("-m", "training.cli", *arguments)
        except SignalException:
            return 0
        except ChildFailedError as error:
            if status.exists():
                return int(status.read_text())
            print(f"metatrain: {lost_ranks(error)}", file=sys.stderr)
            return 1
        return int(status.read_text()) if status.exists() else 0


def lost_ranks(error: ChildFailedError) -> str:
    """One sentence about ranks that ended without a word, too often."""
    rank, failure = error.get_first_failure()
    return (
        f"rank {rank} was lost (exit status {failure.exitcode}) after {RESTARTS} restarts; the "
        f"run's checkpoints are kept: go on with --resume"
    )


def exit_status(status: int) -> int:
    """What a rank should exit with: 0 if it ends as it should, be it with an error.

    torchrun starts ranks again that exit with anything else, which mends a lost rank, and
    would only repeat an error that has been reported.
    """
    path = os.environ.get(STATUS_FILE)
    if path is None or status == 1:
        return status
    if status:
        Path(path).write_text(str(status))
    return 0


def reported() -> bool:
    """Whether a rank of this run has ended with an error that it told the user."""
    path = os.environ.get(STATUS_FILE)
    return path is not None and Path(path).exists()


def end_process(status: int) -> NoReturn:
    """Exit; a rank at once, since gloo's threads may abort a Python that tears itself down."""
    if not under_torchrun():
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the one that started it dies."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
