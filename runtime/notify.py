"""Tells a service manager how the daemon is: the protocol of sd_notify(3), in datagrams.

systemd names its socket in `NOTIFY_SOCKET`. Where nobody did, nothing is sent and nothing
is paid.
"""

import os
import socket
import time
from collections.abc import MutableMapping

import structlog

log = structlog.get_logger()

PATIENCE_S = 1.0
"""How long a message that must arrive waits for room in the manager's queue."""
_RETRY_S = 0.01


class Notifier:
    """The daemon's line to its service manager; any thread may use it."""

    def __init__(self, environment: MutableMapping[str, str] | None = None):
        """Find out who wants to be told.

        The variables are taken out, so that a child does not speak in the daemon's name.

        Args:
            environment: of the process if not given.
        """
        environment = os.environ if environment is None else environment
        self._address = environment.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # Linux's abstract names begin with a zero byte
            self._address = "\0" + self._address[1:]
        self.watchdog_s = _watchdog_s(
            environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        )
        """Longest time between two signs of life; None where nobody watches."""
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self._said = ""

    def __bool__(self) -> bool:
        """Whether anybody wants to be told."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """It serves: after the start, or with what was reloaded."""
        self._said = status
        self._send(f"READY=1\nSTATUS={_line(status)}", PATIENCE_S)

    def status(self, sentence: str) -> None:
        """Say how it is, if that is news. Never waits: the loop tells this."""
        if sentence != self._said and self._send(f"STATUS={_line(sentence)}"):
            self._said = sentence

    def alive(self) -> None:
        """A sign of life. Never waits: another one follows before it is missed."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is being read again, until the next `ready`."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", PATIENCE_S)

    def stopping(self) -> None:
        """It stops in order."""
        self._send("STOPPING=1\nSTATUS=answering what has come, then stopping", PATIENCE_S)

    def extend(self, seconds: float) -> None:
        """What is under way may take so much longer, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(1e6 * seconds)}", PATIENCE_S)

    def close(self) -> None:
        """Say nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str, patience_s: float = 0.0) -> bool:
        """Whether the manager has it; one that cannot be reached is no reason to stop."""
        if self._socket is None:
            return False
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._socket.sendto(message.encode(), self._address)
                return True
            except BlockingIOError:  # its queue is full
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_RETRY_S)
            except OSError as error:
                log.warning("notify_failure", reason=error.strerror or str(error))
                return False


def _line(sentence: str) -> str:
    """One line: another would be taken for a field."""
    return " ".join(sentence.split())


def _watchdog_s(interval_us: str, pid: str) -> float | None:
    """The watchdog's interval [s], if there is one and it is this process's."""
    if not interval_us.isdigit() or int(interval_us) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(interval_us) / 1e6
