"""How much of something a client may have: a token bucket."""


class TokenBucket:
    """Holds up to `burst` tokens and gets `rate_per_s` of them a second."""

    def __init__(self, rate_per_s: float, burst: float, now_ns: int):
        """
        Args:
            rate_per_s: tokens per second.
            burst: most tokens, and those at the start.
            now_ns: monotonic clock.
        """
        self.rate_per_s, self.burst = rate_per_s, burst
        self._per_ns = rate_per_s * 1e-9
        self._tokens, self._at_ns = burst, now_ns

    def take(self, now_ns: int, count: float = 1.0) -> bool:
        """Whether there were so many tokens, at most `burst`; they are gone then."""
        tokens = self._tokens + (now_ns - self._at_ns) * self._per_ns
        self._at_ns = now_ns
        if tokens > self.burst:
            tokens = self.burst
        enough = tokens >= count
        self._tokens = tokens - count if enough else tokens
        return enough
