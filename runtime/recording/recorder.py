"""The recorder: takes all that the tap gives, and asks for checkpoints on the side.

It never slows the daemon: what it is too slow to take is missed, and counted. Snapshots are
asked for a few per second, when a session is first seen, in each file, after ticks were
missed, and after what the ticks alone do not explain.
"""

import base64
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from runtime.errors import AdaptdError
from runtime.onlooker import Onlooker
from runtime.recording.channels import RECORDER_TOPIC, STATUS_TOPIC
from runtime.recording.files import RecordingFiles
from runtime.recording.writer import RecordingWriter
from runtime.tap import Tick

EVERY_S = 1.0
"""Status, flush, rotation: how much a killed recorder loses."""
ASK_EVERY_S = 0.1
"""Between two checkpoints: each is a copy between two ticks."""
CATCH_UP_S = 1.0
"""Longest wait, at the end, for manifests and checkpoints that have been asked for."""
UNEXPLAINED = frozenset(
    {"restoration", "rollback", "swap_failure", "incumbent_loss", "lesson_loss"}
)
"""Events after which the memory may be another than the ticks before explain."""


class Recorder:
    """Writes what an onlooker sees."""

    def __init__(self, onlooker: Onlooker, files: RecordingFiles, checkpoint_every_s: float):
        """
        Args:
            onlooker: of the daemon.
            files: where to write.
            checkpoint_every_s: between two checkpoints of a session.
        """
        self._onlooker, self._files = onlooker, files
        self._writer = RecordingWriter()
        self._period_s = checkpoint_every_s
        self._wanted: deque[int] = deque()
        self._checkpointed_s: dict[int, float] = {}
        self._asked: tuple[int, Future[dict[str, Any]]] | None = None
        self._generations: dict[int, int] = {}
        self._seen: set[int] = set()
        self._next_s = self._next_ask_s = 0.0
        self._last_status: dict[str, Any] = {}
        self.ticks = self.checkpoints = self.dropped = 0
        """`dropped`: ticks that came while the disk had no room."""
        self.paused = False
        """The disk has no room."""
        self._writer.start(files.next())

    @property
    def missed(self) -> int:
        """Ticks that are not in the recording."""
        return self._onlooker.tap.missed + self.dropped

    @property
    def sessions(self) -> int:
        """How many have been seen."""
        return len(self._seen)

    def turn(self, timeout_s: float = 0.1) -> None:
        """Write what has come, waiting up to `timeout_s` for the first."""
        missed = dict(self._onlooker.tap.continuity.missed) if self.missed else {}
        ticks = self._onlooker.ticks(timeout_s)
        ended = self._take_events()  # first: they say which policy makes the ticks
        if self.paused:
            self.dropped += len(ticks)
        else:
            for tick in ticks:
                self._take(tick)
        for session in ended:
            self._forget(session)
        if self.missed:
            for session, count in self._onlooker.tap.continuity.missed.items():
                if count != missed.get(session, 0):
                    self._want(session)
        self._collect_checkpoint()
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + EVERY_S
            self._keep_house(now_s)

    def _take(self, tick: Tick) -> None:
        session, generation = tick.session, tick.answer.generation
        self._writer.tick(tick, self._onlooker.label(session, generation))
        self.ticks += 1
        if self._generations.get(session) != generation:
            self._generations[session] = generation
            self._seen.add(session)
            self._want(session)

    def _take_events(self) -> list[int]:
        """Write what happened; the sessions that have ended."""
        ended = []
        for event in self._onlooker.events():
            session = event["session"]
            if not self.paused:
                self._writer.event(event)
            if event["event"] in UNEXPLAINED:
                self._want(session)
            if event["event"] in ("closing", "expiry"):
                ended.append(session)
        return ended

    def _forget(self, session: int) -> None:
        self._writer.forget(session)
        self._checkpointed_s.pop(session, None)
        self._generations.pop(session, None)

    def _want(self, session: int) -> None:
        if session not in self._wanted:
            self._wanted.append(session)

    def _collect_checkpoint(self) -> None:
        """Take the snapshot that was asked for, and ask for the next."""
        if self._asked is not None:
            session, future = self._asked
            if not future.done():
                return
            self._asked = None
            with suppress(AdaptdError, TimeoutError):  # the session or the daemon is gone
                found = future.result()
                content = base64.b64decode(found["snapshot"])
                if not self.paused:
                    self._writer.checkpoint(session, found["next_seq"], content)
                    self.checkpoints += 1
        now_s = time.monotonic()
        if self._wanted and now_s >= self._next_ask_s:
            self._next_ask_s = now_s + ASK_EVERY_S
            session = self._wanted.popleft()
            self._checkpointed_s[session] = now_s
            self._asked = session, self._onlooker.ask("snapshot", session=session)

    def _keep_house(self, now_s: float) -> None:
        self.paused = not self._files.make_room()
        if self.paused:
            return
        status = self._onlooker.status
        if status is not self._last_status:
            self._last_status = status
            self._writer.daemon(STATUS_TOPIC, status)
        for label, manifest in self._onlooker.manifests.items():
            self._writer.manifest(label, manifest)
        self._writer.daemon(
            RECORDER_TOPIC,
            {
                "ticks": self.ticks,
                "missed": self.missed,
                "checkpoints": self.checkpoints,
                "refused": self._onlooker.tap.refused,
            },
        )
        self._writer.flush()
        for session, at_s in self._checkpointed_s.items():
            if now_s - at_s >= self._period_s:
                self._want(session)
        if self._files.is_full():
            self._rotate()

    def _rotate(self) -> None:
        """The next file, which stands for itself: with manifests and checkpoints."""
        self._writer.start(self._files.next())
        self._last_status = {}
        for session in self._checkpointed_s:
            self._want(session)

    def close(self) -> None:
        """Write what is left and finish the file."""
        self.turn(0.0)
        self._onlooker.catch_up(CATCH_UP_S)
        self.turn(0.0)
        self._keep_house(time.monotonic())
        self._writer.close()
