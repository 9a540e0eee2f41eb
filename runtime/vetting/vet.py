"""A bundle is tried in a process of its own, with limits, before this one touches its files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from runtime.errors import InvalidBundle, UnsafeBundle
from runtime.spec import ADAPT, GOLDEN, POLICY
from runtime.vetting.child import MOST_ANSWER_BYTES, Task

PATIENCE = 4
_ROOT = Path(__file__).parents[2]
_KEPT = ("PYTHON", "LD_", "LANG")
"""What the process gets of this one's environment: what Python needs to find its modules."""


@dataclass(frozen=True)
class Limits:
    """What trying one bundle may take."""

    cpu_s: int = 30
    """Of a processor. A machine may be busy, so the clock is let go on for `PATIENCE` as long."""
    memory_bytes: int = 1 << 30


class Trial(NamedTuple):
    """What it took."""

    seconds: float
    peak_bytes: int


def vet(label: str, manifest: bytes, files: Mapping[str, bytes], limits: Limits) -> Trial:
    """Load a bundle's graphs and replay its golden trace, in another process.

    Args:
        label: of the policy, for the errors.
        manifest: the content of the manifest.
        files: the content of the files.
        limits: of the process.

    Raises:
        UnsafeBundle: it ran out of time or memory, killed the process, or holds what it may not.
        InvalidBundle: as `Policy.verified`; or no process could be started.
    """
    began = time.monotonic()
    content = {name: files[name] for name in (POLICY, GOLDEN, ADAPT) if name in files}
    sizes = {name: len(each) for name, each in content.items()}
    task = Task(label, len(manifest), sizes, limits.cpu_s, limits.memory_bytes)
    line = json.dumps(asdict(task)).encode() + b"\n"
    parts, seconds = [line, manifest, *content.values()], PATIENCE * limits.cpu_s
    try:
        status, said, complaint = _run(parts, seconds)
    except OSError as error:
        raise InvalidBundle(f"{label} cannot be tried: {error}") from None
    except subprocess.TimeoutExpired:
        raise UnsafeBundle(_too_much(label, f"{seconds} s")) from None
    verdict = _read(said)
    if status == 0 and "peak_bytes" in verdict:
        return Trial(time.monotonic() - began, int(verdict["peak_bytes"]))
    raise _refusal(label, limits, status, verdict, complaint)


def _run(parts: list[bytes], seconds: int) -> tuple[int, bytes, bytes]:
    """The child's exit status, standard output and standard error, no more than is looked at."""
    with ExitStack() as stack:
        task, answer, complaint = (stack.enter_context(_in_memory(n)) for n in _NAMES)
        for part in parts:
            task.write(part)
        task.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "runtime.vetting.child"],
            stdin=task, stdout=answer, stderr=complaint, env=_environment(), cwd="/",
        )  # fmt: skip
        try:
            status = child.wait(seconds)
        except BaseException:
            child.kill()
            child.wait()
            raise
        answer.seek(0)
        complaint.seek(0)
        return status, answer.read(MOST_ANSWER_BYTES), complaint.read(MOST_ANSWER_BYTES)


_NAMES = ("adaptd-task", "adaptd-answer", "adaptd-complaint")


def _in_memory(name: str) -> IO[bytes]:
    """A file that is on no disk, so that nobody else can change it."""
    return open(os.memfd_create(name), "w+b", buffering=0)


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k.startswith(_KEPT)}
    path = filter(None, (str(_ROOT), kept.get("PYTHONPATH")))
    return kept | {"PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1"}


def _read(said: bytes) -> dict[str, Any]:
    """The child's verdict; empty if it gave none."""
    try:
        verdict = json.loads(said)
    except ValueError:
        return {}
    return verdict if isinstance(verdict, dict) else {}


def _refusal(
    label: str, limits: Limits, status: int, verdict: dict[str, Any], complaint: bytes
) -> InvalidBundle:
    """Why there is no sound verdict, as the error to raise."""
    mebibytes = f"{limits.memory_bytes >> 20} MiB"
    match verdict.get("kind"):
        case "invalid":
            return InvalidBundle(str(verdict.get("reason")))
        case "unsafe":
            return UnsafeBundle(str(verdict.get("reason")))
        case "memory":
            return UnsafeBundle(_too_much(label, mebibytes))
    if status == -signal.SIGXCPU:
        return UnsafeBundle(_too_much(label, f"{limits.cpu_s} s of processor time"))
    if status < 0:
        name = signal.Signals(-status).name
        return UnsafeBundle(f"{label}: trying it ended in {name}, with {mebibytes} to use")
    last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["nothing was said"]
    return InvalidBundle(f"{label} cannot be tried: {last[0][:200]}")


def _too_much(label: str, limit: str) -> str:
    return (
        f"{label}: trying it took more than {limit}: it is not served; "
        f"[bundles] in the configuration sets the limits"
    )
