"""`adaptd status` and `shutdown`: what a daemon says of itself, and its end."""

from typing import Any

from rich.console import Console
from rich.table import Table

from runtime.commandline import THERE, To

COUNTED = ("gaps", "missed", "repeated", "limited", "stale", "refused", "swaps")
"""Counters of a session that are worth a word where they are not zero."""


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
