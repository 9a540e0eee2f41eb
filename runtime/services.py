"""What control requests work on: the bundles, the sessions, the state folder."""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from runtime.access.access import Access
from runtime.config import ServeConfig
from runtime.errors import InvalidBundle, UnknownName
from runtime.loop import Loop
from runtime.messages import Code
from runtime.quarantine import Quarantine
from runtime.requests import Refusal
from runtime.sessions import Session
from runtime.state import Served, StateFolder
from runtime.store import Store
from runtime.swap import InLoop

log = structlog.get_logger()


@dataclass
class Services:
    """Everything that requests need of one daemon."""

    config: ServeConfig
    store: Store
    loop: Loop
    state: StateFolder
    quarantine: Quarantine
    in_loop: InLoop
    stop: Callable[[], None]
    """Asks the daemon to stop."""
    dropped: Callable[[], int]
    """How many messages were not answered at all."""
    access: Access | None = None
    """Who may do what; None where nobody is asked."""
    default_policy: str | None = None
    """For sessions that name none."""
    realtime: dict[str, str] = field(default_factory=dict)
    refused_requests: int = 0

    def served(self, reference: str) -> Served:
        """A policy that may be used, loaded and with its slab.

        Raises:
            Refusal: it does not exist, is broken, or is in quarantine.
        """
        try:
            policy = self.store.load(reference)
        except UnknownName as error:
            known = ", ".join(self.store.references())
            raise Refusal(Code.UNKNOWN_POLICY, str(error), known, reference) from None
        except InvalidBundle as error:
            log.warning("bundle_refusal", policy=reference, reason=str(error))
            raise Refusal(Code.INVALID_BUNDLE, str(error)) from None
        why = self.quarantine.why(policy.label)
        if why is not None:
            raise Refusal(
                Code.QUARANTINED,
                f"{policy.label} is in quarantine, it was sent back twice: {why}; "
                f"`release` lets it be tried again",
            )
        return self.state.serve(policy)

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
