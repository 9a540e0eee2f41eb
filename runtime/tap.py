"""Looking on: every tick that a daemon makes, as it publishes them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.answer import Answer, parse_answer
from runtime.messages import HEADER_SIZE, Kind, unpack


@dataclass(frozen=True)
class Tick:
    """One tick as seen on the tap."""

    session: int
    seq: int
    observation: np.ndarray
    answer: Answer
    belief: np.ndarray
    """All belief outputs in the manifest's order, flattened."""


class Tap:
    """Every tick that the daemon makes, for looking on."""

    def __init__(self, socket: Any):
        self._socket = socket
        self.refused = 0
        """Observations from the stream plane that the daemon refused: no tick was made of them."""
        self.last_refusal = ""
        """Why, the last time."""

    def ticks(self, timeout_s: float = 0.0) -> list[Tick]:
        """The ticks that have come, waiting up to `timeout_s` for the first."""
        found = []
        wait_ms = round(1000 * timeout_s)
        while self._socket.poll(0 if found else wait_ms):
            topic, observation, reply, belief = self._socket.recv_multipart()
            header = unpack(reply)
            if header.kind != Kind.ACTION:
                self.refused += 1
                self.last_refusal = reply[HEADER_SIZE:].decode(errors="replace")
                continue
            seen, answer = unpack(observation), parse_answer(reply, header)
            vector = np.frombuffer(observation, np.float32, offset=HEADER_SIZE)[: seen.first]
            known = np.frombuffer(belief, np.float32)
            found.append(Tick(int.from_bytes(topic, "little"), seen.seq, vector, answer, known))
        return found

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
