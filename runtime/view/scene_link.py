"""From a simulated robot to its viewers: what its scene looks like, over ZeroMQ.

A simulation knows where every part of its robot is, which its observation need not tell.
Each message is a whole JSON scene, so that a viewer may come at any time and none is waited
for: where nobody looks, nothing is sent, and who is too slow misses scenes.
"""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zmq

from runtime.errors import InvalidConfig

SHAPES = ("box", "sphere", "cylinder", "capsule", "ellipsoid")
_LIMIT = 107
"""Bytes of the longest socket path that the kernel takes."""


@dataclass(frozen=True)
class Part:
    """One body of simple shape."""

    shape: str
    """Of `SHAPES`; along z where it has an axis."""
    size: tuple[float, float, float]
    """Half extents along its own x, y, z [m]; of a capsule without its caps."""
    rgba: tuple[float, float, float, float]
    position: tuple[float, float, float]
    """In the world [m]."""
    rotation: tuple[float, float, float, float]
    """Quaternion w, x, y, z, from its own axes to the world's."""


@dataclass(frozen=True)
class Scene:
    """One moment."""

    parts: tuple[Part, ...]
    centre: tuple[float, float, float]
    """What a camera may follow, in the world [m]."""


def scene_address(endpoint: str, session: int) -> str:
    """Where the scene of a session is published, by the endpoint of its daemon."""
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc":
        return f"{endpoint}-scene-{session}"
    folder = Path(tempfile.gettempdir()) / f"adaptd-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return f"ipc://{folder}/{rest.rpartition(':')[2]}-scene-{session}"


class ScenePublisher:
    """The simulation's end."""

    def __init__(self, endpoint: str, session: int):
        """
        Raises:
            InvalidConfig: the socket's folder cannot be written.
        """
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, 4)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._watchers = 0
        address = scene_address(endpoint, session)
        try:
            if len(address) > _LIMIT + len("ipc://"):
                raise zmq.ZMQError(msg=f"a socket path has at most {_LIMIT} bytes")
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise InvalidConfig(
                f"{address} cannot be bound, so nobody can look at the robot: {error.strerror}"
            ) from None

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        while self._socket.poll(0):
            self._watchers += 1 if self._socket.recv()[:1] == b"\x01" else -1
        return self._watchers > 0

    def send(self, scene: Scene) -> None:
        """Show a moment."""
        self._socket.send(json.dumps(asdict(scene)).encode(), zmq.NOBLOCK)

    def close(self) -> None:
        """Show no more."""
        self._context.destroy(linger=0)


class SceneFollower:
    """The viewer's end; the simulation need not be there yet."""

    def __init__(self, endpoint: str, session: int):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 4)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 200)
        self._socket.subscribe(b"")
        self._socket.connect(scene_address(endpoint, session))

    def latest(self) -> Scene | None:
        """The newest scene that has come since the last call; None if none has."""
        found = b""
        while self._socket.poll(0):
            found = self._socket.recv()
        return _scene(json.loads(found)) if found else None

    def close(self) -> None:
        """Look no more."""
        self._context.destroy(linger=0)


def _scene(content: dict[str, Any]) -> Scene:
    parts = tuple(Part(**{k: _value(v) for k, v in part.items()}) for part in content["parts"])
    return Scene(parts, _value(content["centre"]))


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
