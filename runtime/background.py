"""How processes beside the daemon behave on a machine whose cores the control path needs."""

import ctypes
import os
import platform
import struct
from contextlib import suppress

NICENESS = 10
SLICE_NS = 100_000_000
"""Longest that Linux takes. Who wakes up with a shorter one, as all do by default, runs at once;
the work itself is done as soon as ever, and in one go."""
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
"""Number of the system call sched_setattr, for which Python has no name."""
_ATTRIBUTES = struct.Struct("<IIQiIQQQ")


def stand_back() -> None:
    """Let the scheduler prefer the daemon and its robots to this process, from now on.

    Its threads become batch work: they do not interrupt whoever runs when a tick comes, are
    interrupted by it, and catch up after. Idle work (SCHED_IDLE) would stand back further, and
    starve where the cores are busy. These are requests; where the kernel refuses, or is older than
    6.12 and knows no slices of a thread's own, it goes on as it is.
    """
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
        with suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
        _take_long_slices(thread)


def _take_long_slices(thread: int) -> None:
    number = _SET_ATTRIBUTES.get(platform.machine())
    if number is not None:
        size = _ATTRIBUTES.size
        wanted = _ATTRIBUTES.pack(size, os.SCHED_BATCH, 0, NICENESS, 0, SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(number, thread, wanted, 0)
