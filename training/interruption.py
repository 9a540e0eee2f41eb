"""Stopping when asked: by Ctrl-C, or by SIGTERM, which schedulers and torchrun send."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from training.ranks import under_torchrun

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that is set on a signal to stop, so that what is under way can be finished.

    A second signal stops at once; not under torchrun, which passes on to its processes what a
    terminal has sent them already, and ends them itself when they take long.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(*_: object) -> None:
        interrupted.set()
        if not under_torchrun():
            restore()

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield interrupted
    finally:
        restore()
