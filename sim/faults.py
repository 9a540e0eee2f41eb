"""What goes wrong with a robot, in the words of PX4's failure injection.

    SIGNAL:WORD[@FROM-TO]       as observation:stuck@100-200, network:intermittent

| word | observation | reward | action | network |
| --- | --- | --- | --- | --- |
| off | none comes: NaN, declared invalid | none comes: 0 | nothing is done: 0 | all is lost |
| stuck | the last one before | the last one before | the last one before | the last message again |
| garbage | random bits | random bits | anything within bounds | noise |
| wrong | order and sign reversed | sign reversed | order and sign reversed | each after the next |
| slow | every fifth is a new one | every fifth | every fifth | a message every 30 ms |
| delayed | of five steps ago | of five steps ago | of five steps ago | 50 ms later |
| intermittent | off, half of the time | off | off | 30 % are lost |

A fault of the action is one of the actuators: `applied_action` tells the daemon what was really
done, as a robot that measures it would.
"""

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.answer import silence
from runtime.benchmark.bad_network import WORDS, BadNetwork
from runtime.client import Answer, Session
from runtime.commandline import Reach
from runtime.errors import InvalidConfig, ProtocolError, UnknownName
from runtime.keyfile import client_key

SIGNALS = ("observation", "reward", "action", "network")
LAG = 5
"""Steps: of a delayed signal, and between two values of a slow one."""
OFF_SHARE = 0.5
"""Of an intermittent signal."""
IMPATIENT_S = 0.1
"""A robot behind a faulty network waits no longer for an answer."""
_FORM = re.compile(r"(?P<signal>\w+):(?P<word>\w+)(?:@(?P<first>\d+)-(?P<last>\d+))?")

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong for a while."""

    signal: str
    """Of `SIGNALS`."""
    word: str
    """Of `WORDS`."""
    first: int = 0
    """The first step of the run that it concerns."""
    last: int | None = None
    """The last one; None: to the end."""

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """A fault from ``SIGNAL:WORD[@FROM-TO]``.

        Raises:
            InvalidConfig: it cannot be read.
            UnknownName: there is no such signal or word.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise InvalidConfig(f"{text!r} is no fault: expected SIGNAL:WORD[@FROM-TO]")
        signal, word, first, last = found.groups()
        for what, name, known in (("signal", signal, SIGNALS), ("fault", word, WORDS)):
            if name not in known:
                raise UnknownName(what, name, known)
        if last is None:
            return cls(signal, word)
        if int(last) < int(first):
            raise InvalidConfig(f"{text!r} ends before it begins")
        return cls(signal, word, int(first), int(last))

    def __str__(self) -> str:
        return f"{self.signal}:{self.word}"

    def at(self, step: int) -> bool:
        """Whether it concerns a step."""
        return self.first <= step and (self.last is None or step <= self.last)


class Signal:
    """A row of values, (n,) each, and what a fault makes of them."""

    def __init__(self, seed: int, low: Vector | None = None, high: Vector | None = None):
        """
        Args:
            seed: of garbage, and of when an intermittent one is off.
            low, high: (n,), bounds of garbage; None: any bits that are finite.
        """
        self._rng = np.random.default_rng(seed)
        self._low, self._high = low, high
        self._true: deque[Vector] = deque(maxlen=LAG + 1)
        self._sound: Vector | None = None
        """The last one before a fault."""
        self._steps = 0

    def next(self, value: Vector, word: str | None) -> Vector | None:
        """The next value as it arrives; None where none does."""
        self._true.append(value)
        self._steps += 1
        if word is None:
            self._sound = value
            return value
        if word == "slow":
            fresh = self._sound is None or self._steps % LAG == 0
            self._sound = value if fresh else self._sound
        if word in ("slow", "stuck"):
            return self._sound if self._sound is not None else value
        if word == "delayed":
            return self._true[0]
        if word == "wrong":
            return -value[::-1]
        if word == "garbage":
            return self._garbage(len(value))
        if word == "intermittent" and self._rng.random() >= OFF_SHARE:
            return value
        return None

    def _garbage(self, size: int) -> Vector:
        if self._low is not None and self._high is not None:
            return self._rng.uniform(self._low, self._high).astype(np.float32)
        bits = self._rng.integers(0, 2**32, size, np.uint32).view(np.float32)
        return np.where(np.isfinite(bits), bits, np.float32(0))


class FaultySession:
    """A session whose robot has faults: for `sim.robot.drive`, in place of the session."""

    def __init__(
        self,
        session: Session,
        faults: tuple[Fault, ...],
        network: BadNetwork | None = None,
        seed: int = 0,
    ):
        """
        Args:
            session: the real one.
            faults: of one signal, the first that concerns a step counts.
            network: the one that the session goes over, if that may be faulty.
            seed: of all that is random.
        """
        self.session, self.faults, self.network = session, faults, network
        limits = session.facts["action"]
        low, high = (np.array([e[k] for e in limits], np.float32) for k in ("low", "high"))
        self._observation, self._reward = Signal(seed), Signal(seed + 1)
        self._action = Signal(seed + 2, low, high)
        self._step = -1

    @property
    def resumed(self) -> bool:
        """As of the session."""
        return self.session.resumed

    def word(self, signal: str) -> str | None:
        """What is wrong with a signal now."""
        found = (f.word for f in self.faults if f.signal == signal and f.at(self._step))
        return next(found, None)

    def step(
        self,
        observation: Any,
        reward: float = 0.0,
        applied_action: Any = None,
        episode_start: bool = False,
        new_task: bool = False,
        timeout_s: float = 1.0,
    ) -> Answer:
        """As `Session.step`, with what is wrong at this step."""
        self._step += 1
        if self.network is not None:
            self.network.word = self.word("network")
            timeout_s = min(timeout_s, IMPATIENT_S)
        true = np.asarray(observation, np.float32)
        seen = self._observation.next(true, self.word("observation"))
        paid = self._reward.next(np.array([reward], np.float32), self.word("reward"))
        try:
            answer = self.session.step(
                np.full_like(true, np.nan) if seen is None else seen,
                0.0 if paid is None else float(paid[0]),
                applied_action,
                episode_start,
                new_task,
                timeout_s,
                invalid=seen is None,
            )
        except ProtocolError:
            if self.network is None:
                raise
            answer = silence(self.session.fallback, self.session.next_seq)
            self.session.next_seq += 1  # what was refused may have been older noise of ours
        done = self._action.next(answer.action, self.word("action"))
        return answer._replace(action=np.zeros_like(answer.action) if done is None else done)


@contextmanager
def behind(
    faults: tuple[Fault, ...], to: Reach, seed: int = 0
) -> Iterator[tuple[Reach, BadNetwork | None]]:
    """How a daemon is reached: over a bad network, if the network has faults."""
    if not any(f.signal == "network" for f in faults):
        yield to, None
        return
    key = client_key(to.key) if to.endpoint.startswith("tcp://") else None
    with BadNetwork(to.endpoint, key, seed) as network:
        yield Reach(network.endpoint, None), network
