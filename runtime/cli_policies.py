"""`adaptd` commands about policies: list, check, swap, shadow, promote, roll back."""

from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from runtime.commandline import THERE, To
from runtime.store import Store
from runtime.swap import Migration

Named = tyro.conf.Positional
PATIENCE_S = 120.0
"""Changing the policy of many sessions replays the history of each, one after the other."""


def policies(to: To = THERE) -> None:
    """Show the bundles a daemon can serve."""
    with to.client() as client:
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
        loaded = "in quarantine" if row["quarantined"] else loaded
        table.add_row(row["policy"], row["algorithm"], returns, loaded)
    Console().print(table)


def load(policy: Named[str], to: To = THERE) -> None:
    """Let a daemon verify a bundle and keep it in memory.

    Args:
        policy: name or name@version.
    """
    with to.client() as client:
        print(f"{client.request('load', policy=policy)['policy']} is in memory")


def verify(policy: Named[str], models: Path = Path("exported_models")) -> None:
    """Check a bundle as the daemon would: hashes, graphs, golden trace, batches.

    Args:
        policy: name or name@version.
        models: folder of bundles.
    """
    loaded = Store(models).load(policy)
    files = ", ".join(loaded.manifest.files)
    batches = "do not depend" if loaded.batch_invariant else "depend"
    print(
        f"{loaded.label} is sound: {files} as listed, golden trace replayed; "
        f"a session's bits {batches} on the batch on this machine."
    )


def swap(
    policy: Named[str],
    session: int | None = None,
    migration: Migration = "auto",
    blend: int | None = None,
    to: To = THERE,
) -> None:
    """Change the policy of one session, or of all, between two ticks.

    Args:
        policy: name or name@version.
        session: which session; all if not given.
        migration: keep the memory, replay recent transitions through the new policy, or reset.
        blend: ticks over which the old action becomes the new one; as configured if not given.
    """
    fields = {"policy": policy, "session": session, "migration": migration, "blend": blend}
    with to.client(PATIENCE_S) as client:
        _print_swaps(client.request("swap", **fields))


def shadow(
    policy: Named[str] = "none",
    session: int | None = None,
    to: To = THERE,
) -> None:
    """Let a policy run along, its actions compared and not sent; `status` shows how it does.

    Args:
        policy: name or name@version; "none" ends it.
        session: which session; all if not given.
    """
    wanted = None if policy == "none" else policy
    with to.client(PATIENCE_S) as client:
        rows = client.request("shadow", policy=wanted, session=session)["shadows"]
    for row in rows:
        steps = row["steps_replayed"]
        print(f"session {row['session']}: {row['candidate']} runs along, after {steps} steps")
    if not rows:
        print("nothing runs along")


def promote(session: int | None = None, blend: int | None = None, to: To = THERE) -> None:
    """Let the policy that runs along take over.

    Args:
        session: which session; all if not given.
        blend: ticks over which the old action becomes the new one; as configured if not given.
    """
    with to.client(PATIENCE_S) as client:
        _print_swaps(client.request("promote", session=session, blend=blend))


def rollback(session: int | None = None, to: To = THERE) -> None:
    """Go back to the policy before the last swap.

    Args:
        session: which session; all if not given.
    """
    with to.client(PATIENCE_S) as client:
        _print_swaps(client.request("rollback", session=session))


def release(policy: Named[str], to: To = THERE) -> None:
    """End a policy's quarantine, so that it can be tried again.

    Args:
        policy: name@version.
    """
    with to.client() as client:
        print(f"{client.request('release', policy=policy)['policy']} may be used again")


def _print_swaps(facts: dict) -> None:
    if not facts["swaps"]:
        print("no session to swap")
    for row in facts["swaps"]:
        replayed = f" over {row['replayed_steps']} steps" if row["carry"] == "replayed" else ""
        print(
            f"session {row['session']}: {row['old']} -> {row['new']} from seq {row['from_seq']}, "
            f"memory {row['carry']}{replayed}"
        )
