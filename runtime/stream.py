"""A session that is driven without replies: observations go out, actions are on the tap.

>>> with Client() as client:
...     stream = client.stream("halfcheetah-vel-rl2-gru")
...     stream.send(observation)
...     for answer in stream.answers(timeout_s=0.05):
...         apply(answer.action)

Whoever acts need not be who observes: any process may follow the tap.
"""

import time
from typing import Any

import zmq

from runtime.answer import Answer
from runtime.observation_frame import EPISODE_START, INVALID, NEW_TASK, ObservationFrame
from runtime.tap import Tap


class Stream:
    """One session's observations on the stream plane, and its actions from the tap."""

    def __init__(self, socket: Any, tap: Tap, facts: dict[str, Any]):
        """
        Args:
            socket: a PUSH connected to the stream plane.
            tap: subscribed to the session.
            facts: what the daemon said at `open`.
        """
        self.facts = facts
        """What the daemon said at `open`: elements, units and limits of the policy."""
        self.id: int = facts["session"]
        self.next_seq: int = facts["next_seq"]
        self._socket, self.tap = socket, tap
        sizes = len(facts["observation"]), len(facts["action"])
        self._frame = ObservationFrame(self.id, *sizes, facts["policy"])

    def send(
        self,
        observation: Any,
        reward: float = 0.0,
        applied_action: Any | None = None,
        episode_start: bool = False,
        new_task: bool = False,
        invalid: bool = False,
    ) -> int:
        """Send one observation; the arguments are those of `Session.step`.

        Returns:
            Its sequence number, by which its answer is known.

        Raises:
            ProtocolError: the observation is of the wrong size.
            BlockingIOError: the daemon does not take observations; this one is not sent.
        """
        flags = (EPISODE_START if episode_start else 0) | (NEW_TASK if new_task else 0)
        flags |= INVALID if invalid else 0
        seq, now_ns = self.next_seq, time.monotonic_ns()
        frame = self._frame.write(seq, flags, now_ns, observation, reward, applied_action)
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            raise BlockingIOError("the daemon does not take observations") from None
        self.next_seq = seq + 1
        return seq

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        """The answers that have come, waiting up to `timeout_s` for the first.

        What the daemon refused is counted in `tap.refused`, with `tap.last_refusal`.
        """
        return [tick.answer for tick in self.tap.ticks(timeout_s)]

    def close(self) -> None:
        """Let go of the sockets; the session stays open on the daemon."""
        self._socket.close()
        self.tap.close()
