"""How processes beside the daemon behave on a machine whose cores the control path needs."""

import os
from contextlib import suppress

NICENESS = 10


def stand_back() -> None:
    """Let the scheduler prefer the daemon and its robots to this process, from now on.

    Its threads become batch work: they do not interrupt whoever runs when a tick comes, and catch
    up after. These are requests; where the kernel refuses, it goes on as it is.
    """
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
        with suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
