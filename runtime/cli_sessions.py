"""`adaptd` commands about sessions: their switches, and adaptation as an object."""

import base64
from pathlib import Path
from typing import Annotated

import tyro

from runtime.client import Client
from runtime.commandline import THERE, To
from runtime.errors import InvalidConfig

Named = tyro.conf.Positional


def reset(session: int, to: To = THERE) -> None:
    """Put a session's memory back to the prior.

    Args:
        session: which session.
    """
    with to.client() as client:
        facts = client.request("reset", session=session)
    print(f"session {session} starts from the prior at seq {facts['next_seq']}")


def close(session: int, to: To = THERE) -> None:
    """End a session: its memory is forgotten.

    Args:
        session: which session.
    """
    with to.client() as client:
        client.request("close", session=session)
    print(f"session {session} is closed")


def freeze(session: int | None = None, to: To = THERE) -> None:
    """Keep a session's memory as it is: it acts, but adapts no more.

    Args:
        session: which session; all if not given.
    """
    _print_ids("frozen", to.client(), "freeze", session=session, frozen=True)


def thaw(session: int | None = None, to: To = THERE) -> None:
    """Let a frozen session adapt again.

    Args:
        session: which session; all if not given.
    """
    _print_ids("adapting again", to.client(), "freeze", session=session, frozen=False)


def stop(session: int | None = None, to: To = THERE) -> None:
    """Answer by the fallback action until re-armed.

    Args:
        session: which session; all if not given.
    """
    _print_ids("stopped", to.client(), "stop", session=session)


def rearm(session: int | None = None, to: To = THERE) -> None:
    """End a stop.

    Args:
        session: which session; all if not given.
    """
    _print_ids("armed", to.client(), "rearm", session=session)


def _print_ids(state: str, connection: Client, op: str, **fields: object) -> None:
    with connection as client:
        ids = client.request(op, **fields)["sessions"]
    print("\n".join(f"session {i} is {state}" for i in ids) or "no session is open")


def options(
    session: int,
    values: Annotated[list[str], tyro.conf.arg(name="set", metavar="NAME=NUMBER ...")],
    to: To = THERE,
) -> None:
    """Set options that a session's policy declares.

    Args:
        session: which session.
        values: name=number, any number of them.
    """
    try:
        wanted = {name: float(value) for name, value in (v.split("=") for v in values)}
    except ValueError:
        raise InvalidConfig(f"{' '.join(values)!r}: expected name=number ...") from None
    with to.client() as client:
        facts = client.request("options", session=session, values=wanted)
    print(", ".join(f"{name} = {value:g}" for name, value in facts["options"].items()))


def snapshot(file: Named[Path], session: int, to: To = THERE) -> None:
    """Write a session's adaptation to a file.

    Args:
        file: where to.
        session: which session.
    """
    with to.client() as client:
        facts = client.request("snapshot", session=session)
    try:
        file.write_bytes(base64.b64decode(facts["snapshot"]))
    except OSError as error:
        raise InvalidConfig(f"{file} cannot be written: {error.strerror}") from None
    print(
        f"{file}: {facts['policy']} as adapted at seq {facts['next_seq']}, {facts['bytes']} bytes"
    )


def restore(
    file: Annotated[Path | None, tyro.conf.Positional] = None,
    *,
    session: int,
    last_good: bool = False,
    to: To = THERE,
) -> None:
    """Let a session go on from a snapshot, or from its last good memory.

    Args:
        file: a snapshot of the same policy, from any daemon.
        session: which session.
        last_good: instead of a file.
    """
    fields: dict[str, object] = {"last_good": True} if last_good else {}
    if file is not None:
        try:
            fields["snapshot"] = base64.b64encode(file.read_bytes()).decode()
        except OSError as error:
            raise InvalidConfig(f"{file} cannot be read: {error.strerror}") from None
    with to.client() as client:
        facts = client.request("restore", session=session, **fields)
    print(f"session {session} goes on {facts['adaptation']} at seq {facts['from_seq']}")
