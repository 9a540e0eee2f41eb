"""Who is let in: the answers to libzmq's questions (ZAP, rfc.zeromq.org/spec/27).

libzmq asks once per connection, after the client has proved that it has the secret of the
key that it shows, and refuses whatever is not answered by 200. The user id that it gets
here comes with each message of the connection.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from zmq.utils import z85

ADDRESS = "inproc://zeromq.zap.01"
DOMAINS = {f"adaptd-{plane}".encode(): plane for plane in ("data", "control", "tap", "stream")}
"""Planes by the domain that their sockets name; a question about another domain is refused."""
_VERSION, _MECHANISM = b"1.0", b"CURVE"
_LENGTH = 7


class Verdict(NamedTuple):
    """An answer, and what it was about."""

    reply: tuple[bytes, ...]
    refused: str
    """Why; empty for who is let in."""
    plane: str = ""
    address: str = ""
    key: str = ""


def authorise(question: Sequence[bytes], why_not: Callable[[str], str]) -> Verdict:
    """Answer one question. Never raises, whatever it is.

    Args:
        question: version, request id, domain, address, routing id, mechanism, public key.
        why_not: why a key is not let in; empty for one that is.
    """
    asked = question[1] if len(question) > 1 else b""
    if len(question) != _LENGTH or question[0] != _VERSION:
        return _refused(asked, "malformed")
    _, _, domain, address, _, mechanism, raw = question
    plane = DOMAINS.get(domain, "")
    if not plane or mechanism != _MECHANISM or len(raw) != 32:
        return _refused(asked, "malformed", plane)
    key = z85.encode(raw).decode()
    reason = why_not(key)
    if reason:
        return _refused(asked, reason, plane, address.decode(errors="replace"), key)
    reply = (_VERSION, asked, b"200", b"", key.encode(), b"")
    return Verdict(reply, "", plane, address.decode(errors="replace"), key)


def _refused(
    asked: bytes, reason: str, plane: str = "", address: str = "", key: str = ""
) -> Verdict:
    return Verdict((_VERSION, asked, b"400", b"", b"", b""), reason, plane, address, key)
