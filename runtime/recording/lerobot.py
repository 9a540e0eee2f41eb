"""Recordings as a LeRobot dataset: episodes to learn from.

The layout is v3.0: ``meta/info.json``, ``meta/stats.json``, ``meta/tasks.parquet``,
``meta/episodes/chunk-000/file-000.parquet`` and ``data/chunk-000/file-000.parquet``; there
are no videos, since adaptd's observations are numbers.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from runtime.errors import InvalidRecording, NotSaved
from runtime.messages import Limit, ObservationFlag
from runtime.recording.table import must_not_exist, write_table
from runtime.recording.ticks import RecordedSession
from runtime.spec import Manifest

LEROBOT_VERSION = "v3.0"
CHUNK = "chunk-000/file-000.parquet"
MOST_PER_FILE = 1000
_STARTS = int(ObservationFlag.EPISODE_START | ObservationFlag.NEW_TASK)
_NEW_TASK = int(ObservationFlag.NEW_TASK)
_NOT_THE_POLICYS = int(
    Limit.NOT_FINITE | Limit.STALE | Limit.SLOW | Limit.INVALID | Limit.STUCK | Limit.STOPPED
)
"""Limits at which the fallback was applied, and not what a policy wanted."""


class Frame(NamedTuple):
    """One step as a learner sees it: what was seen, done, and got for it."""

    observation: NDArray[np.float32]  # (O,)
    action: NDArray[np.float32]  # (A,), as applied
    reward: float
    new_task: bool
    intervened: bool
    """The fallback action was applied."""


def episodes(recorded: RecordedSession) -> Iterator[list[Frame]]:
    """The steps of each episode of a recorded session.

    An action and its reward are told by the tick after, so an episode's last step, whose
    outcome nobody told, ends with the episode: where the next tick begins another episode
    its reward is still this one's; the recording's very last step is left out.
    """
    frames: list[Frame] = []
    for tick, after in zip(recorded.ticks[:-1], recorded.ticks[1:], strict=True):
        if tick.observation_flags & _STARTS and frames:
            yield frames
            frames = []
        if after.seq != tick.seq + 1:  # ticks are missing: what it led to is not known
            if frames:
                yield frames
            frames = []
            continue
        action = after.echo if after.echo.size else tick.applied
        told = not after.observation_flags & _NEW_TASK
        frames.append(
            Frame(
                tick.observation, action, after.reward if told else 0.0,
                bool(tick.observation_flags & _NEW_TASK), bool(tick.limits & _NOT_THE_POLICYS),
            )
        )  # fmt: skip
    if frames:
        yield frames


def to_lerobot(sessions: list[RecordedSession], folder: Path, task: str = "") -> str:
    """Write a LeRobotDataset v3.0 of all episodes.

    Args:
        sessions: of robots with the same observations and actions.
        folder: to make.
        task: in words; the policy's family if empty.

    Returns:
        What was made, in words.

    Raises:
        InvalidRecording: `folder` exists, a manifest is missing, the robots differ, or there
            is no whole step.
        NotSaved: it cannot be written.
    """
    must_not_exist(folder)
    manifest = _one_manifest(sessions)
    found = [frames for recorded in sessions for frames in episodes(recorded)]
    if not found:
        raise InvalidRecording("the recording has no two ticks in a row: there is no step to write")
    words = task or manifest.family
    table = _frames_table(found, manifest.control_hz)
    write_table(table, folder / "data" / CHUNK)
    write_table(_episodes_table(found, table, words), folder / "meta" / "episodes" / CHUNK)
    write_table(_tasks_table(words), folder / "meta" / "tasks.parquet")
    _write_json(_info(manifest, found), folder / "meta" / "info.json")
    _write_json(_statistics(table), folder / "meta" / "stats.json")
    steps = sum(map(len, found))
    return f"{folder}: {len(found)} episodes, {steps} frames, LeRobot {LEROBOT_VERSION}"


def _one_manifest(sessions: list[RecordedSession]) -> Manifest:
    """What the robots' elements are called; all must agree."""
    found: dict[str, Manifest] = {}
    for recorded in sessions:
        for label in {recorded.policy_of(tick) for tick in recorded.ticks} - {None}:
            if label in recorded.manifests:
                found[str(label)] = recorded.manifests[str(label)]
    if not found:
        raise InvalidRecording(
            "the recording has no manifest, which says what the elements are called and how "
            "often the robot acts; --to parquet needs none"
        )
    first = next(iter(found.values()))
    for label, manifest in found.items():
        if _robot(manifest) != _robot(first):
            raise InvalidRecording(
                f"{label} drives another robot than {first.name}@{first.version}: convert them "
                f"one by one with --session"
            )
    return first


def _robot(manifest: Manifest) -> tuple[list[str], list[str], float]:
    """What two policies of one robot agree on."""
    observation, action = manifest.observation, manifest.action
    return [e.name for e in observation], [e.name for e in action], manifest.control_hz


def _frames_table(found: list[list[Frame]], control_hz: float) -> pa.Table:
    flat = [frame for frames in found for frame in frames]
    lengths = [len(frames) for frames in found]
    last = np.zeros(len(flat), bool)
    last[np.cumsum(lengths) - 1] = True
    inside = np.concatenate([np.arange(n) for n in lengths])
    columns = {
        "observation.state": _fixed([f.observation for f in flat]),
        "action": _fixed([f.action for f in flat]),
        "next.reward": pa.array([f.reward for f in flat], pa.float32()),
        "next.done": pa.array(last),
        "new_task": pa.array([f.new_task for f in flat], pa.bool_()),
        "intervened": pa.array([f.intervened for f in flat], pa.bool_()),
        "timestamp": pa.array((inside / control_hz).astype(np.float32)),
        "frame_index": pa.array(inside.astype(np.int64)),
        "episode_index": pa.array(np.repeat(np.arange(len(found)), lengths).astype(np.int64)),
        "index": pa.array(np.arange(len(flat), dtype=np.int64)),
        "task_index": pa.array(np.zeros(len(flat), np.int64)),
    }
    return pa.table(columns)


def _fixed(vectors: list[NDArray[np.float32]]) -> pa.Array:
    """Vectors of one length as a column."""
    size = len(vectors[0])
    return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors)), size)


def _episodes_table(found: list[list[Frame]], table: pa.Table, task: str) -> pa.Table:
    rows, begin = [], 0
    for index, frames in enumerate(found):
        end = begin + len(frames)
        row: dict[str, Any] = {
            "episode_index": index, "tasks": [task], "length": len(frames),
            "data/chunk_index": 0, "data/file_index": 0,
            "dataset_from_index": begin, "dataset_to_index": end,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
        }  # fmt: skip
        part = _statistics(table.slice(begin, len(frames)))
        row |= {f"stats/{k}/{name}": v for k, stats in part.items() for name, v in stats.items()}
        rows.append(row)
        begin = end
    return pa.Table.from_pylist(rows)


def _statistics(table: pa.Table) -> dict[str, dict[str, list[float]]]:
    """Smallest, largest, mean, deviation and count of each number."""
    found = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        values = np.asarray(
            column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        )
        values = values.reshape(len(table), -1).astype(np.float64)
        found[name] = {
            "min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist(),
            "mean": values.mean(axis=0).tolist(), "std": values.std(axis=0).tolist(),
            "count": [len(values)],
        }  # fmt: skip
    return found


def _tasks_table(task: str) -> pa.Table:
    """As pandas writes a table whose index is the task's words, which LeRobot reads."""
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": pa.array([task])})
    types = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    columns = [
        {"name": n, "field_name": n, "pandas_type": p, "numpy_type": k, "metadata": None}
        for n, p, k in types
    ]
    said = {"index_columns": ["task"], "columns": columns, "column_indexes": []}
    return table.replace_schema_metadata({"pandas": json.dumps(said)})


def _info(manifest: Manifest, found: list[list[Frame]]) -> dict[str, Any]:
    def feature(dtype: str, shape: list[int], names: list[str] | None = None) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "names": names}

    state, action = [e.name for e in manifest.observation], [e.name for e in manifest.action]
    steps = sum(map(len, found))
    return {
        "codebase_version": LEROBOT_VERSION,
        "robot_type": manifest.family,
        "total_episodes": len(found),
        "total_frames": steps,
        "total_tasks": 1,
        "chunks_size": MOST_PER_FILE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": rate if (rate := manifest.control_hz) % 1 else int(rate),
        "splits": {"train": f"0:{len(found)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": {
            "observation.state": feature("float32", [len(state)], state),
            "action": feature("float32", [len(action)], action),
            "next.reward": feature("float32", [1]),
            "next.done": feature("bool", [1]),
            "new_task": feature("bool", [1]),
            "intervened": feature("bool", [1]),
            "timestamp": feature("float32", [1]),
            **{
                name: feature("int64", [1])
                for name in ("frame_index", "episode_index", "index", "task_index")
            },
        },
    }


def _write_json(content: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(json.dumps(content, indent=4))
    except OSError as error:
        raise NotSaved(f"{path} cannot be written: {error.strerror}") from None
