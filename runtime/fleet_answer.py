"""The answers to one step of a fleet, from replies on the wire to one row per session."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from runtime.errors import ProtocolError
from runtime.messages import HEADER_SIZE

HEADER = np.dtype(
    [
        ("magic", "S4"), ("version", "u1"), ("kind", "u1"), ("flags", "<u2"),
        ("session", "<u8"), ("seq", "<u8"), ("time_ns", "<u8"), ("reward", "<f4"),
        ("generation", "<u4"), ("first", "<u2"), ("second", "<u2"), ("status", "<u2"),
        ("limits", "<u2"), ("queue_ns", "<u4"), ("inference_ns", "<u4"), ("adaptation", "u1"),
        ("reserved", "V7"),
    ]
)  # fmt: skip
"""The header of `runtime.messages` as numpy sees it."""
assert HEADER.itemsize == HEADER_SIZE

_TOLD = ("limits", "flags", "adaptation", "generation", "queue_ns", "inference_ns")


class FleetAnswer(NamedTuple):
    """The actions of n sessions and what the daemon says about each; rows as in the fleet."""

    actions: np.ndarray
    """What to apply, (n, A) float32; the fallback action where the daemon was silent or refused."""
    requested: np.ndarray
    """What the policies wanted, (n, A); differs from `actions` where a limit acted."""
    limits: np.ndarray
    """(n,), bits of `runtime.messages.Limit`."""
    flags: np.ndarray
    """(n,), bits of `runtime.messages.ActionFlag`."""
    adaptation: np.ndarray
    """(n,), values of `runtime.messages.Adaptation`."""
    generation: np.ndarray
    silent: np.ndarray
    """(n,) bool: no answer in time."""
    queue_ns: np.ndarray
    inference_ns: np.ndarray
    refused: dict[int, ProtocolError]
    """By row, why the daemon refused an observation: nothing changed there."""


class FleetTick:
    """The answer of a step as it fills up; every row starts as the fallback."""

    def __init__(self, fallback: np.ndarray):
        n = len(fallback)
        self.actions, self.requested = fallback.copy(), fallback.copy()
        self.told = {name: np.zeros(n, HEADER[name]) for name in _TOLD}
        self.silent = np.ones(n, bool)
        self.refused: dict[int, ProtocolError] = {}
        self.waiting = n

    def fill(self, rows: np.ndarray, header: np.ndarray, payload: np.ndarray, acted: int) -> None:
        """Answers, (m,) headers and (m, A or 2 A) payloads, to the sessions of some rows."""
        self.actions[rows] = payload[:, :acted]
        self.requested[rows] = payload[:, -acted:]
        for name, values in self.told.items():
            values[rows] = header[name]
        self._hear(rows)

    def refuse(self, row: int, refusal: ProtocolError) -> None:
        """The daemon refused one session's observation."""
        self.refused[row] = refusal
        self._hear(row)

    def _hear(self, rows: Any) -> None:
        self.silent[rows] = False
        self.waiting = int(np.count_nonzero(self.silent))

    def answer(self) -> FleetAnswer:
        """As the caller gets it."""
        return FleetAnswer(
            self.actions, self.requested, silent=self.silent, refused=self.refused, **self.told
        )


def by_size(replies: list[bytes]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Replies of each length together: headers (m,) and payloads (m, bytes); none too short."""
    for size in set(map(len, replies)):
        alike = [reply for reply in replies if len(reply) == size]
        if size < HEADER_SIZE:
            continue  # noise on the way
        table = np.frombuffer(b"".join(alike), np.uint8).reshape(len(alike), size)
        yield table[:, :HEADER_SIZE].view(HEADER)[:, 0], table[:, HEADER_SIZE:]
