"""`adaptd`: serve policies, and talk to a daemon that does."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from runtime import cli_policies, cli_sessions
from runtime.access.commands import keygen, keys
from runtime.benchmark.command import bench
from runtime.commandline import THERE, To, run_program, typed
from runtime.config import load_config
from runtime.daemon import Daemon
from runtime.exporter.command import exporter
from runtime.logs import Logging
from runtime.recording import commands as recordings
from runtime.signals import Signals
from runtime.signing.commands import sign, signing_key
from runtime.top.command import top
from runtime.view.command import view

USAGE = """\
usage: adaptd COMMAND ...

  serve [--config FILE] [settings]      serve a folder of bundles
  status                                sessions, policies and counters of a daemon
  view [FILE ...] [--html FILE]         look at sessions in Foxglove, PlotJuggler or any browser
  top                                   watch sessions in the terminal; keys act on them
  exporter [--port 9734]                metrics for Prometheus, on this machine alone
  shutdown                              stop a daemon in order
  bench [--scenarios ...] [--json]      speed on this machine, beside the floor

  keygen [NAME --roles ROLE ...]        make a client's key, or the daemon's
  keys [add|revoke|rotate|retire NAME]  who may connect over tcp

  policies                              the bundles a daemon can serve
  verify POLICY [--trust RW...]         check a bundle as the daemon would, and who signed it
  sign POLICY --signing-key FILE        check a bundle and sign it
  signing-key FILE                      make a key to sign bundles with
  load POLICY [--allow-downgrade]       verify a bundle and keep it in memory
  swap POLICY [--session N]             change the policy, between two ticks
  shadow POLICY [--session N]           let a policy run along, compared and not sent
  promote [--session N]                 let it take over
  rollback [--session N]                back to the policy before
  release POLICY                        end a policy's quarantine

  freeze | thaw [--session N]           keep the memory as it is; let it adapt again
  reset --session N                     forget: back to the prior
  snapshot FILE --session N             write the adaptation to a file
  restore FILE --session N              go on from it, or --last-good
  options --session N --set NAME=X      set what the policy lets one set
  stop | rearm [--session N]            answer by the fallback action; end that
  close --session N                     end a session

  record [FOLDER] [--session N]         write every tick to MCAP files
  recover FILE                          repair a file whose writer was killed
  replay FILE ... [--policy NAME]       run a recorded session again, to the bit; or a what-if
  convert FILE ... --to lerobot|parquet make training data of recordings

`adaptd COMMAND --help` lists the settings of one; --endpoint and --key say which daemon, and who.
"""

COUNTED = ("gaps", "missed", "repeated", "limited", "stale", "refused", "swaps")
"""Counters of a session that are worth a word where they are not zero."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    return run_program("adaptd", USAGE, COMMANDS, arguments)


def serve(
    config: Path | None = None,
    endpoint: str | None = None,
    models: Path | None = None,
    state: Path | None = None,
    keys: Path | None = None,
    policy: str | None = None,
    log_level: str | None = None,
) -> None:
    """Serve a folder of bundles until told to stop.

    Args:
        config: TOML file of settings; ADAPTD_<KEY> variables go over it, and these flags over both.
        endpoint: ipc://PATH, or tcp://HOST:PORT; beyond a loopback address with --keys only.
        models: folder of bundles.
        state: folder in which sessions survive.
        keys: folder of keys, as `adaptd keygen` makes it: only clients on its list may connect.
        policy: policy of sessions that name none.
        log_level: debug, info, warning or error.
    """
    flags = {
        "endpoint": endpoint, "models": models, "state": state, "policy": policy,
        "log_level": log_level, "keys": {"folder": keys} if keys else None,
    }  # fmt: skip
    signals = Signals()
    with signals.heard():
        settings = load_config(config, **flags)
        logs = Logging(settings.log_level)
        logs.configure()
        Daemon(settings, logs, partial(load_config, config, **flags), signals).run()


def status(to: To = THERE) -> None:
    """Show sessions, policies and counters."""
    with to.client() as client:
        facts = client.request("status")
    table = Table(box=None)
    for heading in ("session", "policy", "adaptation", "steps"):
        table.add_column(heading, no_wrap=True)
    table.add_column("besides")
    for row in facts["sessions"]:
        cells = (row["session"], row["policy"], row["adaptation"], row["steps"])
        table.add_row(*map(str, cells), ", ".join(_besides(row)))
    console = Console()
    console.print(table)
    console.print(f"in memory: {', '.join(facts['loaded']) or 'nothing'}")
    console.print(f"frames refused: {facts['refused_frames'] or 'none'}")
    if facts["access"] is not None:
        console.print(_access(facts["access"]))
    bundles = {kind: count for kind, count in facts["refused_bundles"].items() if count}
    console.print(f"bundles refused: {bundles or 'none'}")
    for policy, reason in facts["quarantined"].items():
        console.print(f"in quarantine: {policy}, {reason}")
    for sentence in facts["set_aside"]:
        console.print(f"set aside: {sentence}")
    for setting, answer in facts["realtime"].items():
        console.print(f"real-time {setting}: {answer}")
    for policy, size in facts["state_bytes_per_session"].items():
        console.print(f"state of one session of {policy}: {size / 1024:.0f} KiB")


def _access(facts: dict[str, Any]) -> str:
    """Who may connect, and who was refused."""
    refused = [facts["refused_handshakes"], *facts["refused_messages"].values()]
    count = sum(sum(found.values()) for found in refused)
    trouble = f"; {facts['trouble']}: the list before counts" if facts["trouble"] else ""
    return (
        f"keys: {facts['clients']} clients, {facts['connections']} connections, "
        f"{count} handshakes and messages refused{trouble}"
    )


def _besides(row: dict[str, Any]) -> list[str]:
    """What is worth saying of a session beyond its columns."""
    said = [word for word in ("frozen", "stopped", "asleep") if row[word]]
    if row["probation"]:
        said.append(f"on probation for {row['probation']} ticks")
    if row["candidate"]:
        candidate = row["candidate"]
        agreed = f"{100 * candidate['agreement']:.0f} % of {candidate['ticks']} ticks"
        said.append(f"{candidate['policy']} in the shadow agrees in {agreed}")
    return said + [f"{row[name]} {name}" for name in COUNTED if row[name]]


def shutdown(to: To = THERE) -> None:
    """Stop a daemon in order."""
    with to.client() as client:
        client.request("shutdown")


_POLICIES = ("policies", "verify", "load", "swap", "shadow", "promote", "rollback", "release")
_SESSIONS = (
    "freeze", "thaw", "reset", "snapshot", "restore", "options", "stop", "rearm", "close",
)  # fmt: skip
_FUNCTIONS = [
    serve,
    status,
    view,
    top,
    exporter,
    shutdown,
    bench,
    keygen,
    keys,
    *(getattr(cli_policies, name) for name in _POLICIES),
    sign,
    signing_key,
    *(getattr(cli_sessions, name) for name in _SESSIONS),
    recordings.record,
    recordings.recover,
    recordings.replay,
    recordings.convert,
]
_NAMED = {f.__name__.replace("_", "-"): f for f in _FUNCTIONS}
COMMANDS = {name: typed(f"adaptd {name}", f) for name, f in _NAMED.items()}

if __name__ == "__main__":
    sys.exit(main())
