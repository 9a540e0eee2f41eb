"""A process that kills itself at a chosen line of chosen functions, by Python's own tracing.

The functions know nothing of it. A line is named by its function and number, a kill also
by how often the line has been reached; line 0 stands for the return to the caller.
"""

import ast
import inspect
import os
import signal
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Hashable
from itertools import groupby
from types import CodeType, FrameType
from typing import Any, NamedTuple

from runtime import trial
from runtime.loop import Loop
from runtime.memory import Memory
from runtime.registry import Registry
from runtime.sessions import Session
from runtime.slab import Slab
from runtime.state import StateFolder

RETURN = 0
WRITERS: tuple[Callable[..., Any], ...] = (
    Memory.claim, Memory.commit, Memory._write_entry, Memory.keep_good, Memory.forget_good,
    Memory.extend, Memory.silence, Memory.free, Slab.allocate, Slab.record,
    Session.commit, Session.amend, Session.adopt, Session.roll_back, Session._retire,
    Session.end_probation, Session.drop_companion, Session.replace_memory, Session.reset,
    Session.rearm, Registry.add, Registry.close, Loop._commit,
    trial.take_swap, trial.after_step,
)  # fmt: skip
"""Everything that writes a session's record, and what calls it."""
WATCHED = (*WRITERS, Session.leave, Memory.recover, StateFolder._take_in, StateFolder.recover)
"""And what a restart does."""


class Point(NamedTuple):
    """An instant in a run."""

    function: str
    line: int
    occurrence: int
    """1 for the first time that the line is reached."""


def lines_of(function: Callable[..., Any]) -> set[int]:
    """The lines that a function can reach where no exception is raised."""
    code: CodeType = function.__code__  # type: ignore[attr-defined]
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    failing = [n for n in ast.walk(tree) if isinstance(n, (ast.ExceptHandler, ast.Raise))]
    apart = {first - 1 + n for f in failing for n in range(f.lineno, (f.end_lineno or 0) + 1)}
    found = {n for _, _, n in code.co_lines() if n is not None and n != code.co_firstlineno}
    return found - apart


def trace(reached: Callable[[Point], None]) -> None:
    """Call a function before every line of `WATCHED`, in this thread and those to come."""
    codes = {f.__code__ for f in WATCHED}  # type: ignore[attr-defined]
    counts: Counter[tuple[str, int]] = Counter()

    def within(frame: FrameType, event: str, _: Any) -> Any:
        if event in ("line", "return"):
            name = frame.f_code.co_qualname
            line = frame.f_lineno if event == "line" else RETURN
            counts[name, line] += 1
            reached(Point(name, line, counts[name, line]))
        return within

    def entered(frame: FrameType, event: str, _: Any) -> Any:
        return within if frame.f_code in codes else None

    threading.settrace(entered)
    sys.settrace(entered)


def untrace() -> None:
    """End `trace` in this thread."""
    threading.settrace(None)  # type: ignore[arg-type]
    sys.settrace(None)


def points_of(act: Callable[[], None], left: Callable[[], Hashable]) -> dict[Point, Hashable]:
    """All instants of a run in their order, and what a kill there would leave on the disk."""
    found: dict[Point, Hashable] = {}

    def reached(point: Point) -> None:
        found[point] = left()

    trace(reached)
    try:
        act()
    finally:
        untrace()
    return found


def distinct(points: dict[Point, Hashable]) -> list[Point]:
    """One instant of each run of instants that leave the same."""
    runs = groupby(points, key=points.__getitem__)
    return [next(run) for _, run in runs]


def die_at(point: Point) -> None:
    """Kill this process, as `kill -9` does, when it reaches an instant."""

    def reached(here: Point) -> None:
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    trace(reached)


def dies(point: Point, prepare: Callable[[], Callable[[], None]]) -> bool:
    """Whether a child process was killed at an instant.

    Args:
        point: the instant.
        prepare: run in the child; gives the run that is to be killed.

    Raises:
        AssertionError: the child failed for another reason.
    """
    child = os.fork()
    if not child:
        try:
            act = prepare()
            die_at(point)
            act()
            os._exit(0)
        except BaseException:
            untrace()
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"the child ended by status {status} on its way to {point}"
    return killed
