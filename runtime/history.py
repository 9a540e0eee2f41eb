"""Transitions: the inputs of a session's steps, one and many."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Boundary(IntFlag):
    """What lies before a step; what that does to the carry, each policy declares."""

    NONE = 0
    TASK = 1
    EPISODE = 2
    GAP = 4
    FROZEN = 8  # no boundary: the step's carry was not kept
    UNSEEN = 16  # the carry has not taken in the observation just before this one


class Transition(NamedTuple):
    """The inputs of one step and what lies before it."""

    seq: int
    boundary: int
    """Of `Boundary`."""
    row: bytes
    """obs, prev_action, prev_reward, prev_done as float32, one after the other."""


@dataclass(frozen=True)
class History:
    """A copy of transitions, oldest first."""

    seqs: NDArray[np.uint64]  # (n,)
    boundaries: NDArray[np.uint32]  # (n,)
    rows: NDArray[np.float32]  # (n, O + A + 2)
    obs_size: int

    def __len__(self) -> int:
        return len(self.seqs)

    def part(self, start: int) -> "History":
        """Those from the start-th on."""
        return History(self.seqs[start:], self.boundaries[start:], self.rows[start:], self.obs_size)

    def inputs(self) -> Iterator[tuple[int, int, Arrays]]:
        """Sequence number, boundary and the graph's inputs (1, ...) of each transition."""
        o, end = self.obs_size, self.rows.shape[1]
        for i, seq in enumerate(self.seqs):
            row = self.rows[i : i + 1]
            yield (
                int(seq),
                int(self.boundaries[i]),
                {
                    "obs": row[:, :o],
                    "prev_action": row[:, o : end - 2],
                    "prev_reward": row[:, end - 2 : end - 1],
                    "prev_done": row[:, end - 1 :],
                },
            )
