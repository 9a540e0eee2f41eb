"""Live: ticks of the chosen sessions go to whoever takes them, until it is time to stop."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from runtime.errors import InvalidConfig, UnknownName
from runtime.onlooker import Onlooker
from runtime.spec import Manifest
from runtime.tap import Tick

LOOK_S = 0.02
"""Between two looks at the tap: a picture of 50 Hz."""
MOST_SESSIONS = 20
"""Without a choice, more are not shown: a viewer would drown in topics."""
PATIENCE_S = 10.0
"""How long the daemon is waited for."""


class Taker(Protocol):
    """Shows, keeps or passes on what happens in sessions."""

    def tick(self, tick: Tick, policy: str | None, manifest: Manifest | None) -> None:
        """A tick, the policy that made it and its manifest, if known."""
        ...

    def event(self, event: dict[str, Any]) -> None:
        """What else happened to a session."""
        ...


def choose_sessions(onlooker: Onlooker, chosen: Sequence[int], most: int) -> list[int]:
    """The sessions to look at: those that were named, or all.

    Raises:
        InvalidConfig: the daemon does not answer, has no session, or too many to show all.
        UnknownName: one that was named is not open.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not onlooker.status:
        if time.monotonic() > deadline:
            raise InvalidConfig(onlooker.trouble)
        time.sleep(0.02)
    known = sorted(onlooker.sessions)
    for session in chosen:
        if session not in known:
            raise UnknownName("session", str(session), map(str, known[:MOST_SESSIONS]))
    if chosen:
        return list(chosen)
    if not known:
        raise InvalidConfig(
            f"no session is open at {onlooker.endpoint}: start a robot, for example `simrobot run`"
        )
    if len(known) > most:
        first = ", ".join(map(str, known[:MOST_SESSIONS]))
        raise InvalidConfig(
            f"{len(known)} sessions are open and at most {most} are shown: choose by --session; "
            f"the first are {first}"
        )
    return known


def watch(
    onlooker: Onlooker,
    sessions: Sequence[int],
    takers: Sequence[Taker],
    until: Callable[[], bool],
    besides: Callable[[], None] = lambda: None,
) -> None:
    """Hand ticks and events of some sessions to the takers.

    Args:
        onlooker: of the daemon; it is left to listen to these sessions alone.
        sessions: ids.
        takers: each gets everything.
        until: whether to stop, asked after each look.
        besides: called at each look.
    """
    for session in sessions:
        onlooker.tap.follow(session)
    onlooker.tap.leave(None)
    wanted = set(sessions)
    while not until():
        for tick in onlooker.ticks():
            if tick.session in wanted:
                generation = tick.answer.generation
                policy = onlooker.label(tick.session, generation)
                manifest = onlooker.manifest(tick.session, generation)
                for taker in takers:
                    taker.tick(tick, policy, manifest)
        for event in onlooker.events():
            for taker in takers if event.get("session") in wanted else ():
                taker.event(event)
        besides()
        time.sleep(LOOK_S)
