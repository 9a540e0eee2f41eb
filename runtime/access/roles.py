"""Which roles may send which message; docs/keys.md has the same table, and a test holds it."""

from runtime import requests
from runtime.access.allowlist import Role

DRIVE, OPERATE, OBSERVE = Role.DRIVE, Role.OPERATE, Role.OBSERVE
FRAMES = frozenset({DRIVE})
"""Observations, on the data plane and the stream plane; of the sender's own sessions."""
TAP = frozenset({DRIVE, OBSERVE})
"""Subscriptions; with `drive` alone, to single sessions of the sender's own."""
REQUESTS: dict[type[requests.Request], frozenset[Role]] = {
    requests.Open: frozenset({DRIVE}),
    requests.Close: frozenset({DRIVE, OPERATE}),
    requests.Reset: frozenset({DRIVE, OPERATE}),
    requests.Freeze: frozenset({DRIVE, OPERATE}),
    requests.Stop: frozenset({DRIVE, OPERATE}),
    requests.Rearm: frozenset({OPERATE}),
    requests.Options: frozenset({DRIVE, OPERATE}),
    requests.Snapshot: frozenset({DRIVE, OPERATE, OBSERVE}),
    requests.Restore: frozenset({DRIVE, OPERATE}),
    requests.Policies: frozenset({DRIVE, OPERATE, OBSERVE}),
    requests.Manifest: frozenset({DRIVE, OPERATE, OBSERVE}),
    requests.Load: frozenset({OPERATE}),
    requests.Swap: frozenset({OPERATE}),
    requests.Shadow: frozenset({OPERATE}),
    requests.Promote: frozenset({OPERATE}),
    requests.Rollback: frozenset({OPERATE}),
    requests.Release: frozenset({OPERATE}),
    requests.Status: frozenset({DRIVE, OPERATE, OBSERVE}),
    requests.Shutdown: frozenset({OPERATE}),
}
"""A request about sessions that is allowed for `drive` alone must name one of the sender's own."""
