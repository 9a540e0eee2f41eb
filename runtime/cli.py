"""`adaptd`: serve policies, and talk to a daemon that does."""

import sys

from runtime.commandline import run_program, typed

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

MODULES = {
    "runtime.cli_serve": ("serve",),
    "runtime.cli_status": ("status", "shutdown"),
    "runtime.view.command": ("view",),
    "runtime.top.command": ("top",),
    "runtime.exporter.command": ("exporter",),
    "runtime.benchmark.command": ("bench",),
    "runtime.access.commands": ("keygen", "keys"),
    "runtime.cli_policies": (
        "policies", "verify", "load", "swap", "shadow", "promote", "rollback", "release",
    ),
    "runtime.signing.commands": ("sign", "signing_key"),
    "runtime.cli_sessions": (
        "freeze", "thaw", "reset", "snapshot", "restore", "options", "stop", "rearm", "close",
    ),
    "runtime.recording.commands": ("record", "recover", "replay", "convert"),
}  # fmt: skip
"""Where the function of each command is. Only the one that is run is imported: a daemon that
comes back after a crash does not wait for the modules of the others."""
COMMANDS = {
    (name := function.replace("_", "-")): typed(f"adaptd {name}", f"{module}:{function}")
    for module, functions in MODULES.items()
    for function in functions
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    return run_program("adaptd", USAGE, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
