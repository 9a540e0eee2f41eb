"""A recorded session as a value: its ticks, its events, its checkpoints."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Header, Kind, ObservationFlag
from runtime.spec import Manifest

Vector = NDArray[np.float32]
DEFAULT_RING = 1024


class RecordedTick(NamedTuple):
    """One tick, with the bits it had on the wire."""

    seq: int
    at_ns: int
    """Wall clock, ns since 1970."""
    observation: Vector  # (O,)
    echo: Vector  # (A,) or (0,)
    observation_flags: int
    sent_ns: int
    reward: float
    received_ns: int
    requested: Vector  # (A,)
    applied: Vector  # (A,)
    limits: int
    flags: int
    generation: int
    policy: str | None
    belief: Vector
    adaptation: int
    queue_us: float
    inference_us: float

    def frame(self, session: int) -> bytes:
        """The observation as it was sent."""
        echoed = ObservationFlag.APPLIED_ACTION if self.echo.size else 0
        header = Header(
            Kind.OBSERVATION, self.observation_flags | echoed, session, self.seq, self.sent_ns,
            self.reward, first=len(self.observation), second=len(self.echo),
        )  # fmt: skip
        return header.pack() + self.observation.tobytes() + self.echo.tobytes()


class Checkpoint(NamedTuple):
    """A snapshot of a session, as a file's content."""

    next_seq: int
    content: bytes


@dataclass
class RecordedSession:
    """All that a recording holds of one session, in the order of `seq`."""

    session: int
    where: str
    """The file or files, for messages."""
    ticks: list[RecordedTick]
    events: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """By ``name@version``, of all policies in the recording."""
    machine: dict[str, str] = field(default_factory=dict)
    """The processor and the ONNX Runtime that computed it."""
    notes: list[str] = field(default_factory=list)
    """What of it cannot be read."""
    ring_size: int = DEFAULT_RING
    """Transitions that the daemon kept: what a swap could be rebuilt from."""

    @cached_property
    def labels(self) -> dict[int, str]:
        """The policy of each generation, as far as the recording says."""
        known = {tick.generation: tick.policy for tick in self.ticks if tick.policy}
        for event in self.events:
            label = event.get("new") or event.get("policy")
            if label and "generation" in event:
                known.setdefault(event["generation"], label)
        return known

    def policy_of(self, tick: RecordedTick) -> str | None:
        """The policy that made a tick; None if the recording does not say."""
        return tick.policy or self.labels.get(tick.generation)
