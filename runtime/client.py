"""A robot's side of adaptd: open a session, send observations, get actions.

>>> with Client() as client:
...     session = client.open("halfcheetah-vel-rl2-gru")
...     answer = session.step(observation, episode_start=True)
...     apply(answer.action)
...     answer = session.step(observation, reward=reward)

Needs pyzmq and numpy alone, and Python 3.10.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

import numpy as np
import zmq

from runtime.answer import Answer as Answer
from runtime.answer import answer_to, silence
from runtime.errors import ProtocolError
from runtime.fleet import Fleet
from runtime.handshake import connect, show_key, why_silent
from runtime.keyfile import Key, client_key
from runtime.messages import (
    HEADER_SIZE,
    VERSION,
    Code,
    FrameError,
    Header,
    Kind,
    code_name,
    default_endpoint,
    planes,
    unpack,
)
from runtime.observation_frame import EPISODE_START, INVALID, NEW_TASK, ObservationFrame
from runtime.stream import Stream
from runtime.tap import Tap

_BOUNDARIES = EPISODE_START | NEW_TASK
_NOBLOCK = zmq.NOBLOCK


class Client:
    """A connection to one daemon."""

    def __init__(
        self,
        endpoint: Optional[str] = None,
        timeout_s: float = 5.0,
        key: Key | Path | str | None = None,
    ):
        """
        Args:
            endpoint: where the daemon serves; None for the default.
            timeout_s: of control requests, which may load a bundle.
            key: or its file, for a daemon that asks for one over tcp; None for the file that
                $ADAPTD_KEY names, if it does.

        Raises:
            InvalidConfig: the endpoint or the key file is none.
        """
        self.endpoint = endpoint or default_endpoint()
        self.timeout_s = timeout_s
        self._addresses = planes(self.endpoint)
        self.key = client_key(key) if self.endpoint.startswith("tcp://") else None
        self._context = zmq.Context()
        self._control = self._connect(zmq.DEALER, self._addresses.control)
        self._request = 0

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the sockets; sessions stay open on the daemon."""
        self._context.destroy(linger=0)

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Make a control request and give its result.

        Raises:
            ProtocolError: it was refused, with the daemon's code and sentence.
            TimeoutError: no reply within `timeout_s`.
        """
        self._request += 1
        tag = self._request.to_bytes(8, "little")  # a late reply to an older request is known by it
        message = {"version": VERSION, "op": op, **fields}
        deadline = time.monotonic() + self.timeout_s
        try:
            self._control.send_multipart((tag, json.dumps(message).encode()), zmq.NOBLOCK)
            while True:
                left_ms = max(0, round(1000 * (deadline - time.monotonic())))
                if not self._control.poll(left_ms):
                    raise zmq.Again
                found, reply = self._control.recv_multipart()
                if found == tag:
                    break
        except zmq.Again:
            why = why_silent(self._context, self._addresses.control, self.key)
            raise TimeoutError(
                f"no reply from {self.endpoint} within {self.timeout_s:g} s: {why}"
            ) from None
        content = json.loads(reply)
        if not content["ok"]:
            raise ProtocolError(**content["error"])
        return content["result"]

    def open(
        self,
        policy: Optional[str] = None,
        session: Optional[int] = None,
        sends_reward: bool = True,
        options: Optional[dict[str, float]] = None,
    ) -> "Session":
        """Open a session, or come back to one.

        Args:
            policy: ``name`` or ``name@version``, of a new session; None for the daemon's
                default.
            session: a session's id. One that is open already goes on where it was, with
                the policy it has: it may have been swapped since.
            sends_reward: whether `Session.step` will be given rewards.
            options: values of options that the policy declares.

        Raises:
            ProtocolError, TimeoutError: as `request`.
        """
        asked = {"policy": policy, "session": session, "sends_reward": sends_reward}
        facts = self.request("open", **asked, options=options or {})
        return Session(self, self._connect(zmq.DEALER, self._addresses.data), facts)

    def stream(
        self,
        policy: Optional[str] = None,
        session: Optional[int] = None,
        sends_reward: bool = True,
    ) -> Stream:
        """Open a session that is driven without replies, or come back to one; as `open`."""
        asked = {"policy": policy, "session": session, "sends_reward": sends_reward}
        facts = self.request("open", **asked)
        tap = self.tap(facts["session"])
        return Stream(self._connect(zmq.PUSH, self._addresses.stream), tap, facts)

    def fleet(
        self,
        policy: Optional[str] = None,
        count: int = 1,
        sends_reward: bool = True,
        sessions: Optional[Sequence[int]] = None,
    ) -> Fleet:
        """Open many sessions that one simulator steps together, over one socket.

        Args:
            policy: as `open`, of every session.
            count: how many.
            sends_reward: as `open`.
            sessions: their ids, to come back to or to choose; instead of `count`.

        Raises:
            ProtocolError, TimeoutError: as `request`.
        """
        asked = {"policy": policy, "sends_reward": sends_reward}
        chosen = [None] * count if sessions is None else sessions
        facts = [self.request("open", session=session, **asked) for session in chosen]
        # One socket carries all: a few ticks of every session fit into its queues.
        socket = self._connect(zmq.DEALER, self._addresses.data, max(1000, 4 * len(facts)))
        return Fleet(socket, facts, lambda session: self.request("close", session=session))

    def tap(self, session: Optional[int] = None, queued: int = 1000) -> "Tap":
        """Listen to every tick of one session, or of all.

        Args:
            session: which; None for all.
            queued: ticks that may wait here to be read; those beyond are missed.
        """
        socket = self._connect(zmq.SUB, self._addresses.tap, queued)
        tap = Tap(socket)
        tap.follow(session)
        return tap

    def _connect(self, kind: int, address: str, queued: int = 1000) -> Any:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.SNDHWM, queued)
        socket.setsockopt(zmq.RCVHWM, queued)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        if self.key is not None:
            show_key(socket, self.key)
        connect(socket, address)
        return socket


class Session:
    """One robot's session. `step` sends an observation and gives the answer."""

    def __init__(self, client: Client, socket: Any, facts: dict[str, Any]):
        self.facts = facts
        """What the daemon said at `open`: elements, units and limits of the policy."""
        self.id: int = facts["session"]
        self.resumed: bool = facts["resumed"]
        self.next_seq: int = facts["next_seq"]
        # Of the policy at `open`; one swapped in later acts on the same elements.
        self.fallback = np.asarray(facts["fallback_action"], np.float32)
        self._client, self._socket = client, socket
        sizes = len(facts["observation"]), len(facts["action"])
        self._frame = ObservationFrame(self.id, *sizes, facts["policy"])
        self._patience_ms = -1
        self._unheard: Optional[tuple[int, int]] = None

    def step(
        self,
        observation: Any,
        reward: float = 0.0,
        applied_action: Optional[Any] = None,
        episode_start: bool = False,
        new_task: bool = False,
        timeout_s: float = 1.0,
        invalid: bool = False,
    ) -> Answer:
        """Send one observation and wait for its action.

        Args:
            observation: (O,), raw readings in the units of the manifest.
            reward: of the step that led here.
            applied_action: (A,), what the robot really did since the last observation;
                None if it applied the action of the last answer, the fallback too.
            episode_start: the previous episode ended before this observation.
            new_task: the task is a new one: the memory goes back to the prior.
            timeout_s: after that the fallback action is given, marked `silent`. The tick
                is over then: the daemon's late answer will not be taken for another's,
                and a boundary that it may not have heard of is told again.
            invalid: the observation is not to be trusted, it may even be NaN: the memory
                stays as it is and the fallback action is answered.

        Raises:
            ProtocolError: the observation is of the wrong size, or the daemon refused it;
                nothing changed there and the same sequence number is used again.
        """
        flags = (EPISODE_START if episode_start else 0) | (NEW_TASK if new_task else 0)
        flags |= INVALID if invalid else 0
        if self._unheard is not None:
            self._let_go_of_late_answers()
            flags |= self._unheard[1]
            applied_action = self.fallback if applied_action is None else applied_action
        seq, now_ns = self.next_seq, time.monotonic_ns()
        frame = self._frame.write(seq, flags, now_ns, observation, reward, applied_action)
        try:
            self._socket.send(frame, _NOBLOCK)
            answer = self._receive(seq, now_ns, timeout_s)
        except zmq.Again:
            self.next_seq = seq + 1
            self._unheard = seq, flags & _BOUNDARIES
            return silence(self.fallback, seq)
        self.next_seq = seq + 1
        self._unheard = None
        return answer

    def _let_go_of_late_answers(self) -> None:
        while self._socket.poll(0):
            reply = self._socket.recv(zmq.NOBLOCK)
            with suppress(FrameError):
                self._note_late(unpack(reply))

    def _note_late(self, header: Header) -> None:
        """A late answer tells that the silent tick's boundaries were heard of after all."""
        if self._unheard is not None and header.kind == Kind.ACTION:
            seq, flags = self._unheard
            self._unheard = seq, 0 if header.seq == seq else flags

    def _receive(self, seq: int, since_ns: int, timeout_s: float) -> Answer:
        """The answer to `seq`; answers to older ones are let go."""
        left_s = timeout_s
        while True:
            left_ms = max(0, round(1000 * left_s))
            if left_ms != self._patience_ms:
                self._socket.setsockopt(zmq.RCVTIMEO, left_ms)
                self._patience_ms = left_ms
            reply = self._socket.recv()  # one call, where a poll before it would cost another
            answer = answer_to(seq, reply)
            if answer is not None:
                return answer
            self._let_go(reply, seq)
            left_s = timeout_s - 1e-9 * (time.monotonic_ns() - since_ns)

    def _let_go(self, reply: bytes, seq: int) -> None:
        """What is no answer to `seq`: raised if it is a refusal of it, or of another protocol."""
        try:
            header = unpack(reply)
        except FrameError as error:
            if error.code != Code.WRONG_VERSION:
                return  # noise on the way: the answer is lost, and its seq must not be used again
            raise ProtocolError(Code(error.code).name, str(error)) from None
        if header.kind == Kind.ERROR and (header.seq == seq or header.session == 0):
            sentence = reply[HEADER_SIZE:].decode(errors="replace")
            raise ProtocolError(code_name(header.status), sentence)
        self._note_late(header)

    def close(self) -> None:
        """End the session on the daemon: its memory is forgotten."""
        self._client.request("close", session=self.id)
        self._socket.close()
