"""The daemon's sockets; the only file of the runtime, besides the client, that knows ZeroMQ.

A ROUTER for observations, an XPUB for the tap, and an inproc pair that wakes the loop
belong to the loop's thread; a ROUTER for control requests belongs to the control thread.
"""

import fcntl
import ipaddress
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zmq

from runtime.errors import InvalidConfig
from runtime.loop import TickResult
from runtime.messages import MAX_FRAME, Planes, planes

IPC_PATH_LIMIT = 107
MAX_REQUEST = 1 << 20
_WAKE = "inproc://wake"


class DataPlane:
    """Receives observations, sends answers, and publishes both on the tap."""

    def __init__(self, endpoint: str):
        """Bind.

        Raises:
            InvalidConfig: the endpoint cannot be bound.
        """
        self.context = context = zmq.Context()
        addresses = check_endpoint(endpoint)
        self._socket = _bind(context, zmq.ROUTER, addresses.data, MAX_FRAME)
        self._tap = _bind(context, zmq.XPUB, addresses.tap, 64)
        self._wake = context.socket(zmq.PULL)
        self._wake.bind(_WAKE)
        self._poller = zmq.Poller()
        for socket in (self._socket, self._tap, self._wake):
            self._poller.register(socket, zmq.POLLIN)
        self._subscribed: set[bytes] = set()
        self.dropped = 0
        """Messages of more than one frame, and answers that nobody was there to take."""

    def serve(
        self, tick: Callable[[bytes, int], TickResult], clock: Callable[[], int], timeout_ms: int
    ) -> None:
        """Wait for messages and answer all that have come."""
        ready = dict(self._poller.poll(timeout_ms))
        if self._wake in ready:
            self._drain_wake()
        if self._tap in ready:
            self._count_subscribers()
        if self._socket in ready:
            self._answer_waiting(tick, clock)

    def _answer_waiting(
        self, tick: Callable[[bytes, int], TickResult], clock: Callable[[], int]
    ) -> None:
        for _ in range(256):  # then look at the other sockets again
            if not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
            if len(frames) != 2:
                self.dropped += 1
                continue
            sender, frame = frames
            answer = tick(frame, clock())
            try:
                self._socket.send_multipart((sender, answer.reply), zmq.NOBLOCK)
            except zmq.ZMQError:  # the peer is gone, or does not read
                self.dropped += 1
            if self._subscribed and answer.belief is not None:
                self._publish(frame, answer)

    def _publish(self, frame: bytes, answer: TickResult) -> None:
        assert answer.belief is not None
        parts = [np.ravel(value).astype(np.float32) for value in answer.belief.values()]
        belief = np.concatenate(parts).tobytes() if parts else b""
        topic = answer.session.to_bytes(8, "little")
        self._tap.send_multipart((topic, frame, answer.reply, belief), zmq.NOBLOCK)

    def _count_subscribers(self) -> None:
        while True:
            try:
                event = self._tap.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if event[:1] == b"\x01":
                self._subscribed.add(event[1:])
            elif event[:1] == b"\x00":
                self._subscribed.discard(event[1:])

    def _drain_wake(self) -> None:
        while True:
            try:
                self._wake.recv(zmq.NOBLOCK)
            except zmq.Again:
                return

    def close(self) -> None:
        """Send what is queued, for 200 ms at most, and let go."""
        for socket in (self._socket, self._tap, self._wake):
            socket.close(linger=200)


def take_endpoint(endpoint: str) -> int | None:
    """A lock that says this endpoint is served, so that a second daemon cannot take it over.

    The folder of its sockets is made for this user alone if it is not there.

    Returns:
        The lock's file descriptor; None for tcp, where binding twice fails anyway.

    Raises:
        InvalidConfig: it is served already, or its folder is another user's.
    """
    check_endpoint(endpoint)
    if not endpoint.startswith("ipc://"):
        return None
    path = Path(endpoint.removeprefix("ipc://") + "-lock")
    try:
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        owner = path.parent.stat().st_uid
        if owner not in (0, os.getuid()):
            raise InvalidConfig(f"{path.parent} belongs to another user (uid {owner})")
        lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidConfig(f"another adaptd serves {endpoint} already") from None
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be written: {error.strerror}") from None
    return lock


class ControlPlane:
    """Receives control requests and sends their replies; belongs to the control thread."""

    def __init__(self, data: DataPlane, endpoint: str):
        """Bind.

        Args:
            data: the plane of the loop that this one wakes.
            endpoint: as given to `data`.

        Raises:
            InvalidConfig: the endpoint cannot be bound.
        """
        context = data.context
        self._socket = _bind(context, zmq.ROUTER, check_endpoint(endpoint).control, MAX_REQUEST)
        self._wake = context.socket(zmq.PUSH)
        self._wake.connect(_WAKE)
        self.dropped = 0

    def wake_loop(self) -> None:
        """Make `DataPlane.serve` return soon."""
        self._wake.send(b"", zmq.NOBLOCK)

    def serve(self, answer: Callable[[bytes], bytes], timeout_ms: int) -> None:
        """Wait for one request and answer it. Any frames before the last are echoed."""
        if not self._socket.poll(timeout_ms):
            return
        *envelope, request = self._socket.recv_multipart()
        if not 1 <= len(envelope) <= 3:
            self.dropped += 1
            return
        try:
            self._socket.send_multipart((*envelope, answer(request)), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.dropped += 1

    def close(self) -> None:
        """Send what is queued, for 200 ms at most, and let go."""
        self._socket.close(linger=200)
        self._wake.close(linger=0)


def check_endpoint(endpoint: str) -> Planes:
    """The addresses of an endpoint that may be bound.

    Raises:
        InvalidConfig: it is malformed, its path too long, or not on this machine alone.
    """
    addresses = planes(endpoint)
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc":
        longest = max(len(a.removeprefix("ipc://")) for a in addresses)
        if longest > IPC_PATH_LIMIT:
            raise InvalidConfig(
                f"the socket path of {endpoint} takes {longest} bytes, at most {IPC_PATH_LIMIT} fit"
            )
    elif not _is_loopback(rest.rpartition(":")[0]):
        raise InvalidConfig(
            f"{endpoint} is open to other machines: adaptd binds tcp to loopback addresses only, "
            f"for example tcp://127.0.0.1:5700"
        )
    return addresses


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bind(context: zmq.Context, kind: int, address: str, max_frame: int) -> zmq.Socket:
    socket = context.socket(kind)
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame)
    socket.setsockopt(zmq.LINGER, 0)
    if address.startswith("tcp://["):
        socket.setsockopt(zmq.IPV6, 1)
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise InvalidConfig(f"{address} cannot be bound: {error.strerror or error}") from None
    return socket
