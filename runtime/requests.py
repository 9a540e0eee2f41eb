"""Control requests: what an operator or a driver may ask, checked at the door.

A request is JSON, ``{"version": 1, "op": "swap", ...}``; docs/protocol.md lists them.
"""

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runtime.errors import UnknownName
from runtime.json_text import count_values
from runtime.messages import VERSION, Code
from runtime.swap import Migration

MAX_SESSION_ID = 2**53 - 1
"""Larger integers do not survive JSON readers that use doubles."""
MAX_VALUES = 4096
"""JSON values of a request: a snapshot is one, and options are few."""
SessionId = Annotated[int, Field(ge=1, le=MAX_SESSION_ID)]
Reference = Annotated[str, Field(max_length=120)]
"""A policy; anything longer is none, and would be told in the log."""
Ticks = Annotated[int, Field(ge=0, le=1_000_000)]


class Refusal(Exception):
    """A request that cannot be granted."""

    def __init__(self, code: Code, sentence: str, expected: str = "", found: str = ""):
        super().__init__(sentence)
        self.record = {
            "code": code.name,
            "sentence": sentence,
            "expected": expected,
            "found": found,
        }


class Request(BaseModel):
    """What every request has."""

    model_config = ConfigDict(extra="forbid")
    version: Literal[1]


class OfSession(Request):
    """About one session."""

    session: SessionId


class OfSessions(Request):
    """About one session, or all."""

    session: SessionId | None = None


class Open(Request):
    """Open a session, or come back to it: the same id goes on where it was."""

    op: Literal["open"]
    policy: Reference | None = None
    session: SessionId | None = None
    sends_reward: bool = True
    options: dict[str, float] = {}


class Close(OfSession):
    """Forget a session."""

    op: Literal["close"]


class Reset(OfSession):
    """Put a session's memory back to the prior."""

    op: Literal["reset"]


class Freeze(OfSessions):
    """Stop the memory from changing, or let it change again."""

    op: Literal["freeze"]
    frozen: bool = True


class Stop(OfSessions):
    """Answer by the fallback action until re-armed."""

    op: Literal["stop"]


class Rearm(OfSessions):
    """End a stop."""

    op: Literal["rearm"]


class Options(OfSession):
    """Set options that the policy declares."""

    op: Literal["options"]
    values: dict[str, float]


class Snapshot(OfSession):
    """Give a session's adaptation as a file's content."""

    op: Literal["snapshot"]


class Restore(OfSession):
    """Go on from a snapshot, or from the last good memory."""

    op: Literal["restore"]
    snapshot: str | None = Field(default=None, description="Base64.")
    last_good: bool = False


class Policies(Request):
    """List the bundles on disk."""

    op: Literal["policies"]


class Manifest(Request):
    """Give a bundle's manifest."""

    op: Literal["manifest"]
    policy: Reference


class Load(Request):
    """Verify a bundle and keep it in memory."""

    op: Literal["load"]
    policy: Reference
    allow_downgrade: bool = False
    """Let it be used though it was signed before others of its name that have been in use."""


class Swap(OfSessions):
    """Change the policy of one session, or of all."""

    op: Literal["swap"]
    policy: Reference
    migration: Migration = "auto"
    blend: Ticks | None = None


class Shadow(OfSessions):
    """Let a policy run along, its actions compared and not sent; none ends it."""

    op: Literal["shadow"]
    policy: Reference | None


class Promote(OfSessions):
    """Let the shadow's candidate take over."""

    op: Literal["promote"]
    blend: Ticks | None = None


class Rollback(OfSessions):
    """Go back to the policy before the last swap, in one session or in all."""

    op: Literal["rollback"]


class Release(Request):
    """End a policy's quarantine."""

    op: Literal["release"]
    policy: Reference


class Status(OfSessions):
    """What the daemon and its sessions are doing; of many sessions, a page at a time."""

    op: Literal["status"]
    after: Annotated[int, Field(ge=0, le=MAX_SESSION_ID)] = 0
    count: Annotated[int, Field(ge=1)] | None = None
    """Tell of so many sessions, those of the lowest ids above `after`; None: of all."""


class Shutdown(Request):
    """Stop the daemon in order."""

    op: Literal["shutdown"]


AnyRequest = (
    Open | Close | Reset | Freeze | Stop | Rearm | Options | Snapshot | Restore | Policies
    | Manifest | Load | Swap | Shadow | Promote | Rollback | Release | Status | Shutdown
)  # fmt: skip
REQUESTS = get_args(AnyRequest)
_PARSER: TypeAdapter[Any] = TypeAdapter(Annotated[AnyRequest, Field(discriminator="op")])


def parse_request(request: bytes) -> Any:
    """The request that some bytes are.

    Raises:
        Refusal: they are none.
    """
    found = count_values(request)
    if found > MAX_VALUES:
        sentence = f"the request has {found} values, at most {MAX_VALUES} may be"
        raise Refusal(Code.INVALID_REQUEST, sentence)
    try:
        raw = json.loads(request)
    except (ValueError, RecursionError):
        raise Refusal(Code.INVALID_REQUEST, "the request is not JSON") from None
    if isinstance(raw, dict) and raw.get("version") != VERSION:
        found = str(raw.get("version"))[:20]
        raise Refusal(
            Code.WRONG_VERSION,
            f"the request's version is {found!r}: this side speaks {VERSION}",
            expected=str(VERSION),
            found=found,
        )
    if isinstance(raw, dict):
        known = [_op(model) for model in REQUESTS]
        if raw.get("op") not in known:
            error = UnknownName("operation", str(raw.get("op"))[:60], known)
            raise Refusal(Code.INVALID_REQUEST, str(error), ", ".join(known))
    try:
        return _PARSER.validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the request"
        raise Refusal(Code.INVALID_REQUEST, f"{place}: {first['msg']}") from None


def _op(model: type[Request]) -> str:
    return model.model_fields["op"].annotation.__args__[0]  # type: ignore[union-attr]
