"""The wire: one frame each way, a fixed header and a raw float32 payload.

docs/protocol.md has the byte table and test vectors. All integers and floats are
little-endian. This file needs the standard library alone, since robots import it.

    offset  size  field
    0       4     magic, "ADPT"
    4       1     version
    5       1     kind
    6       2     flags
    8       8     session
    16      8     seq
    24      8     sender's monotonic time [ns]
    32      4     previous reward (observation), float32
    36      4     policy generation (action)
    40      2     length of the first vector, in floats (in an error: of the text, in bytes)
    42      2     length of the second vector, in floats
    44      2     status code
    46      2     limits that acted (action)
    48      4     queue time [ns]
    52      4     inference time [ns]
    56      1     adaptation status (action)
    57      7     reserved, zero
"""

import os
import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from runtime.errors import InvalidConfig

MAGIC = b"ADPT"
VERSION = 1
HEADER_SIZE = 64
MAX_FLOATS = 4096
"""Longest vector a message may carry."""
MAX_FRAME = HEADER_SIZE + 2 * 4 * MAX_FLOATS

HEADER = struct.Struct("<4sBBHQQQfIHHHHIIB7x")
"""magic, version, then the fields of `Header`."""
assert HEADER.size == HEADER_SIZE


class Kind(IntEnum):
    """What a message is."""

    OBSERVATION = 1
    ACTION = 2
    ERROR = 3


class ObservationFlag(IntFlag):
    """What a sender says of an observation."""

    EPISODE_START = 1  # the previous episode ended before this observation
    NEW_TASK = 2  # the task is a new one: forget
    APPLIED_ACTION = 4  # the second vector is the action that the robot really did
    INVALID = 8  # the sender itself does not trust this observation


class ActionFlag(IntFlag):
    """What the daemon says of an action."""

    REPEATED = 1  # this seq had been answered before: the same answer again
    GAP = 2  # sequence numbers are missing before this one
    SWAPPED = 4  # the first action of another policy
    FRESH = 8  # this step began from the prior
    SUPERSEDED = 16  # a newer observation of this session was waiting already
    FROZEN = 32  # adaptation is frozen: the memory did not change


class Limit(IntFlag):
    """Which limits changed the requested action into the one sent."""

    BOUNDS = 1
    RATE = 2
    NOT_FINITE = 4  # the policy's output was; the fallback action was sent
    BLEND = 8  # after a swap: on the way from the old policy's action to the new one's
    STALE = 16  # the observation was too old; the fallback action was sent
    SLOW = 32  # observations come too seldom; the fallback action was sent
    INVALID = 64  # the sender declared the observation invalid; the fallback action was sent
    STUCK = 128  # the observation has not changed for too long; the fallback action was sent
    STOPPED = 256  # the session is stopped until it is re-armed; the fallback action was sent


class Adaptation(IntEnum):
    """How adapted a session is."""

    UNADAPTED = 0
    ADAPTING = 1
    ADAPTED = 2
    INVALID = 3


class Code(IntEnum):
    """Status codes of replies: 1-13 concern frames, 10-13 and 20 and up requests."""

    OK = 0
    MALFORMED = 1
    WRONG_VERSION = 2
    WRONG_KIND = 3
    WRONG_SIZE = 4
    UNKNOWN_SESSION = 5
    NOT_FINITE = 6
    OLD_SEQ = 7
    SEQ_TOO_FAR = 8
    TWO_WAYS = 9
    NOT_ALLOWED = 10
    NOT_YOURS = 11
    REVOKED = 12
    TOO_FAST = 13
    INVALID_REQUEST = 20
    UNKNOWN_POLICY = 21
    INVALID_BUNDLE = 22
    INCOMPATIBLE = 23
    NEEDS_REWARD = 25
    TOO_MANY_SESSIONS = 26
    NO_PREVIOUS_POLICY = 27
    INTERNAL = 28
    QUARANTINED = 29
    OTHER_POLICY = 30
    NO_CANDIDATE = 31
    NO_ROOM = 32
    UNKNOWN_OPTION = 33
    NOTHING_GOOD = 34
    UNSAFE_BUNDLE = 35
    UNTRUSTED_BUNDLE = 36
    DOWNGRADE = 37


def code_name(status: int) -> str:
    """The name of a status code; a later daemon may have more of them."""
    try:
        return Code(status).name
    except ValueError:
        return f"CODE_{status}"


_ERROR = int(Kind.ERROR)  # an operation on an enum's member takes a microsecond


class Header(NamedTuple):
    """The fixed part of every message; see the module for the bytes."""

    kind: int
    flags: int
    session: int
    seq: int
    time_ns: int
    reward: float = 0.0
    generation: int = 0
    first: int = 0
    second: int = 0
    status: int = 0
    limits: int = 0
    queue_ns: int = 0
    inference_ns: int = 0
    adaptation: int = 0
    version: int = VERSION

    def pack(self) -> bytes:
        """The header's 64 bytes."""
        return HEADER.pack(MAGIC, self.version, *self[:-1])


class FrameError(Exception):
    """A frame that is not a message; `code` says how."""

    def __init__(self, code: Code, sentence: str, session: int = 0, seq: int = 0):
        super().__init__(sentence)
        self.code, self.session, self.seq = code, session, seq


def unpack(frame: bytes) -> Header:
    """The header of a frame whose length it agrees with.

    Raises:
        FrameError: it is too short, has another magic or version, or the lengths disagree.
    """
    if len(frame) < HEADER_SIZE:
        raise FrameError(
            Code.MALFORMED, f"a frame of {len(frame)} bytes: a header takes {HEADER_SIZE}"
        )
    fields = HEADER.unpack_from(frame)
    if fields[0] != MAGIC:
        raise FrameError(Code.MALFORMED, "the frame does not begin with ADPT")
    version = fields[1]
    header = Header._make((*fields[2:], version))
    if version != VERSION:
        raise FrameError(
            Code.WRONG_VERSION,
            f"protocol version {version}: this side speaks version {VERSION}",
            header.session,
            header.seq,
        )
    in_bytes = header.first if header.kind == _ERROR else 4 * (header.first + header.second)
    if len(frame) != HEADER_SIZE + in_bytes:
        raise FrameError(
            Code.WRONG_SIZE,
            f"a payload of {len(frame) - HEADER_SIZE} bytes: the header announces {in_bytes}",
            header.session,
            header.seq,
        )
    return header


def error_frame(code: Code, sentence: str, session: int = 0, seq: int = 0) -> bytes:
    """A complete error message."""
    text = sentence.encode()[:2000]
    return Header(Kind.ERROR, 0, session, seq, 0, first=len(text), status=code).pack() + text


class Planes(NamedTuple):
    """The addresses of an endpoint."""

    data: str
    control: str
    tap: str
    stream: str


def planes(endpoint: str) -> Planes:
    """The four addresses of an endpoint.

    ``ipc://PATH`` gives PATH-data, PATH-control, PATH-tap and PATH-stream;
    ``tcp://HOST:PORT`` the ports PORT to PORT+3.

    Raises:
        InvalidConfig: the endpoint is neither.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and rest:
        return Planes(*(f"{endpoint}-{name}" for name in Planes._fields))
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isdigit() and 0 < int(port) < 65533:
        return Planes(*(f"tcp://{host}:{int(port) + i}" for i in range(4)))
    raise InvalidConfig(f"{endpoint!r} is no endpoint: expected ipc://PATH or tcp://HOST:PORT")


def default_endpoint() -> str:
    """Where the daemon serves and clients look: ADAPTD_ENDPOINT, or a folder of the user's."""
    told = os.environ.get("ADAPTD_ENDPOINT")
    if told:
        return told
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/adaptd-{os.getuid()}"
    return f"ipc://{folder}/adaptd"
