"""One session's durable memory: carry, last reply and recent transitions in a record.

The bytes lie in a memory-mapped file (runtime/slab.py) or, for tests, in plain memory. A
commit writes the slot that does not count, then one aligned 8-byte word that makes it
count: a process killed at any instant leaves the state before or the state after.
"""

import mmap
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from runtime.history import Arrays, Boundary, History, Transition
from runtime.layout import CRC, ENTRY, HEAD, LABEL_SIZE, OWNER_AT, OWNER_SIZE, Head, Layout

Bytes = bytes | memoryview


class Committed(NamedTuple):
    """What a slot holds besides the carry."""

    head: Head
    options: bytes
    applied: bytes
    reply: bytes


class Memory:
    """The record of one session. Only the thread that ticks it writes."""

    def __init__(
        self,
        layout: Layout,
        buffer: memoryview,
        release: Callable[[], None] = lambda: None,
        rest: Callable[[], None] = lambda: None,
    ):
        """
        Args:
            layout: of the policy.
            buffer: the record, writable, `layout.record_size` bytes.
            release: called once by `free`.
            rest: lets the kernel take the record's pages back until they are used again.
        """
        self.layout, self._buffer, self._release, self.rest = layout, buffer, release, rest
        self._words: NDArray[np.uint64] = np.frombuffer(buffer, np.uint64, 2)
        slots = [layout.slot(0), layout.slot(1), layout.good]
        self._slots = [buffer[a : a + layout.slot_size] for a in slots]
        self._summed = [slot[CRC.size :] for slot in self._slots]
        self._carries = [
            [slot[p.offset : p.offset + p.size] for p in layout.tensors] for slot in self._slots
        ]
        entries = buffer[layout.ring : layout.ring + layout.entries * layout.entry_size]
        self._entries = entries
        table = np.frombuffer(entries, np.uint8).reshape(layout.entries, layout.entry_size)
        self._seqs = table[:, :8].view(np.uint64)[:, 0]
        self._boundaries = table[:, 8:12].view(np.uint32)[:, 0]
        self._rows = table[:, ENTRY.size : ENTRY.size + layout.row_bytes].view(np.float32)
        self._commit = int(self._words[1])
        self.ring_count = self.committed().head.ring_count if self._commit else 0
        self._freed = False
        self._no_action = bytes(4 * layout.action_size)
        self._padding = bytes(layout.reply_limit)

    @classmethod
    def volatile(cls, layout: Layout) -> "Memory":
        """One that is not on disk."""
        return cls(layout, memoryview(bytearray(layout.record_size)))

    @property
    def session(self) -> int:
        """Whose it is; 0 for nobody's."""
        return int(self._words[0])

    @property
    def commits(self) -> int:
        """How many there have been; 0 while nothing counts."""
        return self._commit

    @property
    def carry(self) -> Sequence[memoryview]:
        """The bytes of each tensor that counts, in the manifest's order."""
        return self._carries[self._commit & 1]

    def claim(self, session: int, previous: str, owner: str = "") -> None:
        """Write whose record this is, before its first commit.

        Args:
            session: the session's id.
            previous: the policy before this one; empty if there was none.
            owner: public key of the client that opened the session; empty where it has none.
        """
        self._words[1] = self._commit = self.ring_count = 0
        self.forget_good()
        self.write_previous(previous)
        self._buffer[OWNER_AT : OWNER_AT + OWNER_SIZE] = owner.encode("latin-1").ljust(
            OWNER_SIZE, b"\0"
        )
        self._words[0] = session

    def write_previous(self, label: str) -> None:
        """Write which policy was before this one."""
        text = label.encode()[: LABEL_SIZE - 1].ljust(LABEL_SIZE, b"\0")
        self._buffer[16 : 16 + LABEL_SIZE] = text

    def start_over(
        self, session: int, prior: Sequence[Bytes], options: bytes, owner: str = ""
    ) -> None:
        """Begin at the prior, for a session whose state is lost."""
        self.claim(session, "", owner)
        head = dict.fromkeys(Head._fields, 0)
        # As `sessions.SessionFlag`: it sends rewards, as far as is known, and starts fresh.
        head |= {"generation": 1, "flags": 3, "seen_s": int(time.time())}
        self.commit(Head(**head), options, b"", b"", prior)

    def copy(self, other: "Memory") -> None:
        """Take over the content of a record of the same layout."""
        self._buffer[:] = other._buffer
        self._commit, self.ring_count = other._commit, other.ring_count

    @property
    def previous(self) -> str:
        """The policy before this one; empty if there was none."""
        return bytes(self._buffer[16 : 16 + LABEL_SIZE]).rstrip(b"\0").decode(errors="replace")

    @property
    def owner(self) -> str:
        """Public key of the client that opened the session; empty where it had none."""
        text = bytes(self._buffer[OWNER_AT : OWNER_AT + OWNER_SIZE])
        return text.rstrip(b"\0").decode("latin-1")  # of a broken record it may be anything

    def carry_arrays(self) -> Arrays:
        """A copy of the carry, (1, ...) per tensor."""
        return self._arrays(self.carry)

    def _arrays(self, carry: Sequence[Bytes]) -> Arrays:
        return {
            p.name: np.frombuffer(bytes(b), p.dtype).reshape(1, *p.shape).copy()
            for p, b in zip(self.layout.tensors, carry, strict=True)
        }

    def commit(
        self,
        head: Head | tuple[int, ...],
        options: bytes,
        applied: bytes,
        reply: bytes,
        carry: Sequence[Bytes] | None,
        transition: Transition | None = None,
    ) -> None:
        """Make one step's results what counts.

        Args:
            head: the numbers.
            options: float32 values in the manifest's order.
            applied: the last action sent, float32; empty for none.
            reply: the last answer.
            carry: bytes of each tensor; None keeps what there is.
            transition: the step's inputs, for the ring.
        """
        if transition is not None:
            self._write_entry(transition)
        n = self._commit + 1
        k = n & 1
        slot = self._slots[k]
        carry = self._carries[1 - k] if carry is None else carry
        for place, value in zip(self._carries[k], carry, strict=True):
            place[:] = value
        size = len(reply) | bool(applied) << 31
        text = b"".join(
            (
                HEAD.pack(0, size, n, *head), options,
                applied or self._no_action, reply, self._padding[len(reply) :],
            )
        )  # fmt: skip
        slot[: len(text)] = text
        CRC.pack_into(slot, 0, crc32(self._summed[k]))
        self._words[1] = n  # from here on it counts
        self._commit = n
        self.ring_count = head[1]

    def _write_entry(self, transition: Transition) -> None:
        layout = self.layout
        at = (self.ring_count % layout.entries) * layout.entry_size
        seq, boundary, row = transition
        entry = ENTRY.pack(seq, boundary, _entry_crc(seq, boundary, row)) + row
        self._entries[at : at + len(entry)] = entry

    def committed(self) -> Committed:
        """What counts, read back."""
        return self._read(self._commit & 1)

    def _read(self, k: int) -> Committed:
        slot, layout = self._slots[k], self.layout
        _, size, _, *numbers = HEAD.unpack_from(slot)
        reply = bytes(slot[layout.reply : layout.reply + (size & 0x7FFFFFFF)])
        options = bytes(slot[layout.options : layout.applied])
        applied = bytes(slot[layout.applied : layout.reply]) if size >> 31 else b""
        return Committed(Head(*numbers), options, applied, reply)

    def keep_good(self) -> None:
        """Remember what counts as the last good state."""
        self._slots[2][:] = self._slots[self._commit & 1]

    def good(self) -> list[bytes] | None:
        """The carry of the last good state; None if there is none."""
        return [bytes(b) for b in self._carries[2]] if self._is_whole(2) else None

    def forget_good(self) -> None:
        """Let go of the last good state."""
        HEAD.pack_into(self._slots[2], 0, *(0,) * 3, *(0,) * len(Head._fields))

    def since(self, position: int) -> History:
        """A copy of the transitions from a position on; `ring_count` is the next one's.

        Those before the last task boundary are left out: they no longer matter.
        """
        oldest = max(0, self.ring_count - self.layout.ring_size)
        order = np.arange(max(oldest, position), self.ring_count) % self.layout.entries
        starts = np.flatnonzero(self._boundaries[order] & np.uint32(Boundary.TASK))
        order = order[starts[-1] if len(starts) else 0 :]
        return History(
            self._seqs[order], self._boundaries[order], self._rows[order], self.layout.obs_size
        )

    def last_episode(self) -> History:
        """A copy of the episode that ended before the last transition, and that one."""
        whole = self.since(0)
        starts = np.flatnonzero(whole.boundaries[:-1] & np.uint32(Boundary.EPISODE))
        return whole.part(int(starts[-1]) if len(starts) else 0)

    def extend(self, history: History) -> None:
        """Add a history to the ring; it counts from the next commit on."""
        for i, seq in enumerate(history.seqs.tolist()):
            row = history.rows[i].tobytes()
            self._write_entry(Transition(seq, int(history.boundaries[i]), row))
            self.ring_count += 1

    def lost(self, position: int) -> bool:
        """Whether a transition from a position on has been overwritten already."""
        return position < self.ring_count - self.layout.ring_size

    def recover(self) -> str | None:
        """Check what a dead process left, and go back one step where that is torn.

        Returns:
            What was wrong, in words; None if nothing was. Where nothing is whole, `commits`
            is 0 and the record must not be used.
        """
        trouble = None
        if not self._is_whole(self._commit & 1):
            if self._commit < 2 or not self._is_whole(1 - (self._commit & 1)):
                self._commit = 0
                return "nothing of it is whole, it begins at the prior"
            self._commit -= 1
            self._words[1] = self._commit
            trouble = "its last step is torn"
        self.ring_count = self.committed().head.ring_count
        if not self._ring_is_whole():
            self.ring_count = 0
            trouble = "its recent transitions are torn"
        return trouble

    def _is_whole(self, k: int) -> bool:
        crc, size, commit, *_ = HEAD.unpack_from(self._slots[k])
        expected = self._commit if k == (self._commit & 1) else self._commit - 1
        if not commit or (k < 2 and commit != expected):
            return False
        return (size & 0x7FFFFFFF) <= self.layout.reply_limit and crc == crc32(self._summed[k])

    def _ring_is_whole(self) -> bool:
        layout = self.layout
        kept = min(self.ring_count, layout.ring_size)
        for count in range(self.ring_count - kept, self.ring_count):
            at = (count % layout.entries) * layout.entry_size
            seq, boundary, crc = ENTRY.unpack_from(self._entries, at)
            start = at + ENTRY.size
            row = self._entries[start : start + layout.row_bytes]
            if crc != _entry_crc(seq, boundary, row):
                return False
        return True

    def touch(self) -> None:
        """Have every page at hand, so that the first write to it does not wait."""
        for at in range(0, len(self._buffer), mmap.PAGESIZE):
            self._buffer[at] = self._buffer[at]

    def silence(self) -> None:
        """Make nothing count, so that a restart does not find it; the bytes stay."""
        self._words[1] = 0

    def free(self) -> None:
        """Give the record back."""
        if not self._freed:
            self._freed = True
            self._words[1] = 0
            self._words[0] = 0
            self._release()


def _entry_crc(seq: int, boundary: int, row: Bytes) -> int:
    # Of the boundary's bits four go above the number's, the others below.
    return crc32(row, (seq ^ boundary << 28 ^ boundary >> 4) & 0xFFFFFFFF)
