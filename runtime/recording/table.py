"""Recordings as one parquet table: a row per tick, with all that is said of it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runtime.errors import InvalidRecording, NotSaved
from runtime.messages import Adaptation, Limit, ObservationFlag
from runtime.recording.ticks import RecordedSession, RecordedTick

_ADAPTATIONS = [a.name.lower() for a in Adaptation]


def to_parquet(sessions: list[RecordedSession], path: Path) -> str:
    """Write one row per tick with all that the recordings say of it.

    Returns:
        What was made, in words.

    Raises:
        InvalidRecording: `path` exists.
        NotSaved: it cannot be written.
    """
    must_not_exist(path)
    rows = [_row(recorded, tick) for recorded in sessions for tick in recorded.ticks]
    write_table(pa.Table.from_pylist(rows, _SCHEMA), path)
    return f"{path}: {len(rows)} ticks of {len(sessions)} sessions"


_FLOATS = pa.list_(pa.float32())
_SCHEMA = pa.schema(
    {
        "session": pa.uint64(),
        "seq": pa.uint64(),
        "time": pa.timestamp("us", tz="UTC"),
        "policy": pa.string(),
        "generation": pa.uint32(),
        "observation": _FLOATS,
        "action_requested": _FLOATS,
        "action_applied": _FLOATS,
        "action_reported": _FLOATS,
        "limited_by": pa.list_(pa.string()),
        "reward": pa.float32(),
        "episode_start": pa.bool_(),
        "new_task": pa.bool_(),
        "belief": _FLOATS,
        "adaptation": pa.string(),
        "queue_us": pa.float32(),
        "inference_us": pa.float32(),
    }
)


def _row(recorded: RecordedSession, tick: RecordedTick) -> dict[str, Any]:
    return {
        "session": recorded.session,
        "seq": tick.seq,
        "time": tick.at_ns // 1000,
        "policy": recorded.policy_of(tick),
        "generation": tick.generation,
        "observation": tick.observation,
        "action_requested": tick.requested,
        "action_applied": tick.applied,
        "action_reported": tick.echo,
        "limited_by": [(x.name or "").lower() for x in Limit(tick.limits)],
        "reward": tick.reward,
        "episode_start": bool(tick.observation_flags & ObservationFlag.EPISODE_START),
        "new_task": bool(tick.observation_flags & ObservationFlag.NEW_TASK),
        "belief": tick.belief,
        "adaptation": _ADAPTATIONS[tick.adaptation],
        "queue_us": tick.queue_us,
        "inference_us": tick.inference_us,
    }


def must_not_exist(path: Path) -> None:
    """See that nothing is overwritten.

    Raises:
        InvalidRecording: something of that name exists.
    """
    if path.exists():
        raise InvalidRecording(f"{path} exists already: choose another name by --into")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a parquet file, and its folder.

    Raises:
        NotSaved: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")
    except OSError as error:
        raise NotSaved(f"{path} cannot be written: {error.strerror or error}") from None
