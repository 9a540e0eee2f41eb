"""Message by message: may this client do that?

The allow-list that counts is a table that is replaced as a whole, so a look-up needs no
lock and a revocation holds from the next message on.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from runtime import requests
from runtime.access.allowlist import AllowList, Client, Role
from runtime.access.limits import TokenBucket
from runtime.access.roles import FRAMES, REQUESTS, TAP
from runtime.config import KeysConfig
from runtime.messages import Code, FrameError
from runtime.registry import Registry
from runtime.requests import Refusal, parse_request

log = structlog.get_logger()
InLoop = Callable[[Callable[[], Any]], Any]
_REVOKED = "this key has been revoked"
MOST_TOPICS = 4096
"""Of the tap, that one connection may see one by one; each takes memory."""
BYTES_PER_TOKEN = 1 << 16
"""A request counts as one, and as one more for each that it has of these."""
_NOT_OURS = (Code.INVALID_REQUEST, Code.WRONG_VERSION)
"""Refusals that have nothing to do with who asks."""


@dataclass(frozen=True)
class Member:
    """A client on the list, and what is left of its share."""

    name: str
    client: Client
    drives: bool
    observes: bool
    owned: frozenset[str]
    """The keys whose sessions are its own."""
    most_sessions: int
    frames: TokenBucket
    """Only the loop's thread takes from it."""
    requests: TokenBucket
    """Only the control thread does."""


class Gate:
    """Who may do what in one daemon."""

    def __init__(self, limits: KeysConfig, registry: Registry, clock: Callable[[], int]):
        """
        Args:
            limits: of a client whose entry has none of its own.
            registry: of the sessions; only the loop's thread looks at it.
            clock: monotonic [ns].
        """
        self.limits, self._registry, self._clock = limits, registry, clock
        self._members: dict[str, Member] = {}
        self._gone: set[str] = set()
        self.before_new: Callable[[int, Member], None] = lambda session, opener: None
        """Called before a session of a chosen id is opened."""
        self.refused: Counter[tuple[str, str]] = Counter()
        """Messages, by plane and code."""

    def __len__(self) -> int:
        """How many clients there are."""
        return len({member.name for member in self._members.values()})

    def put(self, clients: AllowList) -> tuple[set[str], set[str]]:
        """Let another list count.

        Returns:
            Keys that are not let in any more, and keys that may do less than before.
        """
        before = self._members
        now_ns = self._clock()
        by_name = {member.name: member for member in before.values()}
        members: dict[str, Member] = {}
        for name, client in clients.items():
            member = self._member(name, client, by_name.get(name), now_ns)
            members |= dict.fromkeys(client.keys, member)
        gone = set(before) - set(members)
        former = {key for client in clients.values() for key in client.former}
        self._gone = (self._gone | gone | former) - set(members)
        self._members = members
        less = {
            key
            for key in set(before) & set(members)
            if not before[key].client.roles <= members[key].client.roles
            or not before[key].owned <= members[key].owned
        }
        return gone, less

    def _member(self, name: str, client: Client, before: Member | None, now_ns: int) -> Member:
        frames = client.messages_per_s or self.limits.messages_per_s
        asked = client.requests_per_s or self.limits.requests_per_s

        def bucket(rate: float, old: TokenBucket | None) -> TokenBucket:
            same = old is not None and old.rate_per_s == rate  # a new list is no new burst
            return old if same and old is not None else TokenBucket(rate, max(rate, 1.0), now_ns)

        return Member(
            name, client, bool(client.roles & FRAMES), Role.OBSERVE in client.roles, client.owned,
            client.sessions or self.limits.sessions,
            bucket(frames, before.frames if before else None),
            bucket(asked, before.requests if before else None),
        )  # fmt: skip

    def observes(self, key: str) -> bool:
        """Whether a client may see every session."""
        member = self._members.get(key)
        return member is not None and member.observes

    def why_not(self, key: str) -> str:
        """Why a key is not let in; empty for one that is."""
        if key in self._members:
            return ""
        return "revoked_key" if key in self._gone else "unknown_key"

    def name(self, key: str) -> str:
        """Of the client whose key it is, as far as it is known."""
        member = self._members.get(key)
        return member.name if member is not None else f"{key[:8]}..."

    def frame(self, key: str, frame: bytes, plane: str, now_ns: int) -> FrameError | None:
        """Why an observation is refused; None for one that may go on to its tick.

        Args:
            key: of its sender.
            frame: as it came.
            plane: data or stream.
            now_ns: on the clock.
        """
        member = self._members.get(key)
        session = int.from_bytes(frame[8:16], "little")
        owner = self._registry.owner(session)
        if member is None:
            code, sentence = Code.REVOKED, _REVOKED
        elif not member.drives:
            code = Code.NOT_ALLOWED
            sentence = f"{member.name} may not send observations: that takes the role drive"
        elif not member.frames.take(now_ns):
            code, rate = Code.TOO_FAST, member.frames.rate_per_s
            sentence = f"{member.name} sends more than {rate:g} observations a second"
        elif owner is not None and owner not in member.owned:
            code = Code.NOT_YOURS
            sentence = f"session {session} was not opened by {member.name}"
        else:
            return None
        self.note(plane, code, key, sentence)
        return FrameError(code, sentence, session, int.from_bytes(frame[16:24], "little"))

    def subscription(self, key: str, topic: bytes, held: int) -> bool:
        """Whether a client may see what a topic shows; only the loop's thread asks.

        Args:
            key: of the client.
            topic: a session's id, or what many of them begin with.
            held: how many topics it sees by this connection already.
        """
        why = self._why_not_see(self._members.get(key), topic, held)
        if why is not None:
            self.note("tap", why[0], key, why[1])
        return why is None

    def _why_not_see(
        self, member: Member | None, topic: bytes, held: int
    ) -> tuple[Code, str] | None:
        if member is None:
            return Code.REVOKED, _REVOKED
        if not member.frames.take(self._clock()):
            rate = member.frames.rate_per_s
            sentence = f"{member.name} sends more than {rate:g} subscriptions a second"
            return Code.TOO_FAST, sentence
        if held >= MOST_TOPICS:
            sentence = f"{member.name} sees {held} sessions by one connection, as many as may be"
            return Code.TOO_MANY_SESSIONS, sentence
        if member.observes:
            return None
        if not member.client.roles & TAP:
            sentence = f"{member.name} may not look on: that takes the role observe"
            return Code.NOT_ALLOWED, sentence
        own = self._registry.owner(int.from_bytes(topic, "little")) in member.owned
        if len(topic) != 8 or not own:
            sentence = f"{member.name} may see sessions of its own only, one by one"
            return Code.NOT_YOURS, sentence
        return None

    def admit(self, key: str, request: bytes, in_loop: InLoop) -> requests.Request:
        """A control request that may be carried out; on the control thread.

        Args:
            key: of its sender.
            request: as it came.
            in_loop: runs a function between two ticks.

        Raises:
            Refusal: it is no request, or its sender may not make it.
        """
        try:
            member = self._sender(key, len(request))
            asked = parse_request(request)
            self._check(member, asked, in_loop)
        except Refusal as refusal:
            code = Code[refusal.record["code"]]
            if code not in _NOT_OURS:
                self.note("control", code, key, str(refusal))
            raise
        return asked

    def _sender(self, key: str, size: int) -> Member:
        member = self._members.get(key)
        if member is None:
            raise Refusal(Code.REVOKED, _REVOKED)
        bucket = member.requests
        # To take a large one apart holds up the control loop for milliseconds.
        if not bucket.take(self._clock(), min(1 + size // BYTES_PER_TOKEN, bucket.burst)):
            rate = member.requests.rate_per_s
            raise Refusal(
                Code.TOO_FAST, f"{member.name} makes more than {rate:g} requests a second"
            )
        return member

    def _check(self, member: Member, request: requests.Request, in_loop: InLoop) -> None:
        op, roles = request.op, member.client.roles  # type: ignore[attr-defined]
        allowed = REQUESTS[type(request)]
        if not roles & allowed:
            expected = " or ".join(sorted(allowed))
            raise Refusal(
                Code.NOT_ALLOWED,
                f"{member.name} may not ask for {op}: that takes the role {expected}",
                expected=expected,
                found=", ".join(sorted(roles)),
            )
        if isinstance(request, requests.Open):
            self._check_open(member, request, in_loop)
        elif roles & allowed == {Role.DRIVE} and hasattr(request, "session"):
            self._check_own(member, op, request.session, in_loop)  # type: ignore[attr-defined]

    def _check_own(self, member: Member, op: str, session: int | None, in_loop: InLoop) -> None:
        if session is None:
            raise Refusal(
                Code.NOT_ALLOWED,
                f"{member.name} may ask for {op} of a session of its own only: name one",
                expected="session",
            )
        owner = in_loop(lambda: self._registry.owner(session))
        if owner is not None and owner not in member.owned:
            raise Refusal(Code.NOT_YOURS, f"session {session} was not opened by {member.name}")

    def _check_open(self, member: Member, request: requests.Open, in_loop: InLoop) -> None:
        session, registry = request.session, self._registry
        owner = in_loop(lambda: registry.owner(session)) if session is not None else None
        if owner is not None:
            self._check_own(member, "open", session, in_loop)
        elif in_loop(lambda: registry.count_of(member.owned)) >= member.most_sessions:
            raise Refusal(
                Code.TOO_MANY_SESSIONS,
                f"{member.name} has {member.most_sessions} sessions open, as many as it may: "
                f"close one first",
            )
        elif session is not None:
            self.before_new(session, member)

    def note(self, plane: str, code: Code, key: str, sentence: str) -> None:
        """Count a refusal and tell of it."""
        self.refused[plane, code.name] += 1
        log.warning(
            "access_refusal", plane=plane, code=code.name, client=self.name(key), reason=sentence
        )
