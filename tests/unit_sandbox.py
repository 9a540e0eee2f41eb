"""The seccomp filters that systemd makes of a unit, put over a Python program.

    python -m tests.unit_sandbox UNIT[+DROP_IN ...] MODULE [ARGUMENTS ...]

As systemd's src/shared/seccomp-util.c does it: one filter for each directive, and the kernel
goes by the strictest. The sets of calls are asked of the systemd that is installed.
"""

import ctypes
import ctypes.util
import errno
import mmap
import os
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

UNITS = Path(__file__).parents[1] / "systemd"
Unit = dict[str, list[str]]
"""The values of each directive of [Service], in their order."""
ALLOW = 0x7FFF0000
_LESS, _EQUAL, _GREATER, _MASKED, _OTHER = 2, 4, 6, 7, 1
NAMESPACES = 0x7E020000
"""CLONE_NEW...: cgroup, UTS, IPC, user, PID, network, and mount."""
SUID_SGID = 0o6000
MODES = {
    "chmod": 1, "fchmod": 1, "fchmodat": 2, "mkdir": 1, "mkdirat": 2, "mknod": 1, "mknodat": 2,
    "open": 2, "openat": 3, "creat": 1,
}  # fmt: skip
"""Calls that take a file's mode, and which argument it is."""


class Compare(ctypes.Structure):
    """libseccomp's `struct scmp_arg_cmp`."""

    _fields_ = (
        ("argument", ctypes.c_uint), ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64), ("second", ctypes.c_uint64),
    )  # fmt: skip


class Rule(NamedTuple):
    """Calls that are treated otherwise than a filter's rest."""

    name: str
    action: int
    compare: Sequence[tuple[int, int, int, int]] = ()
    """(argument, operator, first, second); for a mask: it and the value."""


def read_unit(*paths: Path) -> Unit:
    """[Service] of a unit and its drop-ins; an empty value forgets those before it."""
    found: Unit = {}
    for path in paths:
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line
            elif section == "[Service]" and re.match(r"\w+=", line):
                name, _, value = line.partition("=")
                found[name] = [*found.get(name, []), value] if value else []
    return found


def system_calls(unit: Unit) -> set[str]:
    """What `SystemCallFilter=` leaves allowed."""
    allowed: set[str] = set()
    for value in unit["SystemCallFilter"]:
        named = {call for name in value.lstrip("~").split() for call in _calls_of(name)}
        allowed = allowed - named if value.startswith("~") else allowed | named
    return allowed | set(_calls_of("@default"))


def _calls_of(name: str) -> list[str]:
    """The calls of a set, and those of sets in it."""
    if not name.startswith("@"):
        return [name]
    lines = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    inside = [line.strip() for line in lines[1:] if line.startswith("    ")]
    return [call for i in inside if not i.startswith("#") for call in _calls_of(i)]


def filters_of(unit: Unit) -> list[tuple[int, list[Rule]]]:
    """The filters of a unit: what becomes of calls in general, and of some."""
    number = getattr(errno, unit.get("SystemCallErrorNumber", ["EPERM"])[-1])
    found = [(refuse(number), [Rule(call, ALLOW) for call in sorted(system_calls(unit))])]
    found.append((ALLOW, address_families(unit["RestrictAddressFamilies"][-1].split())))
    found += [(ALLOW, rules()) for name, rules in SWITCHES.items() if unit.get(name) == ["yes"]]
    return found


def refuse(number: int) -> int:
    """The action by which a call fails."""
    return 0x00050000 | number


def address_families(allowed: Sequence[str]) -> list[Rule]:
    """Refuse sockets of all other families."""
    numbers = sorted(int(getattr(socket, name)) for name in allowed)
    others = set(range(numbers[0], numbers[-1])) - set(numbers)
    action = refuse(errno.EAFNOSUPPORT)
    compares = [(0, _LESS, numbers[0], 0), (0, _GREATER, numbers[-1], 0)]
    compares += [(0, _EQUAL, family, 0) for family in sorted(others)]
    return [Rule("socket", action, [compare]) for compare in compares]


def _no_written_code() -> list[Rule]:
    both, action = mmap.PROT_WRITE | mmap.PROT_EXEC, refuse(errno.EPERM)
    execute = (2, _MASKED, mmap.PROT_EXEC, mmap.PROT_EXEC)
    return [
        Rule("mmap", action, [(2, _MASKED, both, both)]),
        Rule("mprotect", action, [execute]),
        Rule("pkey_mprotect", action, [execute]),
        Rule("shmat", action, [(2, _MASKED, 0o100000, 0o100000)]),
    ]


def _no_realtime() -> list[Rule]:
    wanted = (os.SCHED_FIFO, os.SCHED_RR, 6)  # 6: SCHED_DEADLINE
    action = refuse(errno.EPERM)
    return [Rule("sched_setscheduler", action, [(1, _EQUAL, policy, 0)]) for policy in wanted]


def _no_namespaces() -> list[Rule]:
    action = refuse(errno.EPERM)
    flags = [1 << bit for bit in range(32) if NAMESPACES & 1 << bit]
    return [
        Rule("clone3", refuse(errno.ENOSYS)),  # its flags are out of a filter's sight
        Rule("setns", action),
        *(Rule("unshare", action, [(0, _MASKED, flag, flag)]) for flag in flags),
        *(Rule("clone", action, [(0, _MASKED, flag, flag)]) for flag in flags),
    ]


def _no_suid() -> list[Rule]:
    bits = [bit for bit in (0o4000, 0o2000) if SUID_SGID & bit]
    rules = [
        Rule(call, refuse(errno.EPERM), [(argument, _MASKED, bit, bit)])
        for call, argument in MODES.items()
        for bit in bits
    ]
    return [*rules, Rule("openat2", refuse(errno.ENOSYS))]


def _same_personality() -> list[Rule]:
    return [Rule("personality", refuse(errno.EPERM), [(0, _OTHER, 0, 0)])]


def _none_of(*names: str) -> Callable[[], list[Rule]]:
    return lambda: [Rule(c, refuse(errno.EPERM)) for name in names for c in _calls_of(name)]


SWITCHES: dict[str, Callable[[], list[Rule]]] = {
    "MemoryDenyWriteExecute": _no_written_code,
    "RestrictRealtime": _no_realtime,
    "RestrictNamespaces": _no_namespaces,
    "RestrictSUIDSGID": _no_suid,
    "LockPersonality": _same_personality,
    "ProtectClock": _none_of("@clock"),
    "ProtectKernelModules": _none_of("@module"),
    "ProtectKernelLogs": _none_of("syslog"),
    "ProtectHostname": _none_of("sethostname", "setdomainname"),
    "PrivateDevices": _none_of("@raw-io"),
}
"""Directives that are yes or no, and make a filter."""


def library() -> ctypes.CDLL | None:
    """libseccomp, where it is installed; systemd itself needs it."""
    name = ctypes.util.find_library("seccomp")
    if name is None:
        return None
    found = ctypes.CDLL(name)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_load.argtypes = [ctypes.c_void_p]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compare),
    ]  # fmt: skip
    return found


def enter(unit: Unit) -> None:
    """Put a unit's filters over this process and all that it becomes."""
    seccomp = library()
    assert seccomp is not None
    # All are made before the first acts: to ask for the sets takes a process.
    made = [_filter(seccomp, default, rules) for default, rules in filters_of(unit)]
    for context in reversed(made):  # the one of calls in general last: it refuses seccomp itself
        if (failure := seccomp.seccomp_load(context)) != 0:
            raise OSError(-failure, "a filter cannot be put into force")


def _filter(seccomp: ctypes.CDLL, default: int, rules: Sequence[Rule]) -> int:
    context = seccomp.seccomp_init(default)
    for rule in rules:
        call = seccomp.seccomp_syscall_resolve_name(rule.name.encode())
        if call == -1 or rule.action == default:  # not of this kernel's time
            continue
        compares = (Compare * len(rule.compare))(*(Compare(*c) for c in rule.compare))
        failure = seccomp.seccomp_rule_add_array(
            context, rule.action, call, len(rule.compare), compares
        )
        if failure:
            raise OSError(-failure, f"{rule} cannot be added")
    return context


def main() -> None:
    """As the module says."""
    names, module = sys.argv[1].split("+"), sys.argv[2]
    enter(read_unit(*(UNITS / name for name in names)))
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
