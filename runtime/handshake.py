"""How a client shows its key to a daemon, and what a daemon that is silent has against it.

Python 3.10.
"""

from typing import Any

import zmq

from runtime.keyfile import Key

RECONNECT_MAX_MS = 1000
PROBE_MS = 500
_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
_FAILED = (
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL),
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL),
)
_SUCCEEDED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)


def show_key(socket: Any, key: Key) -> None:
    """Let a socket that is not connected yet encrypt, and say who it is."""
    socket.setsockopt_string(zmq.CURVE_SERVERKEY, key.server)
    socket.setsockopt_string(zmq.CURVE_PUBLICKEY, key.public)
    socket.setsockopt_string(zmq.CURVE_SECRETKEY, key.secret)
    # One whose key is refused must not keep the daemon busy by trying again at once.
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)


def connect(socket: Any, address: str) -> None:
    """Connect a socket; libzmq takes an IPv6 address only for one that was told of such."""
    if address.startswith("tcp://["):
        socket.setsockopt(zmq.IPV6, 1)
    socket.connect(address)


def why_silent(context: Any, address: str, key: Key | None) -> str:
    """Why a daemon does not answer: it is asked once more for a connection.

    Args:
        context: to make a socket of.
        address: of the daemon's control plane.
        key: that is shown to it; None for none.
    """
    if not address.startswith("tcp://"):
        return "is `adaptd serve` running?"
    outcome = _knock(context, address, key)
    if outcome == _REFUSED and key is not None:
        return f"it refuses the key of {key.name!r}: not on its list, or revoked"
    if outcome == _REFUSED or outcome in _FAILED:
        return (
            "it asks for a key: give one by --key or $ADAPTD_KEY"
            if key is None
            else f"the handshake failed: does it ask for keys at all, and is `server` in the "
            f"key file of {key.name!r} its public key?"
        )
    if outcome == _SUCCEEDED:
        return "it is there, but busy with something that takes longer"
    return "is `adaptd serve` running?"


def _knock(context: Any, address: str, key: Key | None) -> int:
    """How a handshake ends; 0 if nobody is there.

    On a socket of its own: a monitor whose events nobody takes out stops libzmq's thread
    after some thousand of them, so no socket that lives on may have one.
    """
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    if key is not None:
        show_key(socket, key)
    events = socket.get_monitor_socket(_SUCCEEDED | _REFUSED | sum(_FAILED))
    try:
        connect(socket, address)
        if not events.poll(PROBE_MS):
            return 0
        return int.from_bytes(events.recv_multipart()[0][:2], "little")
    finally:
        socket.disable_monitor()
        events.close(linger=0)
        socket.close()
