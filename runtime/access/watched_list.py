"""Follows the allow-list's file, so that what is written there counts at once."""

import os
from pathlib import Path

from runtime.access.allowlist import read_allowlist

_Stamp = tuple[int, int, int, int] | None


class WatchedList:
    """The allow-list of a file that may change."""

    def __init__(self, path: Path):
        """Read it.

        Raises:
            InvalidConfig: it cannot be read, or is no allow-list.
        """
        self.path = path
        self._seen = self._settling = self._stamp()
        self.clients = read_allowlist(path)

    def look(self) -> bool:
        """Read it again if it has changed; whether it has.

        A file that took the place of another is read at once: it was whole before that. One
        that is written in place may be half written, and is read when it has been the same
        for two looks.

        Raises:
            InvalidConfig: it has changed into something that is no allow-list, or is gone;
                told once, and `clients` stays as it was.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        in_place = stamp is not None and self._seen is not None and stamp[0] == self._seen[0]
        if in_place and stamp != self._settling:
            self._settling = stamp
            return False
        self._seen = self._settling = stamp
        self.clients = read_allowlist(self.path)
        return True

    def _stamp(self) -> _Stamp:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
