"""Processes that save checkpoints until they are killed: `python -m tests.checkpoint_kills FOLDER`.

A process of its own, since it forks, which is no good where torch has threads. After each kill
the run folder must give its newest checkpoint whole, and none older than before. Checkpoint N
holds the number N throughout. Ends with status 0 and says how often each kind of kill came.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from training import checkpoint, files

TENSOR_SIZE = 300_000
KILLS = 20
WATCHED = (checkpoint.__file__, files.__file__)


def newest(run: Path) -> int:
    """The number of the newest checkpoint, which must be whole; 0 if there is none."""
    if not checkpoint.checkpoints(run / "checkpoints"):
        return 0
    tensors, facts, damaged = checkpoint.load_newest(run)
    assert not damaged, damaged
    number = facts["number"]
    assert checkpoint.latest(run).name == f"{number:06d}"
    assert (tensors["x"] == number).all()
    return number


def save(run: Path, number: int) -> None:
    tensors = {"x": torch.full((TENSOR_SIZE,), float(number))}
    checkpoint.save(run / "checkpoints", number, tensors, {"number": number})


def in_a_fork(what: Callable[[], None]) -> int:
    """Start a process that does it and then exits with 0."""
    child = os.fork()
    if not child:
        what()
        os._exit(0)
    return child


def die_at_line(n: int) -> None:
    """Have this process end, with no cleaning up, before the n-th line of what saves."""
    left = n

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def killed_at_every_line(run: Path) -> int:
    """Kill a save before each line of it in turn; how many lines it had."""
    number, line = newest(run), 0
    while True:

        def saving(number: int = number, line: int = line) -> None:
            die_at_line(line)
            save(run, number + 1)

        _, status = os.waitpid(in_a_fork(saving), 0)
        after = newest(run)
        assert after in (number, number + 1), (number, after, line)
        if status == 0:  # it came to the end: there are no more lines
            assert after == number + 1
            return line
        save(run, after + 1)  # as a resumed run would, which clears away what is left
        number, line = after + 1, line + 1


def killed_at_random(run: Path) -> int:
    """Kill a process that saves one checkpoint after another, at random times."""
    rng = random.Random(0)
    for _ in range(KILLS):
        before = newest(run)

        def saving(before: int = before) -> None:
            for number in range(before + 1, before + 10_000):
                save(run, number)

        child = in_a_fork(saving)
        time.sleep(rng.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert newest(run) >= before
    return KILLS


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    save(folder, 1)
    print(killed_at_every_line(folder), "lines,", killed_at_random(folder), "kills at random")
    save(folder, newest(folder) + 1)
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert len(left) == checkpoint.KEPT and all(name.isdigit() for name in left), left
