"""May an observation be acted on: its age, how often they come, what the sender says, is it stuck.

Four separate tests, since they fail apart: a queue makes observations old, a dying link
makes them rare, a driver knows that a sensor is off, and a hung driver sends the same
numbers for ever.
"""

from dataclasses import dataclass
from typing import NamedTuple

from runtime.messages import Limit

SAME_CLOCK_NS = 60_000_000_000
"""A first observation that seems no older than this was stamped by this machine's clock."""
DRIFT_SHIFT = 12
"""Clocks may drift apart by 1 in 2^12 without an observation seeming old."""
RATE_WINDOW = 16
"""Ticks over which the rate is taken."""
_STALE, _SLOW, _INVALID, _STUCK = (
    int(x) for x in (Limit.STALE, Limit.SLOW, Limit.INVALID, Limit.STUCK)
)
UNUSABLE = _INVALID | _STUCK
"""Limits of an observation that tells nothing: no step is made."""


class WatchLimits(NamedTuple):
    """What the tests allow; 0 switches a test off."""

    max_age_ns: int = 1_000_000_000
    min_rate_hz: float = 0.0
    stuck_ticks: int = 0


@dataclass
class Watch:
    """Follows the observations of one session."""

    limits: WatchLimits
    _offset_ns: int | None = None
    """Receiver's clock minus sender's, of the quickest delivery."""
    _sent_ns: int = 0
    _same: int = 0
    _last: bytes = b""
    _window: int = 0
    _window_ns: int = 0
    _slow: bool = False

    def look(self, sent_ns: int, received_ns: int, obs: bytes, invalid: bool) -> int:
        """The tests that an observation fails.

        Args:
            sent_ns: the sender's monotonic clock; 0 if it has none, which passes.
            received_ns: this machine's, when it is looked at.
            obs: its bytes.
            invalid: the sender does not trust it.

        Returns:
            Of `Limit`: STALE, SLOW, INVALID, STUCK; 0 if it may be acted on.
        """
        limits, failed = self.limits, _INVALID if invalid else 0
        if limits.max_age_ns and sent_ns and self._age_ns(sent_ns, received_ns) > limits.max_age_ns:
            failed |= _STALE
        if limits.stuck_ticks:
            self._same = self._same + 1 if obs == self._last else 0
            self._last = obs
            failed |= _STUCK if self._same >= limits.stuck_ticks else 0
        if limits.min_rate_hz and self._is_slow(received_ns):
            failed |= _SLOW
        return failed

    def _age_ns(self, sent_ns: int, received_ns: int) -> int:
        """How much later than the quickest one this observation is.

        The two clocks need not agree. A sender's clock that goes backwards is a new clock.
        """
        lag = received_ns - sent_ns
        if self._offset_ns is None:
            self._offset_ns = 0 if 0 <= lag < SAME_CLOCK_NS else lag
        elif sent_ns < self._sent_ns or lag < self._offset_ns:
            self._offset_ns = lag
        else:
            self._offset_ns += min((sent_ns - self._sent_ns) >> DRIFT_SHIFT, lag - self._offset_ns)
        self._sent_ns = sent_ns
        return lag - self._offset_ns

    def _is_slow(self, received_ns: int) -> bool:
        if self._window == 0:
            self._window_ns = received_ns
        self._window += 1
        if self._window > RATE_WINDOW:
            rate = RATE_WINDOW / max(received_ns - self._window_ns, 1) * 1e9
            self._slow = rate < self.limits.min_rate_hz
            self._window, self._window_ns = 1, received_ns
        return self._slow
