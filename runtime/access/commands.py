"""`adaptd keygen` and `adaptd keys`."""

from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from runtime.access.allowlist import Role
from runtime.access.key_folder import KeyFolder, make_pair
from runtime.errors import InvalidConfig
from runtime.keyfile import KEY, write_key

Named = tyro.conf.Positional
RoleName = Literal["drive", "operate", "observe"]


def keygen(
    name: Named[str | None] = None,
    roles: tuple[RoleName, ...] = (),
    folder: Path = Path("keys"),
    server: str | None = None,
) -> None:
    """Make keys: a client's, or the daemon's own where there is none yet.

    Args:
        name: of the client; if not given, only the daemon's key and an empty allow-list are made.
        roles: what the client may do: drive, operate, observe.
        folder: of the daemon's key and the allow-list; --keys of `adaptd serve`.
        server: the daemon's public key: on a client's own machine, so that its secret never
            leaves it. Only NAME.key is made then, in the working folder.
    """
    if server is not None:
        _make_own(name, server)
        return
    keys = KeyFolder(folder)
    if name is None:
        public = keys.prepare().public
        print(f"the daemon's public key is {public}\nserve with --keys {folder}")
        return
    if not roles:
        raise InvalidConfig(f"say what {name} may do: --roles, some of {', '.join(Role)}")
    path = keys.make_client(name, frozenset(map(Role, roles)))
    print(
        f"{path} lets {name} {' and '.join(sorted(roles))}: move it to that client alone, and name "
        f"it there by --key or ADAPTD_KEY; serve with --keys {folder}"
    )


def _make_own(name: str | None, server: str) -> None:
    if name is None:
        raise InvalidConfig("name the client: adaptd keygen NAME --server KEY")
    if not KEY.fullmatch(server):
        raise InvalidConfig(f"--server {server!r} is not a key of 40 characters")
    path, key = Path(f"{name}.key"), make_pair(name, server)
    write_key(path, key, f"key of {name}: for it alone")
    print(
        f"{path} is made. On the daemon's machine, with the roles that it is to have:\n"
        f"adaptd keys add {name} '{key.public}' --roles drive"
    )


def keys(
    action: Named[Literal["list", "add", "revoke", "rotate", "retire"]] = "list",
    name: Named[str | None] = None,
    public: Named[str | None] = None,
    roles: tuple[RoleName, ...] = (),
    folder: Path = Path("keys"),
) -> None:
    """Look at the allow-list or change it; a running daemon follows within a second.

    Args:
        action: list; add a client by its public key; revoke a client: it is let in no more, and
            its connections end; rotate: another key for it, both are let in; retire: only its
            newest key is, and its sessions stay its own.
        name: of the client.
        public: its public key, for add.
        roles: what it may do, for add.
        folder: of the allow-list.
    """
    found = KeyFolder(folder)
    if action == "list":
        _show(found)
        return
    if name is None:
        raise InvalidConfig(f"name the client: adaptd keys {action} NAME")
    if action == "add":
        if public is None or not roles:
            raise InvalidConfig(f"adaptd keys add {name} PUBLIC_KEY --roles ROLE ...")
        found.add(name, public, frozenset(map(Role, roles)))
        print(f"{name} may {' and '.join(sorted(roles))}")
    elif action == "revoke":
        found.revoke(name)
        print(f"{name} is let in no more; its sessions stay until they are closed")
    elif action == "rotate":
        path = found.rotate(name)
        print(f"{path} is another key of {name}; once it is in use: adaptd keys retire {name}")
    else:
        print(f"{found.retire(name)} older keys of {name} are let in no more")


def _show(found: KeyFolder) -> None:
    table = Table(box=None)
    for heading in ("client", "roles", "keys", "limits of its own"):
        table.add_column(heading)
    for name, client in found.clients().items():
        limits = client.model_dump(include={"sessions", "messages_per_s", "requests_per_s"})
        own = ", ".join(f"{k} {v:g}" for k, v in limits.items() if v is not None)
        shown = " ".join(f"{key[:8]}..." for key in client.keys)
        table.add_row(name, " ".join(sorted(client.roles)), shown, own)
    Console().print(table)
