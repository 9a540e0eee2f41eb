"""How much of something a client may have: a token bucket."""


class TokenBucket:
    """Holds up to `burst` tokens and gets `rate_per_s` of them a second; one is taken a time."""

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

    def take(self, now_ns: int) -> bool:
        """Whether there was a token; it is gone then."""
        tokens = self._tokens + (now_ns - self._at_ns) * self._per_ns
        self._at_ns = now_ns
        if tokens > self.burst:
            tokens = self.burst
        self._tokens = tokens - 1 if tokens >= 1 else tokens
        return tokens >= 1
