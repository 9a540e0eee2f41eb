"""What happens in the demo, and what is kept of it, a row per control step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.spec import MANIFEST, BeliefSpec, parse_manifest
from sim.change import Change
from sim.robot import Moment

FAMILY = "halfcheetah-vel"
FIRST_TARGET, SECOND_TARGET, THIRD_TARGET = 2.0, 0.8, 2.6  # m/s
EPISODE = 200
CHANGES = tuple(
    Change((at, at), {"target_velocity": target})
    for at, target in ((2 * EPISODE + 100, SECOND_TARGET), (5 * EPISODE + 60, THIRD_TARGET))
)
SWAP_AT, BACK_AT = 4 * EPISODE + 90, 6 * EPISODE + 90


@dataclass(frozen=True)
class Story:
    """Which policies take over, and when."""

    swaps: tuple[tuple[int, str], ...]
    """The step at which an operator asks, and for which policy."""
    steps: int

    @classmethod
    def of(cls, policy: str, swap_to: str, back: bool) -> "Story":
        """Another policy takes over; where wanted, the first one comes back."""
        there = (SWAP_AT, swap_to)
        if not back:
            return cls((there,), 6 * EPISODE)
        return cls((there, (BACK_AT, policy)), 8 * EPISODE)


@dataclass(frozen=True)
class Recording:
    """What happened."""

    moments: list[Moment]
    beliefs: dict[int, NDArray[np.float32]]
    """Belief outputs by seq, one after the other, from the tap."""
    swaps: list[dict[str, Any]]
    """The daemon's reports."""
    believers: dict[str, Sequence[BeliefSpec]]
    """What each policy's belief outputs mean, by its label."""

    def column(self, name: str) -> NDArray[np.float64]:
        """One field of every moment."""
        return np.array([getattr(m, name) for m in self.moments], np.float64)

    @property
    def swapped_at(self) -> list[int]:
        """The first step that each new policy acted in."""
        return [swap["from_seq"] for swap in self.swaps]

    @property
    def changed_at(self) -> list[int]:
        """The steps before which the hidden target changed."""
        return np.flatnonzero(self.column("changed")).tolist()

    @property
    def target(self) -> NDArray[np.float64]:
        """The hidden target velocity [m/s]."""
        return np.array([m.task["target_velocity"] for m in self.moments])

    def acting(self, step: int) -> str:
        """The label of the policy that acted in a step."""
        taken = [swap["new"] for swap in self.swaps if swap["from_seq"] <= step]
        return taken[-1] if taken else self.swaps[0]["old"]

    def believed(self, of: Literal["task", "latent"]) -> NDArray[np.float64]:
        """Means and deviations of every step, (2, steps, D); nan where the policy has no such."""
        rows = [self._believed(t, m.seq, of) for t, m in enumerate(self.moments)]
        size = max((row.shape[1] for row in rows), default=0)
        found = np.full((2, len(rows), size), np.nan)
        for t, row in enumerate(rows):
            found[:, t, : row.shape[1]] = row
        return found

    def _believed(self, step: int, seq: int, of: str) -> NDArray[np.float64]:
        """(2, D) of one step; D is 0 where nothing is known."""
        parts: dict[str, NDArray[np.float64]] = {}
        at, told = 0, self.beliefs.get(seq, np.empty(0))
        for spec in self.believers[self.acting(step)]:
            size = int(np.prod(spec.shape))
            if spec.of == of and at + size <= len(told):
                parts[spec.role] = told[at : at + size].astype(np.float64)
            at += size
        if len(parts) < 2:
            return np.empty((2, 0))
        return np.stack([parts["mean"], np.sqrt(parts["variance"])])


def read_believers(models: Path, labels: Sequence[str]) -> dict[str, Sequence[BeliefSpec]]:
    """What the belief outputs of bundles mean, by their labels, ``name@version``."""
    found = {}
    for label in labels:
        path = models / label.replace("@", "/") / MANIFEST
        found[label] = parse_manifest(path.read_bytes(), str(path)).belief
    return found
