"""What makes a daemon ask for keys: the door, the gate, and planes with both before them."""

from collections.abc import Callable
from typing import Any

import zmq

from runtime.access.door import Door
from runtime.access.gate import Gate, Member
from runtime.access.planes import GuardedControlPlane, GuardedDataPlane
from runtime.access.self_test import self_test
from runtime.config import KeysConfig
from runtime.messages import Planes
from runtime.reception import Reception
from runtime.registry import Registry


class Access:
    """Keys, roles and limits of one daemon."""

    def __init__(
        self,
        context: zmq.Context,
        config: KeysConfig,
        registry: Registry,
        clock: Callable[[], int],
    ):
        """
        Args:
            context: of the sockets.
            config: with a folder.
            registry: of the sessions.
            clock: monotonic [ns].

        Raises:
            InvalidConfig: the daemon's key or the allow-list cannot be used.
        """
        self._context, self._clock = context, clock
        self.gate = Gate(config, registry, clock)
        self.door = Door(context, config, self.gate, clock)
        self.gate.before_new = self._forget_watchers

    def bind(
        self, addresses: Planes, spin_ns: int, reception: Reception
    ) -> tuple[GuardedDataPlane, GuardedControlPlane]:
        """The planes; nobody is let in yet.

        Raises:
            InvalidConfig: an address cannot be bound.
        """
        context, connections = self._context, self.door.connections
        secure = self.door.secure
        data = GuardedDataPlane(
            context, addresses, spin_ns, secure, self.gate, connections, reception, self._clock
        )
        return data, GuardedControlPlane(context, addresses, secure, connections)

    def open_door(self, addresses: Planes) -> None:
        """Let clients in, once it is certain that strangers are not.

        Raises:
            InvalidConfig: it is not.
        """
        self.door.start()
        self_test(self.door, addresses)

    def _forget_watchers(self, session: int, opener: Member) -> None:
        """Who was let see a session of this id before was its owner then, and may not be now."""
        topic = session.to_bytes(8, "little")
        self.door.connections.end_where(
            lambda c: (
                topic in c.topics and c.user not in opener.owned and not self.gate.observes(c.user)
            ),
            "session_gone",
        )

    def limit(self, config: KeysConfig) -> None:
        """Let other limits count, within a second, for clients whose entry has none of its own."""
        self.door.limit(config)

    def close(self) -> None:
        """Let nobody in any more; the planes are closed."""
        self.door.stop()

    def report(self) -> dict[str, Any]:
        """What `status` tells."""
        refused: dict[str, dict[str, int]] = {}
        for (plane, code), count in list(self.gate.refused.items()):
            refused.setdefault(plane, {})[code] = count
        return {
            "clients": len(self.gate),
            "connections": len(self.door.connections),
            "refused_handshakes": dict(self.door.refused),
            "refused_messages": refused,
            "ended_connections": dict(self.door.connections.ended),
            "trouble": self.door.trouble,
        }
