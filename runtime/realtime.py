"""What a control loop asks of the operating system; what it refuses is reported, never skipped."""

import ctypes
import gc
import os
from collections.abc import Callable

import structlog

from runtime.config import RealtimeConfig

log = structlog.get_logger()

# On fault: a slab is mostly holes, which must not be filled for being locked.
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def apply(config: RealtimeConfig) -> dict[str, str]:
    """Ask for each setting, for the calling thread and process.

    Args:
        config: what is wanted; what is not asked for is left alone.

    Returns:
        "granted", or "refused: why", by setting.
    """
    wanted: dict[str, Callable[[], None]] = {}
    if config.affinity:
        wanted["affinity"] = lambda: os.sched_setaffinity(0, config.affinity)
    if config.mlock:
        wanted["mlock"] = _lock_memory
    if config.priority is not None:
        parameters = os.sched_param(config.priority)
        wanted["priority"] = lambda: os.sched_setscheduler(0, os.SCHED_FIFO, parameters)
    outcome = {name: _ask(ask) for name, ask in wanted.items()}
    if not config.collect_garbage:
        gc.disable()
        outcome["collect_garbage"] = "granted"
    for name, answer in outcome.items():
        report = log.info if answer == "granted" else log.warning
        report("realtime", setting=name, answer=answer)
    return outcome


def _ask(setting: Callable[[], None]) -> str:
    try:
        setting()
    except (OSError, OverflowError, ValueError) as error:
        return f"refused: {getattr(error, 'strerror', None) or error}"
    return "granted"


def _lock_memory() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
