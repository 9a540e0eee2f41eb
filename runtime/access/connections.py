"""The tcp connections of a daemon, by their file descriptor, and how to end one.

libzmq tells when it has accepted one and when it is over, and each message says by which
descriptor it came. ZeroMQ itself ends a connection for nothing that its user decides; but
a shut-down of the descriptor does, and of that connection alone.
"""

import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_UNFINISHED = 32 << 20
"""Bytes that may come by a connection before a whole message has: frames of a message that
never ends would fill the memory, and libzmq limits only the size of each."""
KEEPALIVE_BYTES_PER_S = 1024
"""What may come besides: answers to heartbeats."""
_RECEIVED = struct.Struct("<128xQ")  # tcpi_bytes_received in Linux's `struct tcp_info`


@dataclass(eq=False)
class Connection:
    """One of them."""

    fd: int
    plane: str
    peer: Any
    """Address of the other end, by which a descriptor that was given away again is told."""
    since_ns: int
    user: str = ""
    """Public key of the client; empty until its first message."""
    messages: int = 0
    """Whole ones, so far."""
    topics: set[bytes] = field(default_factory=set)
    """That it may see, of the tap."""
    counted: tuple[int, int] = (0, 0)
    """Messages and bytes when a message had last come."""


class Connections:
    """All that are open. The door's thread adds and removes, the others look them up."""

    def __init__(self, most: int, clock: Callable[[], int]):
        """
        Args:
            most: at once; those beyond are ended.
            clock: monotonic [ns].
        """
        self._most, self._clock = most, clock
        self._by_fd: dict[int, Connection] = {}
        self._lock = threading.Lock()
        self.watchers: set[int] = set()
        """Descriptors of those that see anything of the tap."""
        self.ended: Counter[str] = Counter()
        """How many were ended by us, by reason."""

    def __len__(self) -> int:
        return len(self._by_fd)

    def accepted(self, plane: str, fd: int) -> None:
        """One has been; if it is over already, another may have been given its descriptor."""
        connection = Connection(fd, plane, _peer(fd), self._clock())
        with self._lock:
            known = self._by_fd.get(fd)
            # Planes tell one after the other: of two that are told of at once, the other end
            # says which of them there is.
            if known and known.plane != plane and known.peer == connection.peer is not None:
                return
            self._by_fd[fd] = connection
            self.watchers.discard(fd)
        if len(self._by_fd) > self._most:
            self.end(connection, "too_many")

    def closed(self, plane: str, fd: int) -> None:
        """One is over. Another plane may have been given its descriptor already."""
        with self._lock:
            if fd in self._by_fd and self._by_fd[fd].plane == plane:
                del self._by_fd[fd]
                self.watchers.discard(fd)

    def of_message(self, fd: int, user: str) -> Connection | None:
        """By which a whole message has come; None if it is over already."""
        connection = self._by_fd.get(fd)
        if connection is not None:
            connection.user = user
            connection.messages += 1
        return connection

    def watch(self, connection: Connection, topic: bytes, on: bool) -> None:
        """Note a subscription that was granted, or one that is over."""
        with self._lock:
            (connection.topics.add if on else connection.topics.discard)(topic)
            open_still = self._by_fd.get(connection.fd) is connection
            if connection.topics and open_still:
                self.watchers.add(connection.fd)
            else:
                self.watchers.discard(connection.fd)

    def end_where(self, unwanted: Callable[[Connection], bool], reason: str) -> int:
        """End all that a predicate holds for; how many there were."""
        found = [connection for connection in list(self._by_fd.values()) if unwanted(connection)]
        return sum(self.end(connection, reason) for connection in found)

    def end(self, connection: Connection, reason: str) -> bool:
        """End one; whether it was there to be ended."""
        try:
            with socket.socket(fileno=os.dup(connection.fd)) as found:
                # The copy cannot be given away: what is looked at is what is shut down.
                if found.getpeername() != connection.peer:
                    return False
                found.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
        self.ended[reason] += 1
        return True

    def end_endless(self) -> int:
        """End those by which much has come and no whole message; how many there were."""
        now_ns, found = self._clock(), 0
        for connection in list(self._by_fd.values()):
            received = _received(connection.fd)
            messages, before = connection.counted
            if connection.messages != messages:
                connection.counted = connection.messages, received
                connection.since_ns = now_ns
                continue
            waited_s = 1e-9 * (now_ns - connection.since_ns)
            if received - before > MOST_UNFINISHED + KEEPALIVE_BYTES_PER_S * waited_s:
                found += self.end(connection, "endless_message")
        return found


def _peer(fd: int) -> Any:
    """The other end's address; None if it is gone."""
    return _ask(fd, lambda found: found.getpeername())


def _received(fd: int) -> int:
    """Bytes that have come by a connection; 0 where it is over or the kernel is too old."""

    def look(found: socket.socket) -> int:
        facts = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
        return _RECEIVED.unpack(facts)[0] if len(facts) == _RECEIVED.size else 0

    return _ask(fd, look) or 0


def _ask(fd: int, question: Callable[[socket.socket], Any]) -> Any:
    """Ask a descriptor that is libzmq's, and must stay open; None if it is no socket any more."""
    try:
        found = socket.socket(fileno=fd)  # of the family that it has
    except OSError:
        return None
    try:
        return question(found)
    except OSError:
        return None
    finally:
        found.detach()
