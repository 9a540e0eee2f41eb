"""The daemon's sockets. Only this file, the clients and runtime/access know ZeroMQ.

A ROUTER and a PULL for observations and an XPUB for the tap belong to the loop's thread;
a ROUTER for control requests belongs to the control thread. Any thread may wake the loop.
"""

import os
import select
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from runtime.errors import InvalidConfig
from runtime.messages import MAX_FRAME, Planes
from runtime.pending import TickResult
from runtime.reception import REQUEST, STREAM
from runtime.stepper import MAX_BATCH

MAX_REQUEST, MAX_SUBSCRIPTION = 16 << 20, 64
MAX_QUEUED = 4096
"""Messages that wait per connection: one may carry a whole fleet."""
_SOCKETS = 4
MAX_ROUNDS = 16
"""Batches of one socket before the others are looked at."""
MAX_SUBSCRIBERS = 256
"""Who come to the tap or go, before robots are looked at again."""
Secure = Callable[[zmq.Socket, str], None]
"""Makes a socket that is not bound yet ask for keys; the second argument names its plane."""
TickAll = Callable[[Sequence[bytes], int, str], list[TickResult]]
_POLLIN, _MORE, _EVENTS = int(zmq.POLLIN), int(zmq.RCVMORE), int(zmq.EVENTS)
_SEND_MORE, _NOW = int(zmq.SNDMORE | zmq.NOBLOCK), int(zmq.NOBLOCK)
# The methods below `zmq.Socket`'s own: what those add takes half of the time of a call.
_recv, _send, _get = zmq.backend.Socket.recv, zmq.backend.Socket.send, zmq.backend.Socket.get


def new_context(patient_io: bool = False) -> zmq.Context:
    """The context of a daemon's sockets.

    Args:
        patient_io: ZeroMQ's own thread waits for its turn on a core instead of
            interrupting who is there: it then carries many messages at once.
    """
    context = zmq.Context()
    if patient_io:
        context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_BATCH)
    return context


def no_keys(socket: zmq.Socket, plane: str) -> None:
    """A socket that asks nobody who they are."""


class DataPlane:
    """Receives observations, sends answers, and publishes both on the tap.

    It waits on the sockets' file descriptors by epoll, edge-triggered, which measures
    faster than a `zmq.Poller` and as fast as a blocking receive on one socket. An edge
    tells of a change only, so a socket is read until it has nothing more.
    """

    def __init__(
        self,
        context: zmq.Context,
        addresses: Planes,
        spin_ns: int = 0,
        secure: Secure = no_keys,
    ):
        """Bind.

        Args:
            context: of `new_context`.
            addresses: where.
            spin_ns: how long to look for the next request before going to sleep, after one
                that came alone. To be woken costs more than a whole tick.
            secure: makes the sockets ask for keys.

        Raises:
            InvalidConfig: the endpoint cannot be bound.
        """
        self._spin_ns, self._awake_until_ns = spin_ns, 0
        self._socket = _bind(context, zmq.ROUTER, addresses, "data", MAX_FRAME, secure)
        self._stream = _bind(context, zmq.PULL, addresses, "stream", MAX_FRAME, secure)
        self._tap = _bind(context, zmq.XPUB, addresses, "tap", MAX_SUBSCRIPTION, secure)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        for socket in (self._socket, self._stream, self._tap):
            self._epoll.register(_fd(socket), select.EPOLLIN | select.EPOLLET)
        self._to_look = {_fd(self._stream), _fd(self._tap)}
        """Descriptors that told of a change since their socket was read."""
        self._socket_fd, self._stream_fd = _fd(self._socket), _fd(self._stream)
        self._tap_fd = _fd(self._tap)
        self._subscribed: set[Any] = set()
        """Topics; whether there is any is what counts."""
        self.dropped = 0
        """Messages of more than one frame, and answers that nobody was there to take."""

    @property
    def tapped(self) -> bool:
        """Whether anybody subscribes to the tap."""
        return bool(self._subscribed)

    @property
    def waiting(self) -> bool:
        """Whether an observation has come that was not looked at yet."""
        return self._readable(self._socket) or self._readable(self._stream)

    def look_everywhere(self) -> None:
        """Read every socket in the next `serve`, whatever its descriptor told.

        To send on a socket, or to ask whether it is readable, takes an edge away that the
        descriptor would have told of.
        """
        self._to_look |= {self._stream_fd, self._tap_fd}

    def wake(self) -> None:
        """Make `serve` return soon; any thread may call it."""
        os.eventfd_write(self._wake, 1)

    def serve(self, tick_all: TickAll, clock: Callable[[], int], timeout_s: float) -> None:
        """Answer what has come; if nothing has, wait for something first.

        Args:
            tick_all: answers frames that came together.
            clock: monotonic [ns].
            timeout_s: longest wait.
        """
        ready = self._readable(self._socket) or self._spin(clock)
        for fd, _ in self._epoll.poll(0 if ready or self._to_look else timeout_s, _SOCKETS):
            if fd == self._socket_fd:
                ready = True
            elif fd == self._wake:
                os.eventfd_read(self._wake)
            else:
                self._to_look.add(fd)
        if ready:
            self._answer_waiting(tick_all, clock)
        if not self._to_look:
            return
        if self._tap_fd in self._to_look:
            self._to_look.discard(self._tap_fd)
            self._count_subscribers()
        if self._stream_fd in self._to_look and not self._step_streamed(tick_all, clock):
            self._to_look.discard(self._stream_fd)

    def _spin(self, clock: Callable[[], int]) -> bool:
        """Look for a request for a while; whether there is one."""
        while clock() < self._awake_until_ns:
            os.sched_yield()  # where ZeroMQ's own thread shares this core, it has to run
            if self._readable(self._socket):
                return True
        return False

    @staticmethod
    def _readable(socket: zmq.Socket) -> bool:
        return bool(_get(socket, _EVENTS) & _POLLIN)  # type: ignore[operator]

    def _answer_waiting(self, tick_all: TickAll, clock: Callable[[], int]) -> None:
        """Answer requests until there are none, or for a while."""
        socket = self._socket
        for _ in range(MAX_ROUNDS):
            senders, frames = self._gather()
            if not frames:
                return
            results = tick_all(frames, clock(), REQUEST)
            for sender, frame, result in zip(senders, frames, results, strict=True):
                try:
                    _send(socket, sender, _SEND_MORE)
                    _send(socket, result.reply, _NOW)
                except zmq.ZMQError:  # the peer is gone, or does not read
                    self.dropped += 1
                if self._subscribed and result.seen:
                    self._publish(frame, result)
            if len(frames) == 1:
                self._awake_until_ns = clock() + self._spin_ns
                return

    def _gather(self) -> tuple[list[bytes], list[bytes]]:
        """Who asks what; as many as are waiting, up to a batch."""
        socket = self._socket
        senders: list[bytes] = []
        frames: list[bytes] = []
        try:
            while len(frames) < MAX_BATCH:
                sender, frame = _recv(socket, _NOW), _recv(socket, _NOW)
                if _get(socket, _MORE):
                    self._skip_rest(socket)
                    continue
                senders.append(sender)
                frames.append(frame)
                if len(frames) == 1 and not self._readable(socket):
                    break  # cheaper than running into an exception
        except zmq.Again:
            pass
        return senders, frames

    def _skip_rest(self, socket: zmq.Socket) -> None:
        self.dropped += 1
        while _get(socket, _MORE):
            _recv(socket, _NOW)

    def _step_streamed(self, tick_all: TickAll, clock: Callable[[], int]) -> bool:
        """Tick what came on the stream; whether there may be more."""
        socket = self._stream
        for _ in range(MAX_ROUNDS):
            frames: list[bytes] = []
            while len(frames) < MAX_BATCH and self._readable(socket):
                frame = _recv(socket, _NOW)
                if _get(socket, _MORE):
                    self._skip_rest(socket)
                else:
                    frames.append(frame)
            if not frames:
                return False
            results = tick_all(frames, clock(), STREAM)
            for frame, result in zip(frames, results, strict=True):
                if self._subscribed:  # errors too: nobody else hears of them
                    self._publish(frame, result)
        return True

    def _publish(self, frame: bytes, result: TickResult) -> None:
        topic = result.session.to_bytes(8, "little")
        self._tap.send_multipart((topic, frame, result.reply, result.belief), _NOW)

    def announce(self, events: Sequence[tuple[int, bytes]]) -> None:
        """Publish what happened to sessions, each as the session and JSON, if anybody looks."""
        for session, event in events if self._subscribed else ():
            self._tap.send_multipart((session.to_bytes(8, "little"), event), _NOW)

    def _count_subscribers(self) -> None:
        """Note who begins to look and who ends; not more at once than ticks may wait for."""
        for _ in range(MAX_SUBSCRIBERS):
            try:
                event = self._tap.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if event[:1] == b"\x01":
                self._subscribed.add(event[1:])
            elif event[:1] == b"\x00":
                self._subscribed.discard(event[1:])
        self._to_look.add(self._tap_fd)  # the rest after the next ticks

    def close(self) -> None:
        """Send what is queued, for 200 ms at most, and let go."""
        for socket in (self._socket, self._stream, self._tap):
            socket.close(linger=200)
        self._epoll.close()


def _fd(socket: zmq.Socket) -> int:
    return int(socket.getsockopt(zmq.FD))  # type: ignore[arg-type]


class ControlPlane:
    """Receives control requests and sends their replies; belongs to the control thread."""

    def __init__(self, context: zmq.Context, addresses: Planes, secure: Secure = no_keys):
        """Bind.

        Args:
            context: of the data plane.
            addresses: as given to it.
            secure: makes the socket ask for keys.

        Raises:
            InvalidConfig: the endpoint cannot be bound.
        """
        self._socket = _bind(context, zmq.ROUTER, addresses, "control", MAX_REQUEST, secure)
        self.dropped = 0

    def serve(self, answer: Callable[[bytes], bytes], timeout_ms: int) -> bool:
        """Wait for one request and answer it. Any frames before the last are echoed.

        Returns:
            Whether there was one.
        """
        if not self._socket.poll(timeout_ms):
            return False
        *envelope, request = self._socket.recv_multipart()
        if not 1 <= len(envelope) <= 3:
            self.dropped += 1
            return True
        try:
            self._socket.send_multipart((*envelope, answer(request)), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.dropped += 1
        return True

    def close(self) -> None:
        """Send what is queued, for 200 ms at most, and let go."""
        self._socket.close(linger=200)


def _bind(
    context: zmq.Context, kind: int, addresses: Planes, plane: str, max_frame: int, secure: Secure
) -> zmq.Socket:
    socket, address = context.socket(kind), getattr(addresses, plane)
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, MAX_QUEUED)
    socket.setsockopt(zmq.RCVHWM, MAX_QUEUED)
    if address.startswith("tcp://["):
        socket.setsockopt(zmq.IPV6, 1)
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    secure(socket, plane)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise InvalidConfig(f"{address} cannot be bound: {error.strerror or error}") from None
    return socket
