"""What control requests work on: the bundles, the sessions, the state folder."""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from runtime.access.access import Access
from runtime.config import ServeConfig
from runtime.errors import Downgrade, InvalidBundle, UnknownName
from runtime.loop import Loop
from runtime.messages import Code
from runtime.policy import Policy
from runtime.quarantine import Quarantine
from runtime.requests import Refusal
from runtime.sessions import Session
from runtime.signing.counters import Counters
from runtime.state import Served, StateFolder
from runtime.store import Store
from runtime.swap import InLoop

log = structlog.get_logger()

_CODES = {
    "invalid": Code.INVALID_BUNDLE,
    "unsafe": Code.UNSAFE_BUNDLE,
    "untrusted": Code.UNTRUSTED_BUNDLE,
    "downgrade": Code.DOWNGRADE,
}


@dataclass
class Services:
    """Everything that requests need of one daemon."""

    config: ServeConfig
    store: Store
    loop: Loop
    state: StateFolder
    quarantine: Quarantine
    counters: Counters
    in_loop: InLoop
    stop: Callable[[], None]
    """Asks the daemon to stop."""
    dropped: Callable[[], int]
    """How many messages were not answered at all."""
    lost_lessons: dict[str, int] = field(default_factory=dict)
    """Lessons that came to nothing, by why."""
    access: Access | None = None
    """Who may do what; None where nobody is asked."""
    default_policy: str | None = None
    """For sessions that name none."""
    realtime: dict[str, str] = field(default_factory=dict)
    refused_requests: int = 0

    def served(self, reference: str, returning: bool = False) -> Served:
        """A policy that may be used, loaded and with its slab.

        Args:
            reference: ``name`` or ``name@version``.
            returning: whether the session that wants it has had it before: then it may be one
                that was signed before others in use.

        Raises:
            Refusal: it does not exist, is refused, or is in quarantine.
        """
        policy = self.loaded(reference)
        if not returning:
            self._check_counter(policy)
        why = self.quarantine.why(policy.label)
        if why is not None:
            raise Refusal(
                Code.QUARANTINED,
                f"{policy.label} is in quarantine, it was sent back twice: {why}; "
                f"`release` lets it be tried again",
            )
        return self.state.serve(policy)

    def loaded(self, reference: str) -> Policy:
        """A policy in memory, whether it may be used or not.

        Raises:
            Refusal: it does not exist or is refused.
        """
        try:
            return self.store.load(reference)
        except UnknownName as error:
            known = ", ".join(self.store.references())
            raise Refusal(Code.UNKNOWN_POLICY, str(error), known, reference) from None
        except InvalidBundle as error:
            raise _refused_bundle(reference, error) from None

    def _check_counter(self, policy: Policy) -> None:
        seal = self.store.seals[policy.label]
        try:
            self.counters.check(policy.label, policy.manifest.name, seal)
        except Downgrade as error:
            self.store.refused[error.kind] += 1
            raise _refused_bundle(policy.label, error) from None

    def note_use(self, policy: Policy) -> None:
        """A policy has got a session, or takes one over: those signed before it are refused."""
        self.counters.note(self.store.seals[policy.label])

    def session(self, session_id: int) -> Session:
        """A session, woken if it is asleep.

        Raises:
            Refusal: there is none.
        """
        session = self.in_loop(lambda: self.loop.registry.find(session_id))
        if session is None:
            raise Refusal(Code.UNKNOWN_SESSION, f"there is no session {session_id}")
        return session

    def sessions(self, session_id: int | None) -> list[Session]:
        """One session, or all of them; those asleep are woken."""
        if session_id is not None:
            return [self.session(session_id)]
        registry = self.loop.registry
        found = self.in_loop(lambda: [registry.find(i) for i in registry.ids()])
        return [session for session in found if session is not None]


def _refused_bundle(reference: str, error: InvalidBundle) -> Refusal:
    """A bundle's refusal, once it is in the log."""
    log.warning("bundle_refusal", policy=reference, kind=error.kind, reason=str(error))
    return Refusal(_CODES[error.kind], str(error))
