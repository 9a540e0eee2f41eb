"""The planes of a daemon that asks for keys: who sends is looked at, message by message.

The planes without keys (runtime/transport.py) know nothing of this and pay nothing for it.
"""

from collections.abc import Callable
from contextlib import suppress

import zmq

from runtime.access.connections import Connection, Connections
from runtime.access.gate import Gate
from runtime.messages import FrameError, Planes
from runtime.reception import STREAM, Reception
from runtime.stepper import MAX_BATCH
from runtime.transport import (
    MAX_ROUNDS,
    SUBSCRIPTIONS_AT_ONCE,
    ControlPlane,
    DataPlane,
    Secure,
    TickAll,
)

_NOW = int(zmq.NOBLOCK)
_recv, _send, _get = zmq.backend.Socket.recv, zmq.backend.Socket.send, zmq.backend.Socket.get
_SEND_MORE, _MORE, _SOURCE = int(zmq.SNDMORE | zmq.NOBLOCK), int(zmq.RCVMORE), int(zmq.SRCFD)


def sender_of(frame: zmq.Frame, connections: Connections) -> tuple[str, Connection | None]:
    """Public key of a message's sender, and the connection by which it came.

    Empty and None where the connection is over.
    """
    try:
        key, fd = frame.get("User-Id"), frame.get(_SOURCE)
    except zmq.ZMQError:
        return "", None
    return key, connections.of_message(fd, key)  # type: ignore[arg-type]


class GuardedDataPlane(DataPlane):
    """Hands on observations of those only who may send them."""

    def __init__(
        self,
        context: zmq.Context,
        addresses: Planes,
        spin_ns: int,
        secure: Secure,
        gate: Gate,
        connections: Connections,
        reception: Reception,
        clock: Callable[[], int],
    ):
        """Bind.

        Args:
            context, addresses, spin_ns, secure: as `DataPlane`.
            gate: says who may do what.
            connections: of the daemon.
            reception: counts what is refused, and words it.
            clock: monotonic [ns].

        Raises:
            InvalidConfig: an address cannot be bound.
        """
        super().__init__(context, addresses, spin_ns, secure)
        self._gate, self._connections, self._reception = gate, connections, reception
        self._clock = clock
        self._subscribed = connections.watchers
        # Each subscription is ours to grant; nobody can have connected before the door is open.
        self._tap.setsockopt(zmq.XPUB_MANUAL, 1)

    def _gather(self) -> tuple[list[bytes], list[bytes]]:
        socket, now_ns = self._socket, self._clock()
        senders: list[bytes] = []
        frames: list[bytes] = []
        with suppress(zmq.Again):
            for _ in range(MAX_BATCH):
                sender, frame = _recv(socket, _NOW), self._take(socket, "data", now_ns)
                if isinstance(frame, FrameError):
                    self._answer(sender, frame)
                elif frame is not None:
                    senders.append(sender)
                    frames.append(frame)
                    if len(frames) == 1 and not self._readable(socket):
                        break
        return senders, frames

    def _take(self, socket: zmq.Socket, plane: str, now_ns: int) -> bytes | FrameError | None:
        """The next observation, why it is refused, or None for what is no message of ours."""
        frame: zmq.Frame = _recv(socket, _NOW, False)  # type: ignore[assignment]
        key, connection = sender_of(frame, self._connections)
        if _get(socket, _MORE):
            self._skip_rest(socket)
            return None
        if connection is None:
            self.dropped += 1
            return None
        content = frame.bytes
        return self._gate.frame(key, content, plane, now_ns) or content

    def _answer(self, sender: bytes, error: FrameError) -> None:
        reply = self._reception.refuse(error, error.session, error.seq).reply
        try:
            _send(self._socket, sender, _SEND_MORE)
            _send(self._socket, reply, _NOW)
        except zmq.ZMQError:
            self.dropped += 1

    def _step_streamed(self, tick_all: TickAll, clock: Callable[[], int]) -> bool:
        socket = self._stream
        for _ in range(MAX_ROUNDS):
            now_ns = clock()
            frames: list[bytes] = []
            taken = 0
            while taken < MAX_BATCH and self._readable(socket):
                frame = self._take(socket, "stream", now_ns)
                taken += 1
                if isinstance(frame, FrameError):  # not for the tap of a session of others
                    self._reception.refuse(frame, frame.session, frame.seq)
                elif frame is not None:
                    frames.append(frame)
            if not taken:
                return False
            results = tick_all(frames, now_ns, STREAM)
            for frame, result in zip(frames, results, strict=True):
                if self._subscribed:
                    self._publish(frame, result)
        return True

    def _count_subscribers(self) -> bool:
        """Grant subscriptions, one by one and a few at a time; whether there may be more."""
        for _ in range(SUBSCRIPTIONS_AT_ONCE):
            try:
                frame = self._tap.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            key, connection = sender_of(frame, self._connections)
            self._follow(frame.bytes, key, connection)
        return True

    def _follow(self, event: bytes, key: str, connection: Connection | None) -> None:
        """Grant one subscription, or end one."""
        kind, topic = event[:1], event[1:]
        if kind == b"\x00":  # where the connection is over, libzmq forgets it anyway
            self._tap.setsockopt(zmq.UNSUBSCRIBE, topic)
            if connection is not None:
                self._connections.watch(connection, topic, False)
        elif kind != b"\x01" or connection is None:
            self.dropped += 1
        elif self._gate.subscription(key, topic, len(connection.topics)):
            self._tap.setsockopt(zmq.SUBSCRIBE, topic)
            self._connections.watch(connection, topic, True)

    def close(self) -> None:
        """As `DataPlane.close`."""
        for socket in (self._socket, self._stream, self._tap):
            socket.disable_monitor()
        super().close()


class GuardedControlPlane(ControlPlane):
    """Says with each request who makes it."""

    def __init__(
        self, context: zmq.Context, addresses: Planes, secure: Secure, connections: Connections
    ):
        """Bind.

        Args:
            context, addresses, secure: as `ControlPlane`.
            connections: of the daemon.

        Raises:
            InvalidConfig: the address cannot be bound.
        """
        super().__init__(context, addresses, secure)
        self._connections = connections

    def serve(self, answer: Callable[..., bytes], timeout_ms: int) -> bool:
        """As `ControlPlane.serve`; the second argument of `answer` is the sender's public key."""
        if not self._asked(timeout_ms):
            return False
        *envelope, request = self._socket.recv_multipart(copy=False)
        key, connection = sender_of(request, self._connections)
        if not 1 <= len(envelope) <= 3 or connection is None:
            self.dropped += 1
            return True
        try:
            self._socket.send_multipart((*envelope, answer(request.bytes, key)), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.dropped += 1
        return True

    def close(self) -> None:
        """As `ControlPlane.close`."""
        self._socket.disable_monitor()
        super().close()
