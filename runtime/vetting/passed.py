"""Bundles that have been tried on this machine and passed, so that a restart is quick."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime
import structlog

log = structlog.get_logger()

MOST = 1000
VERSION = 1
"""Raised when more is looked at: what passed before has to pass again."""


@dataclass
class Passed:
    """Digests of manifests, kept in a small JSON file. The manifest has the files' hashes."""

    path: Path
    _digests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            found = json.loads(self.path.read_bytes())
            self._digests = [each for each in found if isinstance(each, str)]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError) as error:  # then all are tried anew
            log.warning("passed_fault", path=str(self.path), reason=str(error))

    def has(self, manifest: bytes) -> bool:
        """Whether a bundle has passed, with this ONNX Runtime."""
        return _digest(manifest) in self._digests

    def add(self, manifest: bytes) -> None:
        """A bundle has passed."""
        self._digests = [*self._digests, _digest(manifest)][-MOST:]
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            partial.write_text(json.dumps(self._digests))
            os.replace(partial, self.path)
        except OSError as error:
            log.warning("passed_fault", path=str(self.path), reason=str(error))


def _digest(manifest: bytes) -> str:
    tried_with = f"{VERSION} {onnxruntime.__version__} ".encode()
    return hashlib.sha256(tried_with + manifest).hexdigest()
