"""Robots that send an observation again until it is answered."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from runtime.messages import (
    HEADER_SIZE,
    ActionFlag,
    FrameError,
    Header,
    Kind,
    ObservationFlag,
    planes,
    unpack,
)

AGAIN_S = 0.25
GIVE_UP_S = 60.0


class Silent(Exception):
    """Some observations were never answered."""

    def __init__(self, count: int):
        super().__init__(f"{count} observations were not answered in {GIVE_UP_S:g} s")
        self.count = count


@dataclass
class Answered:
    """The answers to one tick, (n,) or (n, A) each."""

    actions: NDArray[np.float32]
    requested: NDArray[np.float32]
    flags: NDArray[np.int64]
    limits: NDArray[np.int64]
    ages_ns: NDArray[np.int64]
    """From sending to arrival at the daemon, on this machine's clock."""
    took_s: float
    resent: int


class Resending:
    """One driver of many sessions, over one socket; a context manager."""

    def __init__(self, ids: list[int], endpoint: str):
        """
        Args:
            ids: of the sessions.
            endpoint: where their messages go.
        """
        self.ids = ids
        self._context = zmq.Context()
        self._socket: Any = self._context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.RECONNECT_IVL, 20), (zmq.SNDHWM, 10_000)):
            self._socket.setsockopt(option, value)
        self._socket.connect(planes(endpoint).data)
        self._place = {session: i for i, session in enumerate(ids)}

    def ask(self, seq: int, obs: NDArray[np.float32], reward: float, new_task: bool) -> Answered:
        """Send an observation of each session until all are answered.

        Args:
            seq, reward, new_task: of all.
            obs: (n, O).

        Raises:
            Silent: some were not, for `GIVE_UP_S`.
        """
        flags, now_ns = int(ObservationFlag.NEW_TASK) * new_task, time.monotonic_ns()
        frames = [
            Header(Kind.OBSERVATION, flags, i, seq, now_ns, reward, first=len(row)).pack()
            + row.tobytes()
            for i, row in zip(self.ids, obs, strict=True)
        ]
        replies: dict[int, tuple[Header, bytes]] = {}
        began = sent_s = time.monotonic()
        resent = 0
        self._send(frames, replies)
        while len(replies) < len(frames):
            now_s = time.monotonic()
            if now_s - began > GIVE_UP_S:
                raise Silent(len(frames) - len(replies))
            if now_s - sent_s > AGAIN_S:
                sent_s, resent = now_s, resent + len(frames) - len(replies)
                self._send(frames, replies)
            if self._socket.poll(20):
                self._take(seq, replies)
        return _gathered(replies, now_ns, time.monotonic() - began, resent)

    def _send(self, frames: list[bytes], replies: dict[int, Any]) -> None:
        for i, frame in enumerate(frames):
            if i not in replies:
                try:
                    self._socket.send(frame, zmq.NOBLOCK)
                except zmq.Again:
                    return

    def _take(self, seq: int, replies: dict[int, tuple[Header, bytes]]) -> None:
        while True:
            try:
                reply = self._socket.recv(zmq.NOBLOCK)
                header = unpack(reply)
            except zmq.Again:
                return
            except FrameError:  # noise of a bad network
                continue
            if header.kind == Kind.ACTION and header.seq == seq and header.session in self._place:
                replies.setdefault(self._place[header.session], (header, reply[HEADER_SIZE:]))

    def __enter__(self) -> "Resending":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)


def _gathered(
    replies: dict[int, tuple[Header, bytes]], now_ns: int, took_s: float, resent: int
) -> Answered:
    rows = [replies[i] for i in range(len(replies))]
    headers = [header for header, _ in rows]
    vectors = [np.frombuffer(payload, np.float32) for _, payload in rows]
    actions = np.array([v[: h.first] for h, v in zip(headers, vectors, strict=True)])
    wanted = [v[-h.first :] for h, v in zip(headers, vectors, strict=True)]
    columns = [[h.flags for h in headers], [h.limits for h in headers]]
    flags, limits = (np.array(column, np.int64) for column in columns)
    ages = np.array([h.time_ns - now_ns for h in headers], np.int64)
    assert not (flags & int(ActionFlag.GAP)).any(), "an observation was left out"
    return Answered(actions, np.array(wanted), flags, limits, ages, took_s, resent)
