"""A service manager's end of sd_notify: a real datagram socket, and a daemon that knows of it."""

import socket
import time
from contextlib import suppress
from pathlib import Path

DEADLINE_S = 10.0


class ServiceManager:
    """Hears what daemons say that are started while it is there; a fixture makes it."""

    def __init__(self, folder: Path):
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)

    def next(self, timeout_s: float = DEADLINE_S) -> dict[str, str]:
        """The fields of the next message."""
        self._socket.settimeout(max(timeout_s, 1e-3))
        lines = self._socket.recv(65536).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def until(self, field: str, value: str | None = None) -> dict[str, str]:
        """The first message from now on that has a field, and in it a text if one is given."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            found = self.next(deadline - time.monotonic())
            if field in found and (value is None or value in found[field]):
                return found

    def forget(self) -> None:
        """Let go of what has come so far."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(65536)
        except BlockingIOError:
            pass

    def fill(self) -> None:
        """Have no room for another message from now on."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(BlockingIOError):
            sender.setblocking(False)
            while True:
                sender.sendto(b"STATUS=", self.address)

    def silent(self, field: str, for_s: float) -> bool:
        """Whether no message with a field comes within a time."""
        deadline = time.monotonic() + for_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                if field in self.next(left):
                    return False
            except TimeoutError:
                break
        return True

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
