"""The command `adaptd exporter`."""

import threading
import time

from runtime.background import stand_back
from runtime.commandline import THERE, To
from runtime.errors import InvalidConfig
from runtime.exporter.ledger import Ledger
from runtime.extras import need
from runtime.onlooker import Onlooker
from runtime.tap import FRAMES_OF_EVENT, FRAMES_OF_TICK, MOST_AT_ONCE, event_of

HOST = "127.0.0.1"
"""The only address: a scraper on another machine comes through a proxy that asks who it is."""
DRAIN_S = 0.05
"""Between two looks at the tap: taking ticks in bulk costs less than waking up for each."""


def exporter(
    to: To = THERE,
    port: int = 9734,
    every_s: float = 2.0,
    sessions: int = 100,
) -> None:
    """Serve Prometheus metrics of a daemon on http://127.0.0.1:PORT/metrics until Ctrl-C.

    Args:
        port: on 127.0.0.1; 0 for any free one.
        every_s: seconds between two looks at the daemon's counters.
        sessions: how many sessions get series of their own.
    """
    if not 0 <= port <= 65535:
        raise InvalidConfig(f"--port must be between 0 and 65535, got {port}")
    if not 0.1 <= every_s <= 3600:
        raise InvalidConfig(f"--every-s must be between 0.1 and 3600, got {every_s:g}")
    if sessions < 0:
        raise InvalidConfig(f"--sessions must not be negative, got {sessions}")
    need("monitor", "prometheus_client")
    with Onlooker(to.endpoint, status_every_s=every_s, key=to.key) as onlooker:
        run(onlooker, port, sessions)


def run(onlooker: Onlooker, port: int, most_sessions: int) -> None:
    """Serve and keep the ledger, for ever.

    Raises:
        InvalidConfig: the port is taken.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    from runtime.exporter.metrics import Metrics

    ledger, lock = Ledger(onlooker.label, onlooker.manifest), threading.Lock()
    registry = CollectorRegistry()
    registry.register(Metrics(ledger, lock, most_sessions))
    try:
        server, _ = start_http_server(port, HOST, registry)
    except OSError as error:
        raise InvalidConfig(f"{HOST}:{port} cannot be served: {error.strerror}") from None
    stand_back()
    print(f"http://{HOST}:{server.server_port}/metrics of {onlooker.endpoint}", flush=True)
    try:
        while True:
            if not follow(onlooker, ledger, lock):
                time.sleep(DRAIN_S)
    finally:
        server.shutdown()
        server.server_close()


def follow(onlooker: Onlooker, ledger: Ledger, lock: threading.Lock) -> bool:
    """Take in what has come; whether there may be more."""
    status = onlooker.status if not onlooker.trouble else {}
    messages = onlooker.tap.messages()
    with lock:
        if status is not ledger.daemon:
            ledger.take_status(status)
        for event in (m for m in messages if len(m) == FRAMES_OF_EVENT):
            ledger.take_event(event_of(event))
        ticks = [m for m in messages if len(m) == FRAMES_OF_TICK]
        ledger.take_ticks(ticks, time.monotonic())
    return len(messages) == MOST_AT_ONCE
