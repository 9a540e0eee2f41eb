"""Before the daemon is ready: somebody with a key that nobody knows must be refused."""

import zmq

from runtime.access.door import Door
from runtime.errors import InvalidConfig
from runtime.handshake import connect
from runtime.messages import Planes

TIMEOUT_S = 10.0
_KINDS = {"data": zmq.DEALER, "control": zmq.DEALER, "tap": zmq.SUB, "stream": zmq.PUSH}
_REFUSED, _LET_IN = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH), int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_WITHIN = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "[::]": "[::1]"}
"""Where to knock on a socket that is bound to every address."""


def self_test(door: Door, addresses: Planes) -> None:
    """Knock on every plane with a random key.

    Args:
        door: that has been started.
        addresses: that are bound.

    Raises:
        InvalidConfig: a plane let it in, or did not refuse it in time.
    """
    public, secret = zmq.curve_keypair()
    door.stranger = public.decode()
    context = zmq.Context()
    try:
        for plane, address in addresses._asdict().items():
            socket = context.socket(_KINDS[plane])
            socket.setsockopt(zmq.CURVE_SERVERKEY, door.key.public.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            monitor = socket.get_monitor_socket(_REFUSED | _LET_IN)
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
            connect(socket, _within(address))
            _await_refusal(monitor, plane, address)
    finally:
        context.destroy(linger=0)


def _await_refusal(monitor: zmq.Socket, plane: str, address: str) -> None:
    if not monitor.poll(round(1000 * TIMEOUT_S)):
        raise InvalidConfig(
            f"the {plane} plane at {address} did not refuse a random key within {TIMEOUT_S:g} s: "
            f"adaptd does not serve where it cannot be sure of that"
        )
    event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
    if event != _REFUSED:
        raise InvalidConfig(
            f"the {plane} plane at {address} let a random key in: adaptd does not serve like that"
        )


def _within(address: str) -> str:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return f"tcp://{_WITHIN.get(host, host)}:{port}"
