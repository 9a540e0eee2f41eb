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
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import zmq

from runtime.errors import ProtocolError
from runtime.messages import (
    HEADER_SIZE,
    VERSION,
    ActionFlag,
    Adaptation,
    Code,
    FrameError,
    Header,
    Kind,
    Limit,
    ObservationFlag,
    default_endpoint,
    planes,
    unpack,
)

_BOUNDARIES = ObservationFlag.EPISODE_START | ObservationFlag.NEW_TASK
MAX_REWARD = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Answer:
    """An action and what the daemon says about it."""

    action: np.ndarray
    """What to apply, (A,); the fallback action if the daemon was silent."""
    requested: np.ndarray
    """What the policy wanted, (A,); differs from `action` where a limit acted."""
    limits: Limit
    flags: ActionFlag
    adaptation: Adaptation
    generation: int
    """Counts the policies of this session; grows by one at each swap."""
    seq: int
    silent: bool
    """The daemon did not answer in time: `action` is the fallback."""
    queue_ns: int
    inference_ns: int


@dataclass(frozen=True)
class Tick:
    """One tick as seen on the tap."""

    session: int
    seq: int
    observation: np.ndarray
    answer: Answer
    belief: np.ndarray
    """All belief outputs in the manifest's order, flattened."""


class Client:
    """A connection to one daemon."""

    def __init__(self, endpoint: Optional[str] = None, timeout_s: float = 5.0):
        """
        Args:
            endpoint: where the daemon serves; None for the default.
            timeout_s: of control requests, which may load a bundle.
        """
        self.endpoint = endpoint or default_endpoint()
        self.timeout_s = timeout_s
        self._addresses = planes(self.endpoint)
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
            raise TimeoutError(
                f"no reply from {self.endpoint} within {self.timeout_s:g} s: "
                f"is `adaptd serve` running?"
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
    ) -> "Session":
        """Open a session, or come back to one.

        Args:
            policy: ``name`` or ``name@version``, of a new session; None for the daemon's
                default.
            session: a session's id. One that is open already goes on where it was, with
                the policy it has: it may have been swapped since.
            sends_reward: whether `Session.step` will be given rewards.

        Raises:
            ProtocolError, TimeoutError: as `request`.
        """
        asked = {"policy": policy, "session": session, "sends_reward": sends_reward}
        facts = self.request("open", **asked)
        return Session(self, self._connect(zmq.DEALER, self._addresses.data), facts)

    def tap(self, session: Optional[int] = None) -> "Tap":
        """Listen to every tick of one session, or of all."""
        socket = self._connect(zmq.SUB, self._addresses.tap)
        socket.subscribe(b"" if session is None else session.to_bytes(8, "little"))
        return Tap(socket)

    def _connect(self, kind: int, address: str) -> Any:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.connect(address)
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
        self._sizes = len(facts["observation"]), len(facts["action"])
        self._patience_ms = -1
        self._unheard: Optional[tuple[int, ObservationFlag]] = None

    def step(
        self,
        observation: Any,
        reward: float = 0.0,
        applied_action: Optional[Any] = None,
        episode_start: bool = False,
        new_task: bool = False,
        timeout_s: float = 1.0,
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

        Raises:
            ProtocolError: the observation is of the wrong size, or the daemon refused it;
                nothing changed there and the same sequence number is used again.
        """
        flags = ObservationFlag(0)
        flags |= ObservationFlag.EPISODE_START if episode_start else 0
        flags |= ObservationFlag.NEW_TASK if new_task else 0
        if self._unheard is not None:
            self._let_go_of_late_answers()
            flags |= self._unheard[1]
            applied_action = self.fallback if applied_action is None else applied_action
        seq = self.next_seq
        frame = self._frame(seq, flags, observation, reward, applied_action)
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.send(frame, zmq.NOBLOCK)
            answer = self._receive(seq, deadline)
        except zmq.Again:
            self.next_seq = seq + 1
            self._unheard = seq, flags & _BOUNDARIES
            return self._silence(seq)
        self.next_seq = seq + 1
        self._unheard = None
        return answer

    def _let_go_of_late_answers(self) -> None:
        while self._socket.poll(0):
            reply = self._socket.recv(zmq.NOBLOCK)
            self._note_late(unpack(reply))

    def _note_late(self, header: Header) -> None:
        """A late answer tells that the silent tick's boundaries were heard of after all."""
        if self._unheard is not None and header.kind == Kind.ACTION:
            seq, flags = self._unheard
            self._unheard = seq, ObservationFlag(0) if header.seq == seq else flags

    def _receive(self, seq: int, deadline: float) -> Answer:
        """The answer to `seq`; answers to older ones are let go."""
        while True:
            left_ms = max(0, round(1000 * (deadline - time.monotonic())))
            if left_ms != self._patience_ms:
                self._socket.setsockopt(zmq.RCVTIMEO, left_ms)
                self._patience_ms = left_ms
            reply = self._socket.recv()  # one call, where a poll before it would cost another
            try:
                header = unpack(reply)
            except FrameError as error:
                raise ProtocolError(Code(error.code).name, str(error)) from None
            if header.kind == Kind.ERROR and (header.seq == seq or header.session == 0):
                sentence = reply[HEADER_SIZE:].decode(errors="replace")
                raise ProtocolError(Code(header.status).name, sentence)
            if header.seq == seq:
                return parse_answer(reply, header)
            self._note_late(header)

    def close(self) -> None:
        """End the session on the daemon: its memory is forgotten."""
        self._client.request("close", session=self.id)
        self._socket.close()

    def _frame(
        self,
        seq: int,
        flags: ObservationFlag,
        observation: Any,
        reward: float,
        applied_action: Optional[Any],
    ) -> bytes:
        obs = self._vector("observation", observation, self._sizes[0])
        if not abs(reward) <= MAX_REWARD:
            raise ProtocolError("NOT_FINITE", f"the previous reward is {reward}")
        payload, second = obs.tobytes(), 0
        flags &= ~ObservationFlag.APPLIED_ACTION
        if applied_action is not None:
            applied = self._vector("applied action", applied_action, self._sizes[1])
            flags |= ObservationFlag.APPLIED_ACTION
            payload, second = payload + applied.tobytes(), applied.size
        header = Header(
            Kind.OBSERVATION, flags, self.id, seq, time.monotonic_ns(), reward,
            first=obs.size, second=second,
        )  # fmt: skip
        return header.pack() + payload

    def _vector(self, what: str, values: Any, size: int) -> np.ndarray:
        vector = np.ascontiguousarray(values, np.float32).ravel()
        if vector.size != size:
            raise ProtocolError(
                "WRONG_SIZE",
                f"an {what} of {vector.size} numbers: {self.facts['policy']} takes {size}",
            )
        return vector

    def _silence(self, seq: int) -> Answer:
        nothing = (Limit(0), ActionFlag(0), Adaptation.UNADAPTED)
        return Answer(self.fallback, self.fallback, *nothing, 0, seq, True, 0, 0)


class Tap:
    """Every tick that the daemon makes, for looking on."""

    def __init__(self, socket: Any):
        self._socket = socket

    def ticks(self, timeout_s: float = 0.0) -> list[Tick]:
        """The ticks that have come, waiting up to `timeout_s` for the first."""
        found = []
        wait_ms = round(1000 * timeout_s)
        while self._socket.poll(0 if found else wait_ms):
            topic, observation, reply, belief = self._socket.recv_multipart()
            seen = unpack(observation)
            answer = parse_answer(reply, unpack(reply))
            vector = np.frombuffer(observation, np.float32, offset=HEADER_SIZE)[: seen.first]
            known = np.frombuffer(belief, np.float32)
            found.append(Tick(int.from_bytes(topic, "little"), seen.seq, vector, answer, known))
        return found

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def parse_answer(reply: bytes, header: Header) -> Answer:
    """An action message as an `Answer`."""
    payload = np.frombuffer(reply, np.float32, offset=HEADER_SIZE)
    action = payload[: header.first]
    requested = payload[header.first :] if header.second else action
    return Answer(
        action, requested, Limit(header.limits), ActionFlag(header.flags),
        Adaptation(header.adaptation), header.generation, header.seq, False,
        header.queue_ns, header.inference_ns,
    )  # fmt: skip
