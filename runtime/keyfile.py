"""Key files: who a client is, or a daemon; made by `adaptd keygen`.

    # comment
    name = "robot-1"
    public = "40 characters"
    secret = "40 characters, nobody else's business"
    server = "40 characters: the daemon's public key"

One file is all that a client needs. Robots import this: the standard library alone, and
Python 3.10. Keys are Curve25519's, written in Z85 as ZeroMQ does (rfc.zeromq.org/spec/32).
"""

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from runtime.errors import InvalidConfig

VARIABLE = "ADAPTD_KEY"
"""Names the key file of clients that are given none."""
SERVER_KEY = "server.key"
"""The daemon's own file in its folder of keys."""
KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
"""A key in Z85."""
_LINE = re.compile(r'(\w+)\s*=\s*"([^"]*)"\s*(?:#.*)?')


class Key(NamedTuple):
    """A pair of keys, and the daemon that it is for."""

    name: str
    public: str
    secret: str
    server: str = ""
    """The daemon's public key; empty in the daemon's own file."""

    def __repr__(self) -> str:
        return f"Key({self.name!r}, public={self.public!r})"  # never the secret


def read_key(path: Path) -> Key:
    """The key in a file.

    Raises:
        InvalidConfig: it cannot be read, others can read it too, or it is no key file.
    """
    try:
        with open(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read(10_000).splitlines()
    except OSError as error:
        raise InvalidConfig(f"the key file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidConfig(f"{path} is no key file: it is not text") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise InvalidConfig(
            f"the key file {path} is open to others (mode {stat.S_IMODE(mode):04o}): "
            f"`chmod 600 {path}`, and make a new key if anybody may have read it"
        )
    return _parse(lines, path)


def _parse(lines: list[str], path: Path) -> Key:
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] not in Key._fields or match[1] in found:
            expected = ", ".join(Key._fields)
            raise InvalidConfig(
                f'{path} is no key file: line {number} is not one of {expected} as NAME = "..."'
            )
        found[match[1]] = match[2]
    for name in ("public", "secret", *(["server"] if "server" in found else [])):
        if not KEY.fullmatch(found.get(name, "")):
            raise InvalidConfig(
                f"{path} is no key file: {name} is not a key of 40 characters; "
                f"`adaptd keygen` makes one"
            )
    return Key(**{"name": path.stem, **found})


def write_key(path: Path, key: Key, comment: str) -> None:
    """Write a new key file that its owner alone can read.

    Raises:
        InvalidConfig: it exists already, or cannot be written.
    """
    fields = [f'{name} = "{value}"' for name, value in key._asdict().items() if value]
    text = "\n".join([f"# {comment}", *fields, ""])
    try:
        # Made with its mode, so that there is no moment in which others can read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InvalidConfig(f"{path} exists already: keys are never written over") from None
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be written: {error.strerror}") from None
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def default_key() -> Path | None:
    """The key file of clients that are given none: $ADAPTD_KEY."""
    told = os.environ.get(VARIABLE)
    return Path(told) if told else None


def client_key(told: Key | Path | str | None) -> Key | None:
    """The key that a client is to use, if any: the one it is told, or the default.

    Raises:
        InvalidConfig: the file is none, or it is a daemon's own.
    """
    path = default_key() if told is None else told
    if path is None:
        return None
    key = path if isinstance(path, Key) else read_key(Path(path))
    if not key.server:
        raise InvalidConfig(
            f"the key of {key.name!r} names no daemon: a client's key file has the daemon's public "
            f"key as `server`"
        )
    return key
