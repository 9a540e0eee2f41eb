"""Every error that adaptd raises on purpose.

    AdaptdError
    ├── UnknownName          a family, method, policy, option ... that does not exist
    ├── InvalidConfig        a configuration that cannot be run
    ├── InvalidTask          a task or task family that makes no sense
    ├── InvalidBundle        a policy bundle that is broken or disagrees with itself
    │   ├── UnsafeBundle     one that holds, or does, what a policy has no need to
    │   ├── UntrustedBundle  one without a signature, or with none that counts here
    │   └── Downgrade        one older than what has been in use
    ├── ParityError          an exported graph that does not compute what was trained
    ├── TrainingDiverged     a number that stopped being finite
    ├── InvalidRecording     a recording that cannot be read, or not for what is asked
    ├── NotSaved             a file that the disk has no room for, or refuses
    └── ProtocolError        what one side of the wire tells the other; has a code

Messages are one sentence: what was found, what was expected, what exists.
"""

import difflib
from collections.abc import Iterable


class AdaptdError(Exception):
    """Base of all errors that adaptd raises on purpose."""


class UnknownName(AdaptdError):
    """A name that does not exist, with those that do."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listing = ", ".join(known) or "none"
        super().__init__(f"there is no {kind} {name!r}.{hint} Known: {listing}.")


class InvalidConfig(AdaptdError):
    """A configuration that cannot be run."""


class InvalidTask(AdaptdError):
    """A task or task family that makes no sense."""


class InvalidBundle(AdaptdError):
    """A policy bundle that is broken or disagrees with itself."""

    kind = "invalid"
    """Under which refusals are counted."""


class UnsafeBundle(InvalidBundle):
    """A bundle that holds, or does, what a policy has no need to."""

    kind = "unsafe"


class UntrustedBundle(InvalidBundle):
    """A bundle without a signature where one must be, or with one that does not count here."""

    kind = "untrusted"


class Downgrade(InvalidBundle):
    """A bundle that was signed before one that has been in use."""

    kind = "downgrade"


BUNDLE_KINDS = tuple(e.kind for e in (InvalidBundle, UnsafeBundle, UntrustedBundle, Downgrade))


class ParityError(AdaptdError):
    """An exported graph that does not compute what was trained."""


class TrainingDiverged(AdaptdError):
    """A number in training stopped being finite."""


class InvalidRecording(AdaptdError):
    """A recording that cannot be read, or not for what is asked; says what can be done."""


class NotSaved(AdaptdError):
    """What should be kept cannot be written."""


class ProtocolError(AdaptdError):
    """A refusal that came over the wire."""

    def __init__(self, code: str, sentence: str, expected: str = "", found: str = ""):
        super().__init__(f"{sentence} [{code}]")
        self.code, self.sentence = code, sentence
        self.expected, self.found = expected, found
