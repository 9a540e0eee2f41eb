"""The highest counter that has been in use, per policy: what was signed before it is refused.

It rises when a policy takes over sessions, not when it is only loaded or runs in the
shadow, and never bars the way back: sessions that were left go on, and a rollback is an
operator's wish.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from runtime.errors import Downgrade, InvalidConfig
from runtime.in_place import put_in_place
from runtime.signing.seal import Seal

log = structlog.get_logger()

_CONTENT = TypeAdapter(dict[str, int])


@dataclass
class Counters:
    """Highest counters, kept in a small JSON file. Only the control thread touches them."""

    path: Path
    highest: dict[str, int] = field(default_factory=dict)
    """By the name of the policy."""
    enforced: bool = True
    _unsaved: bool = False

    @classmethod
    def read(cls, path: Path, enforced: bool) -> "Counters":
        """Those of a state folder.

        Args:
            path: of the file.
            enforced: whether a lower one is refused.

        Raises:
            InvalidConfig: there is a file that cannot be read. It may have been damaged on
                purpose, so an operator has to decide.
        """
        try:
            return cls(path, _CONTENT.validate_json(path.read_bytes()), enforced)
        except FileNotFoundError:
            return cls(path, enforced=enforced)
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise InvalidConfig(
                f"{path} cannot be read: {reason}. It holds the highest counters of signed "
                f"policies; to delete it lets policies in that were signed before those"
            ) from None

    def check(self, label: str, name: str, seal: Seal | None) -> None:
        """See that a policy was not signed before one of the same name that has been in use.

        Args:
            label, name: of the policy.
            seal: of its bundle; None if that is not signed.

        Raises:
            Downgrade: it was, or is not signed though that one was.
        """
        highest = self.highest.get(name)
        if highest is None or not self.enforced or (seal and seal.counter >= highest):
            return
        found = f"is signed with counter {seal.counter}" if seal else "is not signed"
        raise Downgrade(
            f"{label} {found}, and {name} with counter {highest} has been in use; "
            f"`adaptd load {label} --allow-downgrade` lets it be used"
        )

    def note(self, seal: Seal | None) -> None:
        """A policy is in use from now on."""
        if seal is not None and seal.counter > self.highest.get(seal.name, 0):
            self._put({**self.highest, seal.name: seal.counter})
        elif self._unsaved:
            self._save()

    def allow(self, label: str, name: str, seal: Seal | None) -> None:
        """An operator lets an older policy be used: what was signed after it stays allowed."""
        highest = self.highest.get(name)
        if highest is None or (seal and seal.counter >= highest):
            return
        log.warning(
            "downgrade", policy=label, counter=seal.counter if seal else None, highest=highest
        )
        rest = {n: c for n, c in self.highest.items() if n != name}
        self._put(rest | ({name: seal.counter} if seal else {}))

    def _put(self, highest: dict[str, int]) -> None:
        self.highest, self._unsaved = highest, True
        self._save()

    def _save(self) -> None:
        """Write them through to the disk; what cannot be written is tried again."""
        partial = self.path.with_suffix(".partial")
        try:
            with open(partial, "wb") as file:
                file.write(_CONTENT.dump_json(self.highest))
                file.flush()
                os.fsync(file.fileno())
            put_in_place(partial, self.path)
            self._unsaved = False
        except OSError as error:
            log.warning("counters_fault", path=str(self.path), reason=error.strerror)
