"""The allow-list: whose keys a daemon knows, and what each client may do.

[robot-1]
keys = ["40 characters"]     # two while one takes the place of the other
roles = ["drive"]
former = ["40 characters"]   # no longer let in, but their sessions are this client's
sessions = 8                 # of its own limits, if they differ from those of [keys]
"""

import os
import stat
import tomllib
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from runtime.errors import InvalidConfig, UnknownName
from runtime.keyfile import KEY

FILE = "clients.toml"
MAX_BYTES = 1 << 20
NAME = r"^[A-Za-z0-9_-]{1,64}$"
_Key = Annotated[str, Field(pattern=rf"^{KEY.pattern}$")]


class Role(StrEnum):
    """What a client may be let do."""

    DRIVE = "drive"  # open sessions, send observations for them, and look after them
    OPERATE = "operate"  # swap, stop, re-arm ... any session, and stop the daemon
    OBSERVE = "observe"  # see every tick, the status and snapshots


class Client(BaseModel):
    """One entry of the list."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    keys: tuple[_Key, ...] = Field(min_length=1)
    roles: frozenset[Role] = Field(min_length=1)
    former: tuple[_Key, ...] = ()
    sessions: PositiveInt | None = None
    messages_per_s: PositiveFloat | None = None
    requests_per_s: PositiveFloat | None = None

    @property
    def owned(self) -> frozenset[str]:
        """The keys whose sessions are this client's."""
        return frozenset(self.keys + self.former)


AllowList = dict[str, Client]
"""Clients by name."""
_PARSER = TypeAdapter(dict[Annotated[str, Field(pattern=NAME)], Client])


def read_allowlist(path: Path) -> AllowList:
    """The clients of a file.

    Raises:
        InvalidConfig: it cannot be read, anybody may write it, it is no allow-list, or a key
            stands in it twice.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(
            f"the allow-list {path} cannot be read: {error.strerror}; `adaptd keygen` makes one"
        ) from None
    if mode & stat.S_IWOTH:
        raise InvalidConfig(
            f"anybody may write the allow-list {path}: `chmod o-w {path}`, and look at who is on it"
        )
    if len(content) > MAX_BYTES:
        raise InvalidConfig(f"the allow-list {path} has more than {MAX_BYTES} bytes")
    return parse_allowlist(content, path)


def parse_allowlist(content: bytes, path: Path) -> AllowList:
    """As `read_allowlist`, of a file's content."""
    try:
        clients = _PARSER.validate_python(tomllib.loads(content.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"the allow-list {path} is not TOML: {error}") from None
    except ValidationError as error:
        # What was found there is not told: it may be a secret, put into the wrong file.
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidConfig(f"the allow-list {path}: {place}: {first['msg']}") from None
    _check_once(clients, path)
    return clients


def _check_once(clients: AllowList, path: Path) -> None:
    """A key tells who somebody is, so it is one client's."""
    seen: dict[str, str] = {}
    for name, client in clients.items():
        for key in client.keys + client.former:
            if key in seen:
                raise InvalidConfig(
                    f"the allow-list {path}: the key {key[:8]}... stands in it twice, "
                    f"for {seen[key]} and for {name}"
                )
            seen[key] = name


def with_client(content: str, name: str, client: Client) -> str:
    """The text of a list with a client added or replaced; comments of others stay."""
    blocks = _blocks(content)
    blocks[name] = _as_text(name, client)
    return "".join(blocks.values())


def without_client(content: str, name: str, known: Iterable[str]) -> str:
    """The text of a list without a client.

    Raises:
        UnknownName: it is not on the list.
    """
    blocks = _blocks(content)
    if name not in known or name not in blocks:
        raise UnknownName("client", name, known)
    del blocks[name]
    return "".join(blocks.values())


def _blocks(content: str) -> dict[str, str]:
    """The text under each header, and under "" what is above the first."""
    blocks, name = {"": ""}, ""
    for line in content.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            name = line.strip().partition("]")[0].strip("[ \"'")
            blocks[name] = ""
        blocks[name] += line
    return blocks


def _as_text(name: str, client: Client) -> str:
    facts = client.model_dump(mode="json", exclude_defaults=True)
    facts["roles"].sort()
    lines = [f"{key} = {_value(value)}" for key, value in facts.items()]
    return "\n".join([f"[{name}]", *lines, "", ""])


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return str(value)
