"""`adaptd`: serve policies, and talk to a daemon that does."""

import sys
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from runtime.bench import bench
from runtime.client import Client
from runtime.commandline import run_program, typed
from runtime.config import load_config
from runtime.daemon import Daemon, configure_logging
from runtime.messages import default_endpoint
from runtime.store import Store
from runtime.swap import Migration

USAGE = """\
usage: adaptd COMMAND ...

  serve [--config FILE] [settings]      serve a folder of bundles
  status                                sessions, policies and counters of a daemon
  policies                              the bundles a daemon can serve
  swap POLICY [--session N]             change the policy, between two ticks
  rollback [--session N]                back to the policy before
  reset --session N                     forget: back to the prior
  close --session N                     end a session
  verify POLICY [--models DIR]          check a bundle as the daemon would
  shutdown                              stop a daemon in order
  bench [--scenarios ...] [--json]      speed on this machine, beside the floor

`adaptd COMMAND --help` lists the settings of one.
"""


COUNTED = ("gaps", "missed", "repeated", "limited", "refused", "swaps")
"""Counters of a session that are worth a word where they are not zero."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    return run_program("adaptd", USAGE, COMMANDS, arguments)


def serve(
    config: Path | None = None,
    endpoint: str | None = None,
    models: Path | None = None,
    policy: str | None = None,
    log_level: str | None = None,
) -> None:
    """Serve a folder of bundles until told to stop.

    Args:
        config: TOML file of settings; ADAPTD_<KEY> variables go over it, and these flags over both.
        endpoint: ipc://PATH, or tcp://HOST:PORT on a loopback address.
        models: folder of bundles.
        policy: policy of sessions that name none.
        log_level: debug, info, warning or error.
    """
    settings = load_config(
        config, endpoint=endpoint, models=models, policy=policy, log_level=log_level
    )
    configure_logging(settings.log_level)
    Daemon(settings).run()


def status(endpoint: str = default_endpoint()) -> None:
    """Show sessions, policies and counters.

    Args:
        endpoint: of the daemon.
    """
    with Client(endpoint) as client:
        facts = client.request("status")
    table = Table(box=None)
    for heading in ("session", "policy", "adaptation", "steps"):
        table.add_column(heading, no_wrap=True)
    table.add_column("besides")
    for row in facts["sessions"]:
        besides = [f"{row[name]} {name}" for name in COUNTED if row[name]]
        cells = (row["session"], row["policy"], row["adaptation"], row["steps"])
        table.add_row(*map(str, cells), ", ".join(besides))
    console = Console()
    console.print(table)
    console.print(f"in memory: {', '.join(facts['loaded']) or 'nothing'}")
    console.print(f"frames refused: {facts['refused_frames'] or 'none'}")


def policies(endpoint: str = default_endpoint()) -> None:
    """Show the bundles a daemon can serve.

    Args:
        endpoint: of the daemon.
    """
    with Client(endpoint) as client:
        rows = client.request("policies")["policies"]
    table = Table(box=None)
    table.add_column("policy", no_wrap=True)
    for heading in ("algorithm", "return per episode", "in memory"):
        table.add_column(heading)
    for row in rows:
        if "broken" in row:
            table.add_row(row["policy"], "broken", row["broken"], "")
            continue
        returns = " / ".join(f"{value:.0f}" for value in row["returns"])
        loaded = "yes" if row["loaded"] else ""
        table.add_row(row["policy"], row["algorithm"], returns, loaded)
    Console().print(table)


def swap(
    policy: tyro.conf.Positional[str],
    session: int | None = None,
    migration: Migration = "auto",
    endpoint: str = default_endpoint(),
) -> None:
    """Change the policy of one session, or of all, between two ticks.

    Args:
        policy: name or name@version.
        session: which session; all if not given.
        migration: keep the memory, replay recent transitions through the new policy, or reset.
        endpoint: of the daemon.
    """
    with Client(endpoint) as client:
        _print_swaps(client.request("swap", policy=policy, session=session, migration=migration))


def rollback(session: int | None = None, endpoint: str = default_endpoint()) -> None:
    """Go back to the policy before the last swap.

    Args:
        session: which session; all if not given.
        endpoint: of the daemon.
    """
    with Client(endpoint) as client:
        _print_swaps(client.request("rollback", session=session))


def reset(session: int, endpoint: str = default_endpoint()) -> None:
    """Put a session's memory back to the prior.

    Args:
        session: which session.
        endpoint: of the daemon.
    """
    with Client(endpoint) as client:
        facts = client.request("reset", session=session)
    print(f"session {session} starts from the prior at seq {facts['next_seq']}")


def close(session: int, endpoint: str = default_endpoint()) -> None:
    """End a session: its memory is forgotten.

    Args:
        session: which session.
        endpoint: of the daemon.
    """
    with Client(endpoint) as client:
        client.request("close", session=session)
    print(f"session {session} is closed")


def verify(policy: tyro.conf.Positional[str], models: Path = Path("exported_models")) -> None:
    """Check a bundle as the daemon would: hashes, graph, golden trace.

    Args:
        policy: name or name@version.
        models: folder of bundles.
    """
    loaded = Store(models).load(policy)
    files = ", ".join(loaded.manifest.files)
    print(f"{loaded.label} is sound: {files} as listed, golden trace replayed.")


def shutdown(endpoint: str = default_endpoint()) -> None:
    """Stop a daemon in order.

    Args:
        endpoint: of the daemon.
    """
    with Client(endpoint) as client:
        client.request("shutdown")


def _print_swaps(facts: dict) -> None:
    if not facts["swaps"]:
        print("no session to swap")
    for row in facts["swaps"]:
        replayed = f" over {row['replayed_steps']} steps" if row["carry"] == "replayed" else ""
        print(
            f"session {row['session']}: {row['old']} -> {row['new']} from seq {row['from_seq']}, "
            f"memory {row['carry']}{replayed}"
        )


COMMANDS = {
    function.__name__: typed(f"adaptd {function.__name__}", function)
    for function in (serve, status, policies, swap, rollback, reset, close, verify, shutdown, bench)
}

if __name__ == "__main__":
    sys.exit(main())
