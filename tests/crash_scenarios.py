"""What a session may be doing as its daemon is killed, on the pure loop over a real state folder.

Each scenario is a run up to the instant (`before`), the run that is killed (`act`) and
what may be left of it: nothing, all, or one of `halves`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from runtime.messages import Adaptation, ObservationFlag
from runtime.registry import Registry
from runtime.shadow import promote_session, return_incumbent, shadow_session
from runtime.snapshot import put, take, write_history
from runtime.state import StateFolder
from runtime.swap import Wish, cancel_swap, swap_sessions
from tests.bundles import write_bundle
from tests.loops import EPISODE, ID, NEW_TASK, Bench, frame

TICKS = 10
RING = 4
OTHER_ID = 43
Run = Callable[[Bench], None]


@dataclass(frozen=True)
class Scenario:
    """One thing that is done to a session."""

    act: Run
    before: Run = lambda bench: None
    halves: tuple[Run, ...] = ()
    ticks: int = TICKS
    """Before `before`."""
    policy: str = "counter@1"


def write_bundles(models):
    """The policies of the scenarios, with a control period that no busy machine overruns."""
    write = partial(write_bundle, models, control_hz=0.1)
    write("counter", 1)
    write("counter", 2, gain=0.5)
    write("other", carry_size=3)
    write("loud", gain=1e38)  # its first action is not finite
    write("brittle", gain=6e37)  # its second one is not
    write("hard", gain=100.0)  # each action is out of bounds


def at_once(function):
    """Stands for the loop's mailbox where there is one thread only."""
    return function()


def observation(seq, session=ID):
    """The frame of a tick, with a boundary now and then."""
    flags = EPISODE if seq % 7 == 3 else NEW_TASK if seq % 16 == 15 else ObservationFlag(0)
    return frame(seq, (1.0, 0.25 * (seq % 3)), reward=0.0, flags=flags, session=session)


def session_of(bench, session=ID):
    return bench.loop.registry.find(session)


def then(*runs):
    """One run after the other."""

    def run(bench):
        for each in runs:
            each(bench)

    return run


def play(bench, count=1, session=ID):
    """Tick a session on."""
    for _ in range(count):
        bench.loop.tick(observation(session_of(bench, session).next_seq, session), 0)


def both(bench):
    frames = [observation(session_of(bench, i).next_seq, i) for i in (ID, OTHER_ID)]
    bench.loop.tick_all(frames, 0)


def second(bench):
    bench.open("counter@1", OTHER_ID)


def invalid(bench):
    seq = session_of(bench).next_seq
    bench.loop.tick(frame(seq, flags=ObservationFlag.INVALID | NEW_TASK), 0)


def offer(bench, reference, migration="auto", **wish):
    pairs = [(session_of(bench), bench.serve(reference))]
    swap_sessions(pairs, Wish(migration, **wish), at_once)


def swap(reference, migration="auto", **wish):
    """Offer a policy, and the tick that takes it."""
    return then(partial(offer, reference=reference, migration=migration, **wish), play)


def unjudged(bench):
    """A tick of a policy that nobody would send back."""
    session_of(bench).end_probation()
    play(bench)


def roll_back(bench):
    assert return_incumbent(session_of(bench)) is not None


def shadow(bench):
    shadow_session(session_of(bench), bench.serve("other"), at_once)
    play(bench, 2)


def promote(bench):
    promote_session(session_of(bench), bench.serve("other"), Wish(), at_once)
    play(bench)


def remember(bench):
    bench.taken = take(session_of(bench))
    play(bench, 3)


def restore(bench):
    session = session_of(bench)
    memory = bench.state.serve(session.policy).slab.allocate()
    memory.claim(session.id, session.previous)
    write_history(memory, bench.taken.history)
    put(session, memory, bench.taken)


def restore_good(bench):
    session = session_of(bench)
    session.monitor.status = Adaptation.ADAPTED
    session.amend(session.good_carry())


def switch(bench, **switches):
    session = session_of(bench)
    for name, value in switches.items():
        setattr(session, name, value)
    session.amend()


def close(bench):
    bench.loop.registry.close(ID)


def cancel(bench):
    assert cancel_swap(session_of(bench)) is not None


def gap(bench):
    bench.loop.tick(observation(session_of(bench).next_seq + 3), 0)


def open_again(bench):
    bench.open("counter@1")


def two_records(bench):
    """What a kill between a swap's commit and the end of the old record leaves."""
    session_of(bench)._retire = lambda: None
    swap("other")(bench)


def tear(bench, where="slot"):
    """Spoil what the last tick wrote."""
    memory = session_of(bench).memory
    if where == "slot":
        memory._slots[memory.commits & 1][memory.layout.reply] ^= 1
    else:
        memory._entries[memory.layout.entry_size - 1] ^= 1


def restart(bench):
    """Another daemon finds the folder, in the same process."""
    os.close(bench.state._lock)
    bench.state = StateFolder(bench.state.folder, RING, bench.state.capacity)
    bench.state.take()
    found = Registry(asleep=bench.state.recover(bench.store.load))
    bench.loop.registry = bench.loop.reception.registry = found


SCENARIOS = {
    "first tick": Scenario(play, ticks=0),
    "ordinary tick": Scenario(play),
    "tick that keeps the memory as good": Scenario(play, ticks=99),
    "tick after a gap": Scenario(gap),
    "tick without a step": Scenario(invalid),
    "tick of two sessions": Scenario(both, then(second, partial(play, session=OTHER_ID))),
    "second session": Scenario(second),
    "session that is open already": Scenario(open_again),
    "swap by replay": Scenario(swap("other")),
    "swap that keeps": Scenario(swap("counter@2")),
    "swap that resets": Scenario(swap("other", "reset")),
    "swap at a tick without a step": Scenario(
        then(partial(offer, reference="other"), invalid), halves=(invalid,)
    ),
    "swap on probation": Scenario(swap("counter@2"), swap("other")),
    "swap there and back": Scenario(swap("counter@1"), swap("other")),
    "swap that fails at once": Scenario(swap("loud")),
    "policy that fails on probation": Scenario(play, swap("brittle"), (unjudged,)),
    "policy that is sent back": Scenario(
        play, then(swap("hard"), partial(play, count=18)), (unjudged,)
    ),
    "end of probation": Scenario(play, swap("other", probation_ticks=2)),
    "rollback": Scenario(roll_back, swap("other")),
    "promotion": Scenario(promote, shadow),
    "reset": Scenario(lambda bench: session_of(bench).reset()),
    "freeze": Scenario(partial(switch, frozen=True)),
    "stop": Scenario(partial(switch, stopped=True)),
    "re-arm": Scenario(lambda bench: session_of(bench).rearm(), partial(switch, stopped=True)),
    "restored snapshot": Scenario(restore, remember),
    "restored snapshot on probation": Scenario(restore, then(swap("other"), remember)),
    "restored good memory": Scenario(restore_good, ticks=103),
    "close": Scenario(close),
    "close on probation": Scenario(close, swap("other")),
    "close as a swap waits": Scenario(close, partial(offer, reference="other"), (cancel,)),
    "restart": Scenario(restart, then(second, partial(play, session=OTHER_ID))),
    "restart with two records": Scenario(restart, two_records),
    "restart with a torn step": Scenario(restart, tear),
    "restart with a torn transition": Scenario(restart, partial(tear, where="ring")),
}
