"""How a client shows its key to a daemon, and what became of it. Python 3.10."""

from typing import Any

import zmq

from runtime.keyfile import Key

RECONNECT_MAX_MS = 1000
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


class Handshake:
    """Follows the handshakes of one socket, so that silence can be explained."""

    def __init__(self, socket: Any, key: Key | None):
        """
        Args:
            socket: not connected yet.
            key: that it shows; None for none.
        """
        self._key = key
        self._events = socket.get_monitor_socket(_SUCCEEDED | _REFUSED | sum(_FAILED))

    def why_silent(self) -> str:
        """What the last handshake says of a daemon that does not answer."""
        last, key = 0, self._key
        while self._events.poll(0):
            last = int.from_bytes(self._events.recv_multipart()[0][:2], "little")
        if last == _REFUSED and key is not None:
            return f"it refuses the key of {key.name!r}: not on its list, or revoked"
        if last == _REFUSED or last in _FAILED:
            return (
                "it asks for a key: give one by --key or $ADAPTD_KEY"
                if key is None
                else f"the handshake failed: does it ask for keys at all, and is `server` in the "
                f"key file of {key.name!r} its public key?"
            )
        return "is `adaptd serve` running?"
