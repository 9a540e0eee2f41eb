"""A network that misbehaves, between clients and a daemon: for tests, soaks and demonstrations.

It relays whole messages, so that what a fault does is known: off (all are lost), stuck (the
last one that got through again in place of each), garbage (noise in place of each), wrong
(each after the next one), slow (one at a time, so far apart), delayed (each so much later),
intermittent (some are lost). The control plane is relayed as it is.
"""

import heapq
import itertools
import random
import tempfile
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

import zmq

from runtime.handshake import show_key
from runtime.keyfile import Key
from runtime.messages import planes

WORDS = ("off", "stuck", "garbage", "wrong", "slow", "delayed", "intermittent")
APART_S = 0.03
LATER_S = 0.05
LOST = 0.3
"""Share of messages that an intermittent network loses."""

Message = list[bytes]


class Direction:
    """What becomes of the messages of one connection that go one way."""

    def __init__(self, seed: int = 0):
        self._random = random.Random(seed)
        self._last: Message | None = None
        self._held: Message | None = None
        self._free_s = 0.0
        """When a slow network may pass the next one on."""

    def carry(
        self, message: Message, word: str | None, now_s: float
    ) -> list[tuple[float, Message]]:
        """What arrives because a message was sent, and when.

        Args:
            message: its frames; the last one is what a fault changes.
            word: of `WORDS`; None where nothing is wrong.
            now_s: on any clock.
        """
        *envelope, body = message
        match word:
            case "off":
                return []
            case "stuck":
                return [(now_s, self._last)] if self._last else []
            case "garbage":
                return [(now_s, [*envelope, self._random.randbytes(len(body))])]
            case "wrong":
                first, self._held = self._held, message
                return [(now_s, first)] if first else []
            case "slow":
                self._free_s = max(now_s, self._free_s + APART_S)
                return [(self._free_s, message)]
            case "delayed":
                return [(now_s + LATER_S, message)]
            case "intermittent" if self._random.random() < LOST:
                return []
        self._last = message
        return [(now_s, message)]


class BadNetwork:
    """Relays between clients and a daemon; a context manager."""

    def __init__(self, endpoint: str, key: Key | None = None, seed: int = 0):
        """
        Args:
            endpoint: of the daemon.
            key: by which it lets the clients in that come this way, where it asks for one.
            seed: of what is lost, and of noise.
        """
        self.word: str | None = None
        """What is wrong from now on, of `WORDS`."""
        self._key, self._seed = key, itertools.count(seed)
        self._far = planes(endpoint)
        self._folder = tempfile.TemporaryDirectory(prefix="network-")
        self.endpoint = f"ipc://{self._folder.name}/adaptd"
        """Where clients connect instead."""
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        near = planes(self.endpoint)
        self._fronts = {self._bind(near.data): "data", self._bind(near.control): "control"}
        self._lines: dict[tuple[Any, bytes], _Line] = {}
        self._by_back: dict[Any, _Line] = {}
        self._due: list[tuple[float, int, Any, Message]] = []
        self._count = itertools.count()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._relay, name="bad network", daemon=True)
        self._thread.start()

    def _bind(self, address: str) -> Any:
        front = self._context.socket(zmq.ROUTER)
        front.bind(address)
        self._poller.register(front, zmq.POLLIN)
        return front

    def _line(self, front: Any, who: bytes) -> "_Line":
        """The connection to the daemon that one client's messages go over."""
        known = self._lines.get((front, who))
        if known is not None:
            return known
        back = self._context.socket(zmq.DEALER)
        if self._key is not None:
            show_key(back, self._key)
        back.setsockopt(zmq.LINGER, 0)
        back.setsockopt(zmq.RECONNECT_IVL, 20)
        back.connect(getattr(self._far, self._fronts[front]))
        self._poller.register(back, zmq.POLLIN)
        line = _Line(front, who, back, next(self._seed))
        self._lines[front, who] = self._by_back[back] = line
        return line

    def _relay(self) -> None:
        while not self._stopping.is_set():
            wait_s = self._due[0][0] - time.monotonic() if self._due else 0.05
            for socket, _ in self._poller.poll(max(0, round(1000 * min(wait_s, 0.05)))):
                self._take(socket)
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, socket, message = heapq.heappop(self._due)
                with suppress(zmq.Again):  # a daemon that is gone loses it
                    socket.send_multipart(message, zmq.NOBLOCK)

    def _take(self, socket: Any) -> None:
        message = socket.recv_multipart()
        if socket in self._fronts:
            who, *content = message
            line = self._line(socket, who)
            target, direction, before = line.back, line.up, []
        else:
            line = self._by_back[socket]
            content, target, direction, before = message, line.front, line.down, [line.who]
        word = self.word if self._fronts[line.front] == "data" else None
        for due_s, found in direction.carry(content, word, time.monotonic()):
            heapq.heappush(self._due, (due_s, next(self._count), target, [*before, *found]))

    def __enter__(self) -> "BadNetwork":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._context.destroy(linger=0)
        self._folder.cleanup()


class _Line:
    """One client's connection."""

    def __init__(self, front: Any, who: bytes, back: Any, seed: int):
        self.front, self.who, self.back = front, who, back
        self.up, self.down = Direction(2 * seed), Direction(2 * seed + 1)
