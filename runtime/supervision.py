"""What the loop proves and tells to a service manager, which restarts a daemon that is stuck.

A sign of life is sent from the loop's own thread, after it has looked for requests and a
canary, one run of a policy that is being served, has finished. A timer could not know
either: its thread goes on while the loop hangs in a graph that never ends.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np
import structlog

from runtime.history import Arrays
from runtime.notify import Notifier
from runtime.policy import Policy
from runtime.registry import Registry
from runtime.spec import STEP_INPUTS

log = structlog.get_logger()

SIGNS = 3
"""Signs of life within the time after which one is missed."""
NAMED = 3
"""Policies that the status names; the others are counted."""


class Canary:
    """One run of a policy from its prior, of which nothing is kept."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._inputs: Arrays = {}
        self._carry: Arrays = {}

    def run(self, policy: Policy) -> bool:
        """Whether a run finished; why one did not is told."""
        if policy is not self._policy:
            shapes = policy.manifest.input_shapes()
            used = {n: shape for n, shape in shapes.items() if n in STEP_INPUTS}
            used.setdefault("obs", [policy.manifest.obs_size])
            self._inputs = {n: np.zeros((1, *shape), np.float32) for n, shape in used.items()}
            self._carry, self._policy = policy.initial_carry(), policy
        try:
            policy.step(self._inputs, self._carry)
        except Exception:
            log.exception("canary_failure", policy=policy.label)
            return False
        return True


class Supervision:
    """The loop's reports to the service manager. Only the loop's thread uses it."""

    def __init__(
        self, notifier: Notifier, registry: Registry, default: Callable[[], Policy | None]
    ):
        """
        Args:
            notifier: to whom.
            registry: of the sessions.
            default: the policy of sessions that name none, if it is in memory.
        """
        self._notifier, self._registry, self._default = notifier, registry, default
        self._canary = Canary()
        self.trouble = ""
        """Why the last reload changed nothing; empty where it did."""

    def period_s(self, longest_s: float) -> float:
        """Time between two reports: the one given, or less where a watchdog asks for it."""
        watchdog_s = self._notifier.watchdog_s
        return longest_s if watchdog_s is None else min(longest_s, watchdog_s / SIGNS)

    def ready(self) -> None:
        """Tell that it serves; for the start, since it may wait."""
        if self._notifier:
            self._notifier.ready(self.sentence())

    def report(self) -> None:
        """Tell how it is, and that it lives if a canary has run."""
        if not self._notifier:
            return
        self._notifier.status(self.sentence())
        if self._notifier.watchdog_s is not None:
            policy = self._served()
            if policy is None or self._canary.run(policy):
                self._notifier.alive()

    def sentence(self) -> str:
        """How it is, in one line."""
        sentence = summary(self._registry)
        return f"{sentence}; not reloaded: {self.trouble}" if self.trouble else sentence

    def _served(self) -> Policy | None:
        """The policy to try: of the session that has been at work longest, or the default one.

        None where no session is and none was named: then there is no policy to get stuck in.
        """
        session = next(iter(self._registry.live.values()), None)
        return session.policy if session is not None else self._default()


def summary(registry: Registry) -> str:
    """One line: how many sessions there are, and under which policies."""
    counts = Counter(session.policy.label for session in registry.live.values())
    counts.update(sleeping.stepper.policy.label for sleeping in registry.asleep.values())
    most = [f"{label}: {count}" for label, count in counts.most_common(NAMED)]
    if len(counts) > NAMED:
        most.append(f"{len(counts) - NAMED} other policies")
    sessions = f"{len(registry.live)} sessions at work, {len(registry.asleep)} asleep"
    return f"{sessions} ({', '.join(most)})" if most else sessions
