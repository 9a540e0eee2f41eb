"""The pure loop with hand-made policies, for tests of single ticks."""

import itertools
import tempfile
from pathlib import Path

import numpy as np

from runtime.layout import Layout
from runtime.loop import Loop
from runtime.memory import Memory
from runtime.messages import HEADER_SIZE, Header, Kind, ObservationFlag, unpack
from runtime.registry import Registry
from runtime.sessions import Rules, Session
from runtime.state import Served, StateFolder
from runtime.stepper import Stepper
from runtime.store import Store

ID = 42
NEW_TASK, EPISODE = ObservationFlag.NEW_TASK, ObservationFlag.EPISODE_START
INVALID = ObservationFlag.INVALID
NOTHING = ObservationFlag(0)


def frame(
    seq, obs=(1.0, 0.0), reward=0.0, flags=NOTHING, applied=None, session=ID, time_ns=0, **changes
):
    """An observation's bytes."""
    payload = np.asarray(obs, np.float32).tobytes()
    second = 0
    if applied is not None:
        flags |= ObservationFlag.APPLIED_ACTION
        payload += np.asarray(applied, np.float32).tobytes()
        second = len(applied)
    fields = {"first": len(obs), "second": second} | changes
    return Header(Kind.OBSERVATION, flags, session, seq, time_ns, reward, **fields).pack() + payload


class Bench:
    """A loop, the bundles it serves and a state folder for them."""

    def __init__(self, models, ring=64, rules=None, folder=None, store=None, capacity=256):
        times = itertools.count(0, 1000)
        self.loop = Loop(lambda: next(times), Registry(rules or Rules()))
        self.store = store or Store(models)
        self._temporary = None if folder else tempfile.TemporaryDirectory()
        self.state = StateFolder(Path(folder or self._temporary.name), ring, capacity)
        self.state.take()

    def serve(self, reference) -> Served:
        return self.state.serve(self.store.load(reference))

    def open(self, reference, session=ID, sends_reward=True):
        served = self.serve(reference)
        memory = served.slab.allocate()
        memory.claim(session, "")
        opened = Session(served.stepper, memory, self.loop.registry.rules, sends_reward)
        opened.amend()
        return self.loop.registry.add(opened)


def make_loop(models, reference="counter@1", ring=64, rules=None):
    """A loop with session `ID`; `loop.bench` has what is around it."""
    bench = Bench(models, ring, rules)
    bench.open(reference)
    bench.loop.bench, bench.loop.folder = bench, models
    return bench.loop


def session_of(loop):
    return loop.registry.live[ID]


def carry_of(loop):
    """The session's carry tensor `h`, (1, ...)."""
    return session_of(loop).memory.carry_arrays()["h"]


def volatile(store, reference, ring=8):
    """A stepper and a memory that is not on disk."""
    stepper = Stepper(store.load(reference))
    return stepper, Memory.volatile(Layout(stepper.policy.manifest, ring))


def tick(loop, *arguments, **named):
    """Header and floats of the answer to one observation."""
    reply = loop.tick(frame(*arguments, **named), 0).reply
    header = unpack(reply)
    return header, np.frombuffer(
        reply, np.float32, offset=HEADER_SIZE
    ) if not header.status else reply


def state(loop):
    """All that a refused frame must not change."""
    s = session_of(loop)
    return s.next_seq, s.reply, carry_of(loop).tobytes(), s.generation, s.monitor.status
