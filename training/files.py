"""Files that are there whole, or not at all, whatever happens while they are written."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file in one go: a kill at any moment leaves the old one or the new one.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        partial.write_text(text)
        sync(partial)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or what a folder lists."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
