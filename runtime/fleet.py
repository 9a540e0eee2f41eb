"""Many sessions of one simulator host over one socket, in vectors.

>>> with Client() as client:
...     fleet = client.fleet("halfcheetah-vel-rl2-gru", count=1000)
...     answer = fleet.step(observations, rewards)
...     simulator.apply(answer.actions)

The daemon sees single sessions: each has its own id, sequence numbers and memory, and can
be swapped, reset or resumed alone. Needs pyzmq and numpy alone, and Python 3.10.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from runtime.errors import ProtocolError
from runtime.fleet_answer import HEADER, FleetAnswer, FleetTick, by_size
from runtime.messages import (
    HEADER_SIZE,
    MAGIC,
    VERSION,
    Code,
    FrameError,
    Kind,
    ObservationFlag,
    unpack,
)

_EPISODE_START = int(ObservationFlag.EPISODE_START)
_NEW_TASK = int(ObservationFlag.NEW_TASK)
_APPLIED_ACTION = int(ObservationFlag.APPLIED_ACTION)
_BOUNDARIES = _EPISODE_START | _NEW_TASK
_NEVER = np.uint64(2**64 - 1)
_MANY = 1 << 30
_MAX_REWARD = float(np.finfo(np.float32).max)


class Fleet:
    """n sessions of one policy's shape. `step` sends n observations and gives n answers."""

    def __init__(self, socket: Any, sessions: list[dict[str, Any]], end: Callable[[int], Any]):
        """
        Args:
            socket: a DEALER connected to the data plane.
            sessions: what the daemon said at `open` of each; all of one policy shape.
            end: ends a session on the daemon, by id.

        Raises:
            ProtocolError: the sessions' observations or actions differ in size.
        """
        self.facts = facts = sessions[0]
        """What the daemon said at `open` of the first: elements, units, limits."""
        self.ids = np.array([f["session"] for f in sessions], np.uint64)
        self.resumed = np.array([f["resumed"] for f in sessions])
        self.next_seq = np.array([f["next_seq"] for f in sessions], np.uint64)
        self.fallback = np.array([f["fallback_action"] for f in sessions], np.float32)
        sizes = {(len(f["observation"]), len(f["action"])) for f in sessions}
        if len(sizes) > 1:
            raise ProtocolError(
                "WRONG_SIZE", "the sessions' observations or actions differ in size"
            )
        self._socket, self._end = socket, end
        self._patience_ms = -1
        self._by_id = np.argsort(self.ids)
        # Of sessions whose last tick came to nothing: the boundaries to tell again, and when.
        self._fell_back = np.zeros(len(sessions), bool)
        self._unheard = np.zeros(len(sessions), np.uint16)
        self._unheard_seq = np.full(len(sessions), _NEVER)
        self._lay_out_frames(len(sessions), len(facts["observation"]), len(facts["action"]))

    def _lay_out_frames(self, n: int, observed: int, acted: int) -> None:
        """One frame per session, written over each tick; a part of it where no action is told."""
        frames = np.zeros((n, HEADER_SIZE + 4 * (observed + acted)), np.uint8)
        self._header = frames[:, :HEADER_SIZE].view(HEADER)[:, 0]
        self._header["magic"], self._header["version"] = MAGIC, VERSION
        self._header["kind"], self._header["session"] = Kind.OBSERVATION, self.ids
        self._header["first"] = observed
        payload = frames[:, HEADER_SIZE:].view("<f4")
        self._observed, self._applied = payload[:, :observed], payload[:, observed:]
        self._long = [row.data for row in frames]
        self._short = [row[: HEADER_SIZE + 4 * observed] for row in self._long]

    def __len__(self) -> int:
        return len(self.ids)

    def step(
        self,
        observations: Any,
        rewards: Any | None = None,
        applied_actions: Any | None = None,
        episode_start: Any = False,
        new_task: Any = False,
        timeout_s: float = 1.0,
    ) -> FleetAnswer:
        """Send every session's observation and wait for the actions.

        Args:
            observations: (n, O), raw readings in the units of the manifest.
            rewards: (n,), of the steps that led here; None for 0.
            applied_actions: (n, A), what the robots really did since the last observation;
                None if they applied the actions of the last answer, the fallback too.
            episode_start: (n,) bool, or one for all: the previous episode ended before.
            new_task: (n,) bool, or one for all: the memory goes back to the prior.
            timeout_s: of the whole step. Sessions without an answer by then get the fallback
                action and are marked `silent`; `Session.step` says what follows from that.
                Those that the daemon refused get it too, and keep their sequence number.

        Raises:
            ProtocolError: an array is of the wrong shape or a reward not finite, and nothing
                was sent; or the daemon speaks another protocol.
        """
        deadline = time.monotonic() + timeout_s
        if self._fell_back.any():
            self._let_go_of_late_answers()
        told = self._write(observations, rewards, applied_actions, episode_start, new_task)
        self._send(told)
        return self._collect(deadline)

    def _write(
        self, observations: Any, rewards: Any, applied: Any, episode_start: Any, new_task: Any
    ) -> np.ndarray:
        """Write all frames; whether each tells an applied action, (n,)."""
        n, told = len(self), self._fell_back
        observations = self._shaped("observations", observations, self._observed.shape)
        rewards = 0.0 if rewards is None else self._shaped("rewards", rewards, (n,))
        if not np.all(np.abs(rewards) <= _MAX_REWARD):
            raise ProtocolError("NOT_FINITE", "a previous reward is not finite")
        if applied is not None:
            self._applied[:] = self._shaped("applied actions", applied, self._applied.shape)
            told = np.ones(n, bool)
        elif told.any():
            self._applied[told] = self.fallback[told]
        self._observed[:] = observations
        flags = self._unheard | np.where(told, _APPLIED_ACTION, 0)
        flags |= np.where(episode_start, _EPISODE_START, 0)
        flags |= np.where(new_task, _NEW_TASK, 0)
        header = self._header
        header["flags"], header["seq"], header["reward"] = flags, self.next_seq, rewards
        header["second"] = np.where(told, self._applied.shape[1], 0)
        header["time_ns"] = time.monotonic_ns()
        return told

    def _shaped(self, what: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
        array = np.asarray(values)
        if array.shape != shape:
            raise ProtocolError(
                "WRONG_SIZE",
                f"{what} of shape {array.shape}: {len(self)} sessions of "
                f"{self.facts['policy']} take {shape}",
            )
        return array

    def _send(self, told: np.ndarray) -> None:
        frames = self._short
        if told.all():
            frames = self._long
        elif told.any():
            pairs = zip(told, self._short, self._long, strict=True)
            frames = [long if tells else short for tells, short, long in pairs]
        send, flags = self._socket.send, zmq.NOBLOCK
        try:
            for frame in frames:
                send(frame, flags)
        except zmq.Again:  # nobody takes them: the sessions whose frames did not leave are silent
            return

    def _collect(self, deadline: float) -> FleetAnswer:
        """The answers to the frames just sent, as far as they come in time."""
        tick = FleetTick(self.fallback)
        try:
            while tick.waiting:
                replies = self._receive(tick.waiting, deadline)
                if not replies:
                    break
                for header, payload in by_size(replies):
                    self._take(header, payload, tick)
        finally:
            self._settle(tick)
        return tick.answer()

    def _take(self, header: np.ndarray, payload: np.ndarray, tick: FleetTick) -> None:
        """Note replies of one length, (m,) headers and (m, bytes) payloads."""
        acted = self._applied.shape[1]
        sound = (header["magic"] == MAGIC) & (header["version"] == VERSION)
        sound &= (header["kind"] == Kind.ACTION) & (header["first"] == acted)
        sound &= payload.shape[1] == 4 * (header["first"].astype(int) + header["second"])
        if not sound.all():
            for one, rest in zip(header[~sound], payload[~sound], strict=True):
                self._note_refusal(one.tobytes() + rest.tobytes(), tick)
            header, payload = header[sound], payload[sound]
        rows, known = self._rows(header["session"])
        known &= header["seq"] == self.next_seq[rows]  # others are late
        if not known.all():
            rows, header, payload = rows[known], header[known], payload[known]
        if len(rows):
            tick.fill(rows, header, np.ascontiguousarray(payload).view("<f4"), acted)

    def _note_refusal(self, reply: bytes, tick: FleetTick) -> None:
        try:
            header = unpack(reply)
        except FrameError as error:
            if error.code != Code.WRONG_VERSION:
                return  # noise on the way: the answer is lost, and its seq must not be used again
            raise ProtocolError(Code(error.code).name, str(error)) from None
        if header.kind != Kind.ERROR:
            raise ProtocolError("WRONG_SIZE", f"an answer of {header.first} numbers")
        refusal = ProtocolError(
            Code(header.status).name, reply[HEADER_SIZE:].decode("utf-8", "replace")
        )
        if header.session == 0:
            raise refusal
        (row,), (known,) = self._rows(np.array([header.session], np.uint64))
        if known and header.seq == self.next_seq[row]:
            tick.refuse(int(row), refusal)

    def _rows(self, sessions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of session ids, (m,), and which of them are sessions of this fleet."""
        at = np.searchsorted(self.ids, sessions, sorter=self._by_id)
        rows = self._by_id[np.minimum(at, len(self) - 1)]
        return rows, self.ids[rows] == sessions

    def _receive(self, most: int, deadline: float) -> list[bytes]:
        """The next replies; fewer than `most` only where time is over."""
        replies: list[bytes] = []
        receive, clock = self._socket.recv, time.monotonic
        try:
            while len(replies) < most:
                left_ms = max(0, round(1000 * (deadline - clock())))
                if left_ms != self._patience_ms:  # once a millisecond at most
                    self._socket.setsockopt(zmq.RCVTIMEO, left_ms)
                    self._patience_ms = left_ms
                replies.append(receive())
        except zmq.Again:
            pass
        return replies

    def _settle(self, tick: FleetTick) -> None:
        """What the next tick must know of this one, however it ended."""
        refused = np.zeros(len(self), bool)
        refused[list(tick.refused)] = True
        self._fell_back = tick.silent | refused
        boundaries = self._header["flags"] & _BOUNDARIES
        self._unheard = np.where(self._fell_back, boundaries, 0)
        self._unheard_seq = np.where(tick.silent, self.next_seq, _NEVER)
        self.next_seq = self.next_seq + ~refused

    def _let_go_of_late_answers(self) -> None:
        """A late answer tells that the silent tick's boundaries were heard of after all."""
        for header, _ in by_size(self._receive(_MANY, deadline=0.0)):
            header = header[header["kind"] == Kind.ACTION]
            rows, known = self._rows(header["session"])
            heard = known & (header["seq"] == self._unheard_seq[rows])
            self._unheard[rows[heard]] = 0

    def close(self) -> None:
        """End all sessions on the daemon: their memory is forgotten.

        Raises:
            ProtocolError, TimeoutError: as `Client.request`.
        """
        for session in self.ids.tolist():
            self._end(session)
        self._socket.close()
