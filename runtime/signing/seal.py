"""What a signature says of a bundle: a line of text that is signed with it.

    adaptd bundle	name:NAME	version:VERSION	counter:COUNTER	timestamp:SECONDS

It is minisign's trusted comment, so `minisign -V` shows and checks it too.
"""

import base64
import re
from typing import NamedTuple

from runtime.errors import UntrustedBundle

_LINE = re.compile(
    r"adaptd bundle\tname:([a-z0-9][a-z0-9_.-]{0,99})\tversion:([1-9][0-9]{0,8})"
    r"\tcounter:([1-9][0-9]{0,14})\ttimestamp:([0-9]{1,15})"
)
MAX_COUNTER = 10**15 - 1


class Seal(NamedTuple):
    """What was signed beside the manifest."""

    name: str
    version: int
    counter: int
    """Which of the policy's signatures this is: later ones have higher numbers."""
    key: str
    """Id of the key, 16 hexadecimal digits as `minisign` shows them."""

    def line(self, timestamp_s: int) -> str:
        """The text to sign; the time is for people and not looked at."""
        return (
            f"adaptd bundle\tname:{self.name}\tversion:{self.version}"
            f"\tcounter:{self.counter}\ttimestamp:{timestamp_s}"
        )


def read_seal(where: str, line: str, key: str) -> Seal:
    """The seal that a signed line is.

    Args:
        where: whose, for the error.
        line: minisign's trusted comment.
        key: id of the key that signed it.

    Raises:
        UntrustedBundle: it is none.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise UntrustedBundle(
            f"{where}: the signed comment is {line[:120]!r}, expected name, version and counter "
            f"as `adaptd sign` writes them"
        )
    return Seal(match[1], int(match[2]), int(match[3]), key)


def key_id(encoded: str | bytes) -> str:
    """The id in a key's or a signature's base64 line: bytes 2 to 9, a little-endian number."""
    return base64.b64decode(encoded)[2:10][::-1].hex().upper()
