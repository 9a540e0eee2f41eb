"""Where a recording goes: files by size and time, and no more disk than allowed."""

import shutil
import time
from pathlib import Path

from runtime.errors import InvalidConfig

MIB, GIB = 1 << 20, 1 << 30
SUFFIX = ".mcap"


class RecordingFiles:
    """Names the files of one recording, and deletes the oldest where there are too many.

    A folder may hold several recordings; all of their files count and may be deleted.
    """

    def __init__(self, folder: Path, file_bytes: int, file_s: float, keep_bytes: int, spare: int):
        """
        Args:
            folder: made if need be.
            file_bytes, file_s: a file that is as large or as old is followed by the next.
            keep_bytes: most bytes of all files together.
            spare: bytes of the disk that are left free.

        Raises:
            InvalidConfig: the folder cannot be made.
        """
        self.folder = folder
        self._file_bytes, self._file_s = file_bytes, file_s
        self._keep_bytes, self._spare = keep_bytes, spare
        self._stem = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._count = 0
        self._began_s = 0.0
        self.current: Path | None = None
        self.deleted = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfig(f"{folder} cannot hold recordings: {error.strerror}") from None

    def next(self) -> Path:
        """The path of the next file, which does not exist yet."""
        while True:
            path = self.folder / f"{self._stem}-{self._count:04d}{SUFFIX}"
            self._count += 1
            if not path.exists():
                break
        self.current, self._began_s = path, time.monotonic()
        return path

    def is_full(self) -> bool:
        """Whether the current file is to be followed by the next: too large, too old, or gone."""
        assert self.current is not None
        if not self.current.exists():
            return True
        aged = time.monotonic() - self._began_s >= self._file_s
        return aged or _size(self.current) >= self._file_bytes

    def make_room(self) -> bool:
        """Delete the oldest files where all are too many; whether there is room to go on."""
        files = sorted(self.folder.glob(f"*{SUFFIX}"))
        sizes = {path: _size(path) for path in files}
        total = sum(sizes.values())
        for path in files:
            if total <= self._keep_bytes and self._has_spare():
                return True
            if path == self.current:
                continue
            path.unlink(missing_ok=True)
            self.deleted += 1
            total -= sizes[path]
        return total <= self._keep_bytes and self._has_spare()

    def _has_spare(self) -> bool:
        try:
            return shutil.disk_usage(self.folder).free >= self._spare
        except OSError:  # the folder is gone, or its disk
            return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
