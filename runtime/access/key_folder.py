"""The folder of keys as an operator changes it: the daemon's key, clients' keys, the allow-list."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import zmq

from runtime.access.allowlist import (
    FILE,
    AllowList,
    Client,
    Role,
    parse_allowlist,
    read_allowlist,
    with_client,
    without_client,
)
from runtime.errors import InvalidConfig, UnknownName
from runtime.in_place import put_in_place
from runtime.keyfile import SERVER_KEY, Key, read_key, write_key

_HEADER = """\
# Who may connect to adaptd, and as what. `adaptd keys` edits this file; so may you.
# The daemon follows it: what is written here counts within a second.

"""


def make_pair(name: str, server: str = "") -> Key:
    """A new pair of keys.

    Args:
        name: of whose it is.
        server: the daemon's public key, in a client's.
    """
    while True:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        if not public.startswith("-"):  # it would be taken for an option
            return Key(name, public, secret, server)


class KeyFolder:
    """Reads and changes one folder."""

    def __init__(self, folder: Path):
        self.folder, self.list = folder, folder / FILE

    def prepare(self) -> Key:
        """The daemon's key; it and an empty allow-list are made if they are not there.

        Raises:
            InvalidConfig: they cannot be read or written.
        """
        try:
            self.folder.mkdir(parents=True, mode=0o750, exist_ok=True)
        except OSError as error:
            raise InvalidConfig(f"{self.folder} cannot be made: {error.strerror}") from None
        path = self.folder / SERVER_KEY
        if not path.exists():
            write_key(path, make_pair("server"), "adaptd's own key: for the daemon alone")
        if not self.list.exists():
            self._write(_HEADER)
        return read_key(path)

    def clients(self) -> AllowList:
        """Those of the allow-list."""
        return read_allowlist(self.list)

    def make_client(self, name: str, roles: frozenset[Role]) -> Path:
        """A key for a new client, which is put on the list; its file.

        Raises:
            InvalidConfig: there is such a client already, or something cannot be written.
        """
        server = self.prepare()
        path, key = self.folder / f"{name}.key", make_pair(name, server.public)
        client = Client(keys=(key.public,), roles=roles)
        with self._changing() as content:  # a name that cannot be is found before a file is made
            if name in self.clients():
                raise InvalidConfig(
                    f"{self.list} has a client {name!r} already: `adaptd keys rotate {name}` makes "
                    f"another key for it"
                )
            text = with_client(content, name, client)
            parse_allowlist(text.encode(), self.list)
            write_key(path, key, f"key of {name}: for it alone")
            self._write(text)
        return path

    def add(self, name: str, public: str, roles: frozenset[Role]) -> None:
        """Put a client on the list that has made its key itself."""
        self.prepare()
        entry = Client.model_construct(keys=(public,), roles=roles)
        with self._changing() as content:
            if name in self.clients():
                raise InvalidConfig(f"{self.list} has a client {name!r} already")
            self._write(with_client(content, name, entry))

    def revoke(self, name: str) -> None:
        """Take a client off the list.

        Raises:
            UnknownName: it is not on it.
        """
        with self._changing() as content:
            self._write(without_client(content, name, self.clients()))

    def rotate(self, name: str) -> Path:
        """Another key for a client; those that it has are let in too, until `retire`."""
        key = make_pair(name, self.prepare().public)
        with self._changing() as content:
            client = self._client(name)
            number = 2
            while (path := self.folder / f"{name}-{number}.key").exists():
                number += 1
            write_key(path, key, f"key of {name}: for it alone")
            more = client.model_copy(update={"keys": (*client.keys, key.public)})
            self._write(with_client(content, name, more))
        return path

    def retire(self, name: str) -> int:
        """Let in only the newest key of a client, whose sessions stay its own.

        Returns:
            How many keys are let in no more.
        """
        with self._changing() as content:
            client = self._client(name)
            *old, newest = client.keys
            changes = {"keys": (newest,), "former": (*client.former, *old)}
            self._write(with_client(content, name, client.model_copy(update=changes)))
        return len(old)

    def _client(self, name: str) -> Client:
        clients = self.clients()
        if name not in clients:
            raise UnknownName("client", name, clients)
        return clients[name]

    @contextmanager
    def _changing(self) -> Iterator[str]:
        """The list's text, while nobody else changes it by this program.

        What is to be changed is looked at inside: else one who has been revoked might come back.
        """
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidConfig(f"{self.folder} cannot be read: {error.strerror}") from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self.clients()  # what is no list is not written over
            yield self.list.read_text()
        finally:
            os.close(folder)

    def _write(self, content: str) -> None:
        """Put a text in the list's place, all at once; one that is no list is refused."""
        parse_allowlist(content.encode(), self.list)
        part = self.list.with_name(f".{FILE}.{os.getpid()}")
        try:
            with open(part, "w") as file:
                self._keep_access(file.fileno())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(part, self.list)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise InvalidConfig(f"{self.list} cannot be written: {error.strerror}") from None

    def _keep_access(self, new: int) -> None:
        """Let whoever could read the list read the new one: the daemon is another user, and would
        go on with the list before."""
        try:
            old = os.stat(self.list)
        except FileNotFoundError:
            return
        with suppress(PermissionError):  # another user's that we may write beside is ours now
            os.fchown(new, old.st_uid, old.st_gid)
        os.fchmod(new, stat.S_IMODE(old.st_mode))
