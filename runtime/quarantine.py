"""Policies that were sent back twice are not tried again until an operator says so."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger()

STRIKES = 2


@dataclass
class Quarantine:
    """Automatic roll-backs per policy, kept in a small JSON file."""

    path: Path
    reasons: dict[str, list[str]] = field(default_factory=dict)
    """Why each policy was sent back, by ``name@version``."""
    _unsaved: bool = False

    def __post_init__(self) -> None:
        try:
            self.reasons = json.loads(self.path.read_text())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("quarantine_fault", path=str(self.path), reason=str(error))

    def strike(self, policy: str, reason: str) -> None:
        """A policy was sent back. Quick: `save` writes it."""
        self.reasons = {**self.reasons, policy: [*self.reasons.get(policy, []), reason]}
        self._unsaved = True

    def why(self, policy: str) -> str | None:
        """Why a policy must not be used; None if it may."""
        strikes = self.reasons.get(policy, [])
        return strikes[-1] if len(strikes) >= STRIKES else None

    def names(self) -> dict[str, str]:
        """The policies in quarantine, with the last reason."""
        return {p: strikes[-1] for p, strikes in self.reasons.items() if len(strikes) >= STRIKES}

    def release(self, policy: str) -> None:
        """Forget a policy's strikes."""
        self.reasons = {p: strikes for p, strikes in self.reasons.items() if p != policy}
        self._unsaved = True
        self.save()

    def save(self) -> None:
        """Write what is new; what cannot be written is tried again by the next one."""
        if not self._unsaved:
            return
        self._unsaved = False
        partial = self.path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(self.reasons, indent=1))
            os.replace(partial, self.path)
        except OSError as error:
            self._unsaved = True
            log.warning("quarantine_fault", path=str(self.path), reason=str(error))
