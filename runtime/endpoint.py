"""Where a daemon may serve: an address of this machine that no other daemon serves."""

import fcntl
import ipaddress
import os
from pathlib import Path

from runtime.errors import InvalidConfig
from runtime.messages import Planes, planes

IPC_PATH_LIMIT = 107
"""Bytes of the longest socket path that the kernel takes."""


def take_endpoint(endpoint: str, keys: bool = False) -> int | None:
    """A lock that says this endpoint is served, so that a second daemon cannot take it over.

    The folder of its sockets is made for this user alone if it is not there.

    Returns:
        The lock's file descriptor; None for tcp, where binding twice fails anyway.

    Raises:
        InvalidConfig: it is served already, or its folder is another user's.
    """
    check_endpoint(endpoint, keys)
    if not endpoint.startswith("ipc://"):
        return None
    path = Path(endpoint.removeprefix("ipc://") + "-lock")
    try:
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        owner = path.parent.stat().st_uid
        if owner not in (0, os.getuid()):
            raise InvalidConfig(f"{path.parent} belongs to another user (uid {owner})")
        lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidConfig(f"another adaptd serves {endpoint} already") from None
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be written: {error.strerror}") from None
    return lock


def check_endpoint(endpoint: str, keys: bool = False) -> Planes:
    """The addresses of an endpoint that may be bound.

    Args:
        endpoint: of the configuration.
        keys: whether who connects is asked for a key.

    Raises:
        InvalidConfig: it is malformed, its path too long, not on this machine alone without
            keys, or not tcp with them.
    """
    addresses = planes(endpoint)
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and keys:
        raise InvalidConfig(
            f"[keys] are for tcp: whoever may enter the folder of {endpoint} may connect to it"
        )
    if scheme == "ipc":
        longest = max(len(a.removeprefix("ipc://")) for a in addresses)
        if longest > IPC_PATH_LIMIT:
            raise InvalidConfig(
                f"the socket path of {endpoint} takes {longest} bytes, at most {IPC_PATH_LIMIT} fit"
            )
    elif not keys and not _is_loopback(rest.rpartition(":")[0]):
        raise InvalidConfig(
            f"{endpoint} is open to other machines, so it takes keys: make them by `adaptd keygen "
            f"ROBOT --roles drive --folder KEYS` and serve with --keys KEYS; without keys, "
            f"tcp://127.0.0.1:5700 is open to this machine alone"
        )
    return addresses


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
