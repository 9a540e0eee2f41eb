"""The process in which a bundle is tried: nothing of it reaches the daemon but a verdict.

Started by `vet`. Standard input is one JSON line (`Task`), then the manifest, then the
files in the order of the line; standard output gets the verdict as one JSON object:
``{"peak_bytes": ...}``, or ``{"kind": ..., "reason": ...}`` if the bundle is refused.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from dataclasses import dataclass
from typing import BinaryIO

from runtime.errors import InvalidBundle
from runtime.policy import Policy
from runtime.spec import ADAPT, GOLDEN, POLICY, parse_manifest

NICENESS = 5
"""The control loop goes first."""
MOST_ANSWER_BYTES = 64 << 10
_PR_SET_PDEATHSIG = 1
_OUT_OF_MEMORY = ("bfc_arena", "bad_alloc", "Failed to allocate memory")
"""How ONNX Runtime says that it got none."""


@dataclass(frozen=True)
class Task:
    """What is to be tried, and how much it may take."""

    label: str
    manifest_bytes: int
    sizes: dict[str, int]
    """Of the files, in bytes."""
    cpu_s: int
    memory_bytes: int
    """Of address space, beyond what the process has before it looks at the bundle."""


def main() -> None:
    """Try the bundle on standard input, and tell."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    source = sys.stdin.buffer
    task = Task(**json.loads(source.readline()))
    _limit(task)
    try:
        _try(task, source)
    except InvalidBundle as error:
        kind = "memory" if any(mark in str(error) for mark in _OUT_OF_MEMORY) else error.kind
        verdict = {"kind": kind, "reason": str(error)}
    except MemoryError:
        verdict = {"kind": "memory", "reason": ""}
    else:
        verdict = {"peak_bytes": _peak_bytes()}
    sys.stdout.write(json.dumps(verdict))
    sys.stdout.flush()
    os._exit(0)  # ONNX Runtime need not tidy up


def _peak_bytes() -> int:
    """The most memory that this program had; `getrusage` would count its parent's, too."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _limit(task: Task) -> None:
    """Take away what trying a bundle does not need. What runs into a limit is killed, or fails."""
    os.nice(NICENESS)
    with open("/proc/self/statm") as file:
        now_bytes = int(file.read().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: now_bytes + task.memory_bytes,
        resource.RLIMIT_FSIZE: MOST_ANSWER_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 16,
    }
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))
    # SIGXCPU, which says what it was, before SIGKILL.
    resource.setrlimit(resource.RLIMIT_CPU, (task.cpu_s, task.cpu_s + 1))


def _try(task: Task, source: BinaryIO) -> None:
    manifest = parse_manifest(source.read(task.manifest_bytes), task.label)
    files = {name: source.read(size) for name, size in task.sizes.items()}
    Policy.verified(manifest, files[POLICY], files[GOLDEN], files.get(ADAPT))


if __name__ == "__main__":
    main()
