"""The door: the thread that lets clients in, follows their connections and the allow-list.

If it stops, nobody new is let in: libzmq asks it about each connection, and refuses where
no answer comes. It waits for nothing but libzmq: events of connections that nobody takes
out would stop libzmq's own thread after some thousand of them.
"""

import resource
import threading
from collections import Counter
from collections.abc import Callable

import structlog
import zmq

from runtime.access.allowlist import FILE
from runtime.access.authoriser import ADDRESS, authorise
from runtime.access.connections import Connections
from runtime.access.gate import Gate
from runtime.access.watched_list import WatchedList
from runtime.config import KeysConfig
from runtime.errors import InvalidConfig
from runtime.keyfile import Key, read_key

log = structlog.get_logger()

LOOK_MS = 100
"""Between two looks at the allow-list."""
LOOKS_PER_COUNT = 5
"""Looks between two counts of what has come by connections."""
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 1000, 5000
SEALED_BYTES, HANDSHAKE_BYTES = 64, 1024
"""What encryption adds to a frame, and the longest command of a handshake: libzmq holds both
against the largest frame."""
SPARE_FILES = 200
"""Of the files that the process may open, those that are no connections."""
_ACCEPTED, _OVER = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_DISCONNECTED)
_BROKEN_OFF, _PROTOCOL = (
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL),
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL),
)
_FAULTS = {
    int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "no_key",
    int(zmq.PROTOCOL_ERROR_ZMTP_INVALID_SEQUENCE): "replayed",
    int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "not_decrypted",
}


class Door:
    """Makes sockets ask for keys, and answers for the clients of the allow-list."""

    def __init__(
        self, context: zmq.Context, config: KeysConfig, gate: Gate, clock: Callable[[], int]
    ):
        """Read the keys. `secure` the sockets, bind them, then `start`.

        Args:
            context: of the sockets.
            config: where the keys are.
            gate: that the allow-list is put to.
            clock: monotonic [ns].

        Raises:
            InvalidConfig: the daemon's key or the allow-list cannot be used.
        """
        assert config.folder is not None
        self._config, self._gate, self._clock_ns = config, gate, clock
        self.key = _own_key(config)
        self._list = WatchedList(config.folder / FILE)
        gate.put(self._list.clients)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.connections = Connections(max(files - SPARE_FILES, SPARE_FILES), clock)
        self.refused: Counter[str] = Counter()
        """Handshakes, by reason."""
        self.trouble = ""
        """Why the allow-list as it is now does not count; empty where it does."""
        self.stranger = ""
        """A key that is refused without a word: that of the self-test."""
        self._limits_changed = False
        self._questions = context.socket(zmq.ROUTER)
        self._questions.bind(ADDRESS)
        self._monitors: dict[zmq.Socket, str] = {}
        self._stopping, self._thread = (
            threading.Event(),
            threading.Thread(target=self._run, name="door", daemon=True),
        )

    def secure(self, socket: zmq.Socket, plane: str) -> None:
        """Let a socket, which is not bound yet, ask for keys.

        Args:
            socket: any of the daemon's.
            plane: which it is: data, control, tap or stream.
        """
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, self.key.secret)
        # Fail closed: without a domain that is enforced, any key would do where nobody answers.
        socket.setsockopt_string(zmq.ZAP_DOMAIN, f"adaptd-{plane}")
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        largest = int(socket.getsockopt(zmq.MAXMSGSIZE))  # type: ignore[arg-type]
        socket.setsockopt(zmq.MAXMSGSIZE, max(largest + SEALED_BYTES, HANDSHAKE_BYTES))
        socket.setsockopt(zmq.HANDSHAKE_IVL, max(1, round(1000 * self._config.handshake_s)))
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        events = _ACCEPTED | _OVER | _BROKEN_OFF | _PROTOCOL
        self._monitors[socket.get_monitor_socket(events)] = plane

    def start(self) -> None:
        """Let clients in from now on."""
        self._thread.start()

    def limit(self, config: KeysConfig) -> None:
        """Let other limits of a client count, from the next look at the allow-list on."""
        self._gate.limits, self._limits_changed = config, True

    def stop(self) -> None:
        """Let nobody in any more; the sockets must be closed."""
        self._stopping.set()
        self._thread.join()
        for socket in (self._questions, *self._monitors):
            socket.close(linger=0)

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._questions, *self._monitors):
            poller.register(socket, zmq.POLLIN)
        next_look_ns = looks = 0
        while not self._stopping.is_set():
            poller.poll(LOOK_MS)
            try:
                self._answer()
                if self._clock_ns() >= next_look_ns:
                    next_look_ns = self._clock_ns() + LOOK_MS * 1_000_000
                    self.reread()
                    looks += 1
                    if looks % LOOKS_PER_COUNT == 0:
                        self._end_endless()
            except Exception:
                log.exception("door_failure")

    def _answer(self) -> None:
        """Answer libzmq's questions; what it tells of connections is heard before that.

        So a connection is known before its first message can come.
        """
        waiting = []
        while self._questions.poll(0):
            waiting.append(self._questions.recv_multipart())
        self._follow_connections()
        for asker, empty, *question in waiting:
            verdict = authorise(question, self._gate.why_not)
            self._questions.send_multipart((asker, empty, *verdict.reply))
            if verdict.refused and verdict.key != self.stranger:
                self._refuse(verdict.plane, verdict.refused, verdict.address, verdict.key)

    def _follow_connections(self) -> None:
        for monitor, plane in self._monitors.items():
            while monitor.poll(0):
                event, _ = monitor.recv_multipart()
                self._take(plane, int.from_bytes(event[:2], "little"), event[2:6])

    def _take(self, plane: str, event: int, told: bytes) -> None:
        value = int.from_bytes(told, "little")
        if event == _ACCEPTED:
            self.connections.accepted(plane, value)
        elif event == _OVER:
            self.connections.closed(plane, value)
        elif event == _BROKEN_OFF:
            self._refuse(plane, "broken_off")
        elif event == _PROTOCOL:
            self._refuse(plane, _FAULTS.get(value, "protocol"))

    def _refuse(self, plane: str, reason: str, address: str = "", key: str = "") -> None:
        self.refused[reason] += 1
        about = {"address": address, "key": f"{key[:8]}..."} if key else {}
        log.warning("handshake_refusal", plane=plane, reason=reason, **about)

    def _end_endless(self) -> None:
        endless = self.connections.end_endless()
        if endless:
            log.warning("connection_end", reason="endless_message", connections=endless)

    def reread(self) -> None:
        """Let the allow-list and the limits count as they are now, if they have changed."""
        try:
            changed = self._list.look()
        except InvalidConfig as error:
            self.trouble = str(error)
            log.warning("allowlist_fault", reason=self.trouble)
            return
        if not changed and not self._limits_changed:
            return
        self._limits_changed = False
        if changed:  # other limits do not make a list whole that is not
            self.trouble = ""
        gone, less = self._gate.put(self._list.clients)
        ended = self.connections.end_where(lambda c: c.user in gone, "revoked")
        ended += self.connections.end_where(
            lambda c: c.plane == "tap" and c.user in less, "lost_role"
        )
        log.info("allowlist", clients=len(self._list.clients), revoked=len(gone), ended=ended)


def _own_key(config: KeysConfig) -> Key:
    path = config.secret_file
    if not path.exists():
        raise InvalidConfig(
            f"there is no {path}: `adaptd keygen --folder {config.folder}` makes the daemon's key"
        )
    key = read_key(path)
    if zmq.curve_public(key.secret.encode()).decode() != key.public:
        raise InvalidConfig(f"{path} is no key file: its two keys do not belong together")
    return key
