"""Putting a file in another's place, at once and for good."""

import os
from pathlib import Path


def put_in_place(partial: Path, path: Path) -> None:
    """Let a file that is on the disk take the place of another, so that a power cut finds it there.

    Raises:
        OSError: it cannot, or the disk does not say that it has.
    """
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # until then the old file may come back
    finally:
        os.close(folder)
