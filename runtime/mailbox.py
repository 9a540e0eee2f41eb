"""How other threads get something done in the loop, between two ticks."""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Mailbox:
    """Functions that other threads want run between two ticks."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )

    def post(self, function: Callable[[], Any]) -> "Future[Any]":
        """Ask for a function to be run; its result or exception comes through the future."""
        future: Future[Any] = Future()
        self._waiting.put((function, future))
        return future

    def run_waiting(self) -> None:
        """Run all that is waiting, on the caller's thread."""
        while not self._waiting.empty():
            function, future = self._waiting.get()
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)
