"""Somebody on the wire: passes bytes on, keeps a copy, and may hold back or add some."""

import socket
import threading
from contextlib import suppress


class Tapper:
    """Between one client and one port of a daemon; a context manager."""

    def __init__(self, port: int):
        """
        Args:
            port: of the daemon, on the loopback address.
        """
        self.kept = b""
        """What the client has sent so far, on its last connection."""
        self.pass_at_most = float("inf")
        """Bytes of the client that go through; the others are held back."""
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._listener]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, self.far]
                self.kept = b""
                for task in ((self._up, near, self.far), (self._down, self.far, near)):
                    threading.Thread(target=task[0], args=task[1:], daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := near.recv(1 << 16):
                if passed < self.pass_at_most:
                    far.sendall(data)
                    passed += len(data)
                    self.kept = (self.kept + data)[-(1 << 20) :]

    def _down(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(1 << 16):
                near.sendall(data)

    def add(self, data: bytes) -> None:
        """Send bytes to the daemon on the client's last connection."""
        self.far.sendall(data)

    def __enter__(self) -> "Tapper":
        return self

    def __exit__(self, *_: object) -> None:
        for found in self._sockets:
            with suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)
            found.close()
