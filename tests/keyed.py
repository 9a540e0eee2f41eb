"""A daemon that asks for keys, and clients that have some."""

import json
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from runtime.access.allowlist import Role
from runtime.access.key_folder import KeyFolder
from runtime.benchmark.keys import loopback
from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.keyfile import Key
from runtime.messages import planes

ROLES = {
    "robot": {Role.DRIVE},
    "other": {Role.DRIVE},
    "operator": {Role.OPERATE, Role.OBSERVE},
    "onlooker": {Role.OBSERVE},
    "driver": {Role.DRIVE, Role.OBSERVE},
    "switcher": {Role.OPERATE},
}
"""The clients of `make_keys`; `operator` is who asks for the status in tests."""


def make_keys(folder: Path) -> KeyFolder:
    """A folder with the daemon's key and one of each client."""
    keys = KeyFolder(folder)
    for name, roles in ROLES.items():
        keys.make_client(name, frozenset(roles))
    return keys


class KeyedDaemon(DaemonProcess):
    """A daemon on a loopback port that asks for keys; a context manager."""

    def __init__(self, models: Path, keys: KeyFolder, **settings: str):
        self.keys = keys
        folder = {"keys__folder": str(keys.folder)}
        operator = keys.folder / "operator.key"
        super().__init__(models, loopback(), operator, **folder, **settings)

    def of(self, name: str, timeout_s: float = 5.0) -> Client:
        """A connection of a client of `make_keys`."""
        return Client(self.endpoint, timeout_s, self.keys.folder / f"{name}.key")

    def access(self) -> dict[str, Any]:
        """What `status` tells of it."""
        with self.client() as client:
            return client.request("status")["access"]


@contextmanager
def bare(
    daemon: DaemonProcess, key: Key, plane: str, kind: int = zmq.DEALER, address: str | None = None
):
    """A socket of a key of one's own on one plane, for what no client would send."""
    context = zmq.Context()
    bare = context.socket(kind)
    bare.setsockopt(zmq.LINGER, 0)
    bare.setsockopt_string(zmq.CURVE_SERVERKEY, key.server)
    bare.setsockopt_string(zmq.CURVE_PUBLICKEY, key.public)
    bare.setsockopt_string(zmq.CURVE_SECRETKEY, key.secret)
    bare.connect(address or getattr(planes(daemon.endpoint), plane))
    try:
        yield bare
    finally:
        context.destroy(linger=0)


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """What a condition gives as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return found


def events(daemon: DaemonProcess, name: str) -> list[dict[str, Any]]:
    """Lines of the log about one event."""
    lines = map(json.loads, daemon.log.read_text().splitlines())
    return [line for line in lines if line["event"] == name]
