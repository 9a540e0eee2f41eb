"""No action leaves unguarded: bounds, rate limit, and a fallback for what is not finite."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Limit
from runtime.spec import Manifest

Vector = NDArray[np.float32]
# Plain integers: an operation on an enum's member takes a microsecond.
_BOUNDS, _RATE, _NOT_FINITE = int(Limit.BOUNDS), int(Limit.RATE), int(Limit.NOT_FINITE)


@dataclass(frozen=True)
class ActionLimits:
    """A policy's limits on its action, (A,) each."""

    low: Vector
    high: Vector
    max_step: Vector | None
    """Largest change per control step; None if no element has a rate limit."""
    fallback: Vector

    @classmethod
    def of(cls, manifest: Manifest) -> "ActionLimits":
        """The limits that a manifest declares."""
        elements = manifest.action
        rates = [np.inf if e.max_rate is None else e.max_rate for e in elements]
        max_step = np.asarray(rates, np.float32) / np.float32(manifest.control_hz)
        return cls(
            low=np.asarray([e.low for e in elements], np.float32),
            high=np.asarray([e.high for e in elements], np.float32),
            max_step=max_step if np.isfinite(max_step).any() else None,
            fallback=np.asarray(manifest.fallback_action, np.float32),
        )


def all_finite(values: NDArray[np.floating[Any]]) -> bool:
    """Whether no number is NaN or infinite; a fraction of the time of `np.isfinite(x).all()`."""
    # Zero times NaN or infinity is NaN, so the dot product with zeros is 0 for finite numbers only.
    flat = values.reshape(-1)
    return float(flat.dot(_zeros(flat.size, flat.dtype.char))) == 0.0


@lru_cache(maxsize=256)
def _zeros(size: int, kind: str) -> NDArray[Any]:
    return np.zeros(size, kind)


class Guarded(NamedTuple):
    """The action that may leave, and which limits made it differ from the one requested."""

    action: Vector
    limits: int
    """Of `Limit`."""


def guard(requested: Vector, previous: Vector | None, limits: ActionLimits) -> Guarded:
    """Limit an action.

    Args:
        requested: what the policy wants, (..., A).
        previous: the action applied one control step ago, (..., A); None at the start of an
            episode, where any action is near enough.
        limits: the policy's limits.

    A requested action that is not finite is replaced by the fallback, which then still
    obeys the rate limit. Bounds go over the rate limit.
    """
    if all_finite(requested):
        return limited(requested, previous, limits)
    fallback = limited(np.broadcast_to(limits.fallback, requested.shape), previous, limits)
    return Guarded(fallback.action, fallback.limits | _NOT_FINITE)


def limited(action: Vector, previous: Vector | None, limits: ActionLimits) -> Guarded:
    """`guard` for an action that is known to be finite."""
    acted = 0
    bounded = np.minimum(np.maximum(action, limits.low), limits.high)
    if bounded.tobytes() != action.tobytes():
        acted = _BOUNDS
    if limits.max_step is None or previous is None:
        return Guarded(bounded, acted)
    # From inside the bounds: a robot may have been outside them, under another policy.
    start = np.minimum(np.maximum(previous, limits.low), limits.high)
    smooth = np.minimum(np.maximum(bounded, start - limits.max_step), start + limits.max_step)
    if smooth.tobytes() != bounded.tobytes():
        acted |= _RATE
    return Guarded(smooth, acted)


class Bounded:
    """The bounds of one policy, without a rate limit, on many finite actions at once."""

    def __init__(self, actions: Vector, limits: ActionLimits):
        """
        Args:
            actions: (n, A).
            limits: of the policy.
        """
        bounded = np.minimum(np.maximum(actions, limits.low), limits.high)
        self._asked, self._bytes = actions.tobytes(), bounded.tobytes()
        self._size = 4 * actions.shape[1]

    def row(self, i: int) -> tuple[bytes, int]:
        """The bytes of action i, and the limits that acted."""
        at, end = i * self._size, (i + 1) * self._size
        action = self._bytes[at:end]
        return action, 0 if action == self._asked[at:end] else _BOUNDS
