"""A replay's outcome in sentences, or as one JSON object."""

import json
from dataclasses import asdict

import numpy as np
from rich.console import Console
from rich.table import Table

from runtime.recording.outcome import RerunReport
from runtime.recording.ticks import RecordedSession
from runtime.recording.what_if import WhatIf

SHOWN = 5
"""Differences that are told one by one."""


def say_rerun(report: RerunReport, recorded: RecordedSession, as_json: bool) -> None:
    """Print how a replay compared."""
    if as_json:
        print(json.dumps({**asdict(report), "is_exact": report.is_exact}))
        return
    for sentence in rerun_sentences(report, recorded):
        print(sentence)


def rerun_sentences(report: RerunReport, recorded: RecordedSession) -> list[str]:
    """How a replay compared, in words."""
    policies = " then ".join(report.policies) or "no policy"
    said = [
        f"session {report.session} through {policies}: {report.exact} of {report.compared} "
        f"ticks compared are the same to the bit, from seq {report.first_seq}"
    ]
    if report.checkpoints or report.checkpoints_differ:
        all_of_them = report.checkpoints + report.checkpoints_differ
        said.append(f"memory: {report.checkpoints} of {all_of_them} checkpoints agree to the bit")
    if report.filled:
        said.append(f"{report.filled} ticks that the recorder missed came from a checkpoint")
    for first, last, why in report.unchecked:
        said.append(f"not compared: seq {first} to {last}, {why}")
    said += report.notes
    for difference in report.differences[:SHOWN]:
        said.append(f"seq {difference.seq}: {difference.what} differs by {difference.by:.3g}")
    if len(report.differences) > SHOWN:
        said.append(f"... and {len(report.differences) - SHOWN} more")
    return said


def say_what_if(comparison: WhatIf, as_json: bool) -> None:
    """Print how another bundle would have acted."""
    if as_json:
        print(json.dumps(comparison.as_json()))
        return
    console = Console()
    console.print(
        f"{comparison.policy} on the {len(comparison.seqs)} recorded observations of session "
        f"{comparison.session} ({', '.join(comparison.recorded_policies)} acted)",
        highlight=False,
    )
    table = Table("action", "mean difference", "largest", "of its range", "correlation", box=None)
    for row in comparison.rows():
        table.add_row(
            row.name, f"{row.mean:.4g}", f"{row.largest:.4g}", f"{100 * row.of_range:.1f} %",
            "" if np.isnan(row.correlation) else f"{row.correlation:.3f}",
        )  # fmt: skip
    console.print(table)
    console.print(f"within 5 % of the range: {100 * comparison.agreement:.1f} % of ticks")
    for who, curve in (
        ("recorded", comparison.adaptation_recorded),
        (comparison.policy, comparison.adaptation),
    ):
        console.print(f"{who}: {_adapted(curve)}", highlight=False)
    for note in comparison.notes:
        console.print(note, highlight=False)


def _adapted(levels: np.ndarray) -> str:
    """How soon and how long a session was adapted, in words."""
    adapted = levels == 2
    if not adapted.any():
        return "never adapted"
    first, share = int(np.argmax(adapted)), 100 * adapted.mean()
    return f"adapted after {first} ticks, and in {share:.0f} % of them"
