"""A recorded session through the same bundles once more, compared bit for bit.

The recorded observations go through the daemon's own loop, with what happened between them
(a swap, a reset, what was learnt). Noise, guards and migrations depend on nothing else, so
the answers must be the same to the bit, also across a restart of the daemon. Where the
recording lacks something, a checkpoint's recent transitions fill the gap, or the replay
goes on from the next checkpoint and says which ticks it could not check.
"""

from collections.abc import Iterator

import numpy as np

from runtime import snapshot
from runtime.errors import InvalidRecording
from runtime.history import History
from runtime.messages import ActionFlag, Code, Limit, unpack
from runtime.policy import Policy
from runtime.recording.again import Load, Unexplained, apply
from runtime.recording.bundles import Bundles
from runtime.recording.channels import this_machine
from runtime.recording.outcome import Difference, RerunReport
from runtime.recording.stage import Stage
from runtime.recording.ticks import Checkpoint, RecordedSession, RecordedTick, Vector
from runtime.replay import replay
from runtime.store import Store
from runtime.swap import cancel_swap
from runtime.tap import tick_of

_GAP, _FROZEN = int(ActionFlag.GAP), int(ActionFlag.FROZEN)
_NO_STEP = int(Limit.INVALID | Limit.STUCK | Limit.STOPPED)


def rerun(recorded: RecordedSession, store: Store, from_seq: int | None = None) -> RerunReport:
    """Replay a session through the bundles that it was recorded with.

    Args:
        recorded: the session.
        store: the bundles.
        from_seq: begin at the nearest checkpoint at or before this one; None for the start.

    Raises:
        InvalidRecording: a bundle is not the one of the recording, or it has no place to
            begin at.
    """
    with Stage(recorded.session, recorded.ring_size) as stage:
        return _Rerun(recorded, store, stage).run(from_seq)


class _Rerun:
    def __init__(self, recorded: RecordedSession, store: Store, stage: Stage):
        self.recorded, self.stage = recorded, stage
        self.report = RerunReport(recorded.session, len(recorded.ticks), notes=[*recorded.notes])
        self._load: Load = Bundles(recorded, store, self.report.notes).load
        self._events = list(recorded.events)
        self._lost: tuple[int, str] | None = None
        """Since when the session's memory is not known, and why."""

    def run(self, from_seq: int | None) -> RerunReport:
        ticks = list(self._begin(from_seq))
        report = self.report
        for tick in ticks:
            self._happen(tick.seq)
            self._check_checkpoints(tick.seq)
            if self._lost is None:
                self._reach(tick)
            if self._lost is not None:
                self._resume(tick.seq)
            if self._lost is None:
                self._tick(tick)
        if self._lost is not None:
            since, why = self._lost
            report.unchecked.append((since, ticks[-1].seq, why))
        here, there = this_machine(), self.recorded.machine
        if report.differences and there and there != here:
            report.notes.append(
                f"recorded with {', '.join(there.values())}; replayed with "
                f"{', '.join(here.values())}: their bits may differ"
            )
        return report

    def _begin(self, from_seq: int | None) -> Iterator[RecordedTick]:
        """Open the session; the ticks that are to be compared."""
        ticks, first = self.recorded.ticks, self.recorded.ticks[0]
        opened = any(e["event"] == "opening" and e["seq"] <= first.seq for e in self._events)
        if from_seq is None and (opened or first.seq == 0):
            if not opened:
                self.stage.open(self._load(self._first_label(first)))
            self.report.first_seq = first.seq
            return iter(ticks)
        wanted = first.seq if from_seq is None else from_seq
        start = _nearest(self.recorded.checkpoints, wanted, before=from_seq is not None)
        if start is None:
            raise InvalidRecording(
                f"{self.recorded.where} begins at seq {first.seq} in the middle of session "
                f"{self.recorded.session} and holds no checkpoint: there is no memory to begin "
                f"with; a what-if (--policy) begins at the prior and can be made"
            )
        self._restore(start)
        self._events = [e for e in self._events if e["seq"] >= start.next_seq]
        self.report.first_seq = start.next_seq
        skipped = sum(t.seq < start.next_seq for t in ticks)
        if skipped and from_seq is None:
            said = "before the first checkpoint"
            self.report.unchecked.append((first.seq, start.next_seq - 1, said))
        return (tick for tick in ticks if tick.seq >= start.next_seq)

    def _first_label(self, tick: RecordedTick) -> str:
        label = self.recorded.policy_of(tick)
        if label is None:
            raise InvalidRecording(
                f"{self.recorded.where} does not say which policy made tick {tick.seq}; "
                f"a what-if (--policy) can still be made"
            )
        return label

    def _happen(self, seq: int) -> None:
        """Do what happened before a tick."""
        while self._events and self._events[0]["seq"] <= seq:
            event = self._events.pop(0)
            if self._lost is not None and event["event"] != "opening":
                continue
            try:
                apply(self.stage, event, self._load)
            except Unexplained as reason:
                self._lose(event["seq"], str(reason))
                continue
            if event["event"] == "opening":
                self._lost = None

    def _lose(self, seq: int, why: str) -> None:
        if self._lost is None:
            self._lost = seq, why

    def _reach(self, tick: RecordedTick) -> None:
        """Bring the session to a tick: over what was missed, to the policy that made it."""
        session = self.stage.session
        if session is None:
            return self._lose(tick.seq, "the session's opening is not in the recording")
        if tick.seq > session.next_seq and not tick.flags & _GAP:
            self._fill(tick)
        if session.ready is not None and tick.generation == session.generation:
            cancel_swap(session)  # a restart had lost it
        if tick.generation > session.generation and session.ready is None:
            self._lose(tick.seq, f"the change to generation {tick.generation} is not recorded")
        return None

    def _fill(self, tick: RecordedTick) -> None:
        """Step through ticks that the recorder missed, as a later checkpoint knows them."""
        session = self.stage.session
        assert session is not None
        history = self._known_between(session.next_seq, tick.seq, session.policy)
        if history is None:
            why = "the recorder missed ticks before it, and no checkpoint knows them"
            return self._lose(session.next_seq, why)
        missed = history.part(0)
        inside = missed.seqs < np.uint64(tick.seq)
        if inside.any():
            known = History(
                missed.seqs[inside], missed.boundaries[inside], missed.rows[inside],
                missed.obs_size,
            )  # fmt: skip
            prior = session.stepper.prior
            carry = prior if session.start_fresh else session.carry
            carry = replay(session.policy, session.id, known, carry, session.options)
            session.memory.extend(known)
            session.start_fresh = False
            session.pending_carry = carry
        after = missed.rows[~inside]
        size = session.action_size
        if len(after) and missed.seqs[~inside][0] == tick.seq:
            session.applied = after[0, -2 - size : -2].tobytes()
        self.report.filled += tick.seq - session.next_seq
        session.next_seq = tick.seq
        session.amend()
        return None

    def _known_between(self, first: int, last: int, policy: Policy) -> History | None:
        """Transitions from `first` to `last` in a checkpoint of the same policy."""
        for checkpoint in self.recorded.checkpoints:
            if checkpoint.next_seq <= last:
                continue
            try:
                found = snapshot.from_bytes(checkpoint.content, policy.manifest)
            except snapshot.WrongSnapshot:
                continue
            history = found.history
            if len(history) and history.seqs[0] <= first:
                return history.part(int(np.searchsorted(history.seqs, np.uint64(first))))
        return None

    def _resume(self, seq: int) -> None:
        """Go on from a checkpoint that was made just before a tick, if there is one."""
        assert self._lost is not None
        for checkpoint in self.recorded.checkpoints:
            if checkpoint.next_seq == seq and seq >= self._lost[0]:
                since, why = self._lost
                if since < seq:
                    self.report.unchecked.append((since, seq - 1, why))
                self._lost = None
                self._restore(checkpoint)
                return

    def _restore(self, checkpoint: Checkpoint) -> None:
        label = snapshot.policy_in(checkpoint.content)
        try:
            self.stage.restore(self._load(label), checkpoint)
        except snapshot.WrongSnapshot as error:
            raise InvalidRecording(
                f"{self.recorded.where}: the checkpoint at seq {checkpoint.next_seq} cannot be "
                f"used: {error}"
            ) from None

    def _check_checkpoints(self, seq: int) -> None:
        """Hold the memory against a checkpoint made just before a tick."""
        session = self.stage.session
        if self._lost is not None or session is None or session.next_seq != seq:
            return
        for checkpoint in self.recorded.checkpoints:
            if checkpoint.next_seq != seq or session.ready is not None:
                continue
            try:
                found = snapshot.from_bytes(checkpoint.content, session.policy.manifest)
            except snapshot.WrongSnapshot:
                continue
            same = found.carry == self.stage.carry_bits()
            self.report.checkpoints += same
            self.report.checkpoints_differ += not same
            if not same:
                self._restore(checkpoint)

    def _tick(self, tick: RecordedTick) -> None:
        session = self.stage.session
        assert session is not None
        if not tick.limits & _NO_STEP:
            session.frozen = bool(tick.flags & _FROZEN)
        frame = tick.frame(session.id)
        result = self.stage.tick(tick, frame)
        header = unpack(result.reply)
        report = self.report
        if session.policy.label not in report.policies:
            report.policies.append(session.policy.label)
        if header.status != Code.OK:
            said = result.reply[64:].decode(errors="replace")
            report.differences.append(Difference(tick.seq, f"refused: {said}", float("nan")))
            return
        again = tick_of(frame, result.reply, header, result.belief)
        what = _different(tick, again.answer.requested, again.answer.action, again.belief)
        if header.limits != tick.limits:
            what = "limits"
        elif header.generation != tick.generation:
            what = "generation"
        if what is None:
            report.exact += 1
            return
        by = float(np.abs(again.answer.requested - tick.requested).max(initial=0.0))
        report.differences.append(Difference(tick.seq, what, by))


def _different(tick: RecordedTick, requested: Vector, action: Vector, belief: Vector) -> str | None:
    """What of an answer is not the recorded bits; None if all is."""
    pairs = {
        "requested action": (requested, tick.requested),
        "applied action": (action, tick.applied),
        "belief": (belief, tick.belief),
    }
    for what, (found, expected) in pairs.items():
        if not _same_bits(found, expected):
            return what
    return None


def _same_bits(a: Vector, b: Vector) -> bool:
    """NaN is NaN: JSON keeps no payload of it."""
    if a.shape != b.shape:
        return False
    same = (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))
    return bool(same.all())


def _nearest(checkpoints: list[Checkpoint], seq: int, before: bool) -> Checkpoint | None:
    """The last checkpoint at or before `seq`, or the first from it on."""
    if before:
        return max((c for c in checkpoints if c.next_seq <= seq), default=None, key=_seq)
    return min((c for c in checkpoints if c.next_seq >= seq), default=None, key=_seq)


def _seq(checkpoint: Checkpoint) -> int:
    return checkpoint.next_seq
