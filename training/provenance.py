"""Where a policy comes from: the command and the commit that trained it, the versions used."""

import json
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training.files import write_whole

ORIGIN = "origin.json"
_FOLDER = {"--run", "--run-folder", "--from"}
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "mujoco", "gymnasium", "numpy")


def record_origin(
    run: Path,
    arguments: Sequence[str],
    resume: bool = False,
    forked: dict[str, Any] | None = None,
) -> None:
    """Note in a run folder how its training was started; a resumed run keeps its first note.

    Args:
        run: the folder.
        arguments: of `metatrain train`.
        resume: whether it is.
        forked: the origin of the run that it goes on from, and its `env_steps`; None: it is new.
    """
    path = run / ORIGIN
    if not (resume and path.exists()):
        run.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["metatrain", "train", *arguments])
        noted = {"command": command, "commit": commit()} | versions()
        noted |= {"from": forked} if forked else {}
        write_whole(path, json.dumps(noted, indent=1))


def origin(run: Path) -> dict[str, Any]:
    """How the training of a run was started, without where its run was kept."""
    path = run / ORIGIN
    found = json.loads(path.read_text()) if path.exists() else {"command": "", "commit": "unknown"}
    return found | {"command": _without_folder(found["command"])}


def provenance(run: Path, wall_time_s: float) -> dict[str, Any]:
    """The `provenance` of a bundle exported from a run folder, without its settings."""
    return versions() | origin(run) | {"wall_time_s": round(wall_time_s, 1)}


def _without_folder(command: str) -> str:
    """A training command without where its run was kept, which is nobody else's folder."""
    words = shlex.split(command)
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not {before, word} & _FOLDER and word.partition("=")[0] not in _FOLDER
    ]
    return shlex.join(kept)


def versions() -> dict[str, Any]:
    """Of Python and of the libraries that decide what is learned and exported."""
    return {
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of the source tree, marked where tracked files were changed; or 'unknown'."""

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
