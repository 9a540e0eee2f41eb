"""Named ticks as JSON over ZeroMQ, as PlotJuggler's "ZMQ Subscriber" takes them."""

from typing import Any

import orjson
import zmq

from runtime.errors import InvalidConfig
from runtime.spec import Manifest
from runtime.tap import Tick
from runtime.view.named import NamedTicks

DEFAULT_PORT = 9872
"""Where PlotJuggler looks unless told otherwise."""


class JsonPublisher:
    """One JSON object per tick, ``{"timestamp": ..., "SESSION": {...}}``, in one frame."""

    def __init__(self, port: int):
        """
        Args:
            port: on 127.0.0.1.

        Raises:
            InvalidConfig: it is taken.
        """
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._named: dict[int, NamedTicks] = {}
        self.address = f"tcp://127.0.0.1:{port}"
        try:
            self._socket.bind(self.address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise InvalidConfig(f"{self.address} cannot be served: {error.strerror}") from None

    def tick(self, tick: Tick, policy: str | None, manifest: Manifest | None) -> None:
        """Publish one tick; one whose policy is not known yet is left out."""
        if manifest is None:
            return
        named = self._named.setdefault(tick.session, NamedTicks()).name(tick, manifest)
        content = {"timestamp": 1e-9 * tick.received_ns, str(tick.session): named}
        self._socket.send(orjson.dumps(content), zmq.NOBLOCK)

    def event(self, event: dict[str, Any]) -> None:
        """Events are no curves."""

    def close(self) -> None:
        """Publish no more."""
        self._context.destroy(linger=0)
