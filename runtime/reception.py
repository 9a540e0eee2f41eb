"""The first steps of a tick: is a frame its session's next observation, and if not, what is it?"""

from runtime.frames import check_observation, repeated
from runtime.messages import Code, FrameError, Header, Kind, ObservationFlag, error_frame
from runtime.pending import Pending, TickResult
from runtime.registry import Registry
from runtime.sessions import Session

# Plain integers: an operation on an enum's member takes a microsecond.
_OBSERVATION, _DECLARED_INVALID = int(Kind.OBSERVATION), int(ObservationFlag.INVALID)

MAX_GAP = 1_000_000
"""Most sequence numbers that a sender may skip; more is a fault of its counter."""
MAX_FIRST_SEQ = 2**53
"""Highest sequence number that a session may begin at."""
ONE_WAY_NS = 1_000_000_000
"""A session that ticked less long ago by the other way is driven by two."""
REQUEST, STREAM = "request", "stream"


class Reception:
    """Checks frames one by one, and answers those that await no step."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self.refused: dict[str, int] = {}
        """Frames that were answered by an error, by code."""

    def receive(
        self, index: int, frame: bytes, header: Header, received_ns: int, way: str
    ) -> "Pending | TickResult":
        """Check one frame; it awaits its step, or is answered at once."""
        try:
            session = self._session(header.kind, header.session)
            told = check_observation(frame, header, session)  # 1
            answered = self._look(session, header.seq, received_ns, way)  # 2
            if answered is not None:
                return answered
        except FrameError as error:
            known = self.registry.live.get(header.session)
            if known is not None:
                known.counters.refused += 1
            return self.refuse(error, header.session, header.seq)
        invalid = bool(header.flags & _DECLARED_INVALID)
        failed = session.watch.look(header.time_ns, received_ns, told[0], invalid)
        return Pending(index, session, header, told, received_ns, failed, way)

    def _session(self, kind: int, session_id: int) -> Session:
        if kind != _OBSERVATION:
            raise FrameError(Code.WRONG_KIND, f"kind {kind} is not an observation (1)")
        session = self.registry.live.get(session_id) or self.registry.wake(session_id)
        if session is None:
            raise FrameError(
                Code.UNKNOWN_SESSION, f"there is no session {session_id}: open one first"
            )
        return session

    def _look(self, session: Session, seq: int, received_ns: int, way: str) -> TickResult | None:
        """Sort out what is not the session's next observation."""
        next_seq = session.next_seq
        if way != session.way and session.way and received_ns - session.seen_ns < ONE_WAY_NS:
            raise FrameError(
                Code.TWO_WAYS,
                f"session {session.id} is driven by {session.way} already: "
                f"it cannot be driven by {way} at once",
            )
        if seq == next_seq:
            return None
        if seq == next_seq - 1 and session.reply:
            session.counters.repeated += 1
            return TickResult(repeated(session.reply), session.id, False, b"")
        if seq < next_seq:
            raise FrameError(Code.OLD_SEQ, f"seq {seq} is over: the next one is {next_seq}")
        # A session that has not begun may be one whose state is lost, and its robot far on.
        most = MAX_GAP if next_seq else MAX_FIRST_SEQ
        if seq - next_seq > most:
            raise FrameError(
                Code.SEQ_TOO_FAR, f"seq {seq} skips more than {most}: the next is {next_seq}"
            )
        return None

    def refuse(self, error: FrameError, session: int, seq: int) -> TickResult:
        """An error in answer to a frame; it is counted."""
        self.refused[error.code.name] = self.refused.get(error.code.name, 0) + 1
        return TickResult(error_frame(error.code, str(error), session, seq), session, False, b"")
