"""The recorded session that ships: it must replay exactly, and all that is made of it be sound."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidRecording
from runtime.recording.channels import this_machine
from runtime.recording.lerobot import episodes, to_lerobot
from runtime.recording.picture import draw
from runtime.recording.reading import Recording
from runtime.recording.rerun import rerun
from runtime.recording.table import to_parquet
from runtime.recording.what_if import what_if
from runtime.spec import split_reference
from runtime.store import Store
from sim.recorded import open_again, send_again
from tests.bundles import write_bundle
from tests.conftest import SHIPPED
from tests.make_recorded_session import RECORDED, SESSION

GRU, LSTM = "halfcheetah-vel-rl2-gru", "halfcheetah-vel-rl2-lstm"
VERSION = {name: Store(SHIPPED).load(name).manifest.version for name in (GRU, LSTM)}
TICKS = 240
ANOTHER_MACHINE_ATOL = 1e-4
"""Largest difference on a processor whose matrix products round otherwise."""


@pytest.fixture
def recorded():
    return Recording([RECORDED]).session()


def test_it_holds_a_swap_a_restart_and_a_reset(recorded):
    assert recorded.session == SESSION and len(recorded.ticks) == TICKS
    assert [e["event"] for e in recorded.events] == ["opening", "swap", "reset"]
    assert recorded.labels == {1: f"{GRU}@{VERSION[GRU]}", 2: f"{LSTM}@{VERSION[LSTM]}"}
    assert {split_reference(label)[0] for label in recorded.manifests} == {GRU, LSTM}


def test_it_replays_exactly(recorded):
    report = rerun(recorded, Store(SHIPPED))
    assert report.compared == TICKS and not report.unchecked
    if recorded.machine == this_machine():
        assert report.is_exact and report.exact == TICKS and report.checkpoints >= 2
    else:
        assert all(d.by < ANOTHER_MACHINE_ATOL for d in report.differences)


def test_what_the_other_policy_would_have_done(recorded, tmp_path):
    """After the swap it is the one that acted; its memory was rebuilt from the same ticks."""
    comparison = what_if(recorded, Store(SHIPPED), LSTM)
    gap = np.abs(comparison.recorded - comparison.other).max(axis=1)
    assert len(gap) == TICKS and gap[:90].mean() > 0.02
    assert gap[90:].max() < ANOTHER_MACHINE_ATOL
    rows = comparison.rows()
    assert [row.name for row in rows] == [
        e.name for e in recorded.manifests[f"{GRU}@{VERSION[GRU]}"].action
    ]
    first = np.abs(comparison.recorded[:, 0] - comparison.other[:, 0])
    assert rows[0].mean == pytest.approx(first.mean(), rel=1e-5)
    assert rows[0].largest == pytest.approx(first.max(), rel=1e-5)
    draw(comparison, tmp_path / "what-if.png")
    assert (tmp_path / "what-if.png").read_bytes()[:4] == b"\x89PNG"


def test_a_policy_of_another_robot_cannot_be_asked(recorded, models):
    with pytest.raises(InvalidRecording, match="cannot act on"):
        what_if(recorded, Store(models), "counter")
    recorded.manifests.clear()
    with pytest.raises(InvalidRecording, match="takes 2 and 2"):
        what_if(recorded, Store(models), "counter")


def test_it_goes_into_a_live_daemon_once_more():
    with DaemonProcess(SHIPPED) as daemon:
        command = ["-m", "sim.cli", "run", "--from", str(RECORDED), "--endpoint", daemon.endpoint]
        said = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        assert f"{GRU}@{VERSION[GRU]}, session {SESSION}: 9" in said.stdout  # until the swap, all
        with daemon.client() as client:
            recorded = Recording([RECORDED]).session()
            session = open_again(client, recorded, LSTM)
            echoes = list(send_again(recorded, session))
        assert max(echo.difference for echo in echoes[90:210]) < ANOTHER_MACHINE_ATOL


@pytest.mark.parametrize("arguments", [[], ["halfcheetah-vel", "--from", str(RECORDED)]])
def test_a_run_is_of_a_family_or_of_a_recording(arguments):
    said = subprocess.run(
        [sys.executable, "-m", "sim.cli", "run", *arguments], capture_output=True, text=True
    )
    assert said.returncode == 2 and "either a task family or a recording" in said.stderr


def test_as_a_table(recorded, tmp_path):
    said = to_parquet([recorded], tmp_path / "ticks.parquet")
    assert said.endswith(f"{TICKS} ticks of 1 sessions")
    table = pq.read_table(tmp_path / "ticks.parquet")
    assert table.num_rows == TICKS and table["policy"].to_pylist()[100] == f"{LSTM}@{VERSION[LSTM]}"
    for i in (0, 120, 239):
        tick, row = recorded.ticks[i], table.slice(i, 1).to_pylist()[0]
        assert np.float32(row["observation"]).tobytes() == tick.observation.tobytes()
        assert np.float32(row["action_applied"]).tobytes() == tick.applied.tobytes()
        assert (row["seq"], row["reward"]) == (tick.seq, pytest.approx(tick.reward))
    assert table["new_task"].to_pylist()[0] and not table["new_task"].to_pylist()[1]
    with pytest.raises(InvalidRecording, match="exists already"):
        to_parquet([recorded], tmp_path / "ticks.parquet")


def test_as_a_lerobot_dataset(recorded, tmp_path):
    """An action and the reward for it are one frame; the tick after has told the reward."""
    said = to_lerobot([recorded], tmp_path / "cheetah", "run at 1.5 m/s")
    found = list(episodes(recorded))
    steps = sum(map(len, found))
    assert f"{len(found)} episodes, {steps} frames, LeRobot v3.0" in said and steps == TICKS - 1
    info = json.loads((tmp_path / "cheetah/meta/info.json").read_text())
    assert (info["codebase_version"], info["total_frames"], info["fps"]) == ("v3.0", steps, 20)
    assert info["features"]["action"]["names"][0] == "back_thigh_torque"
    data = tmp_path / "cheetah" / info["data_path"].format(chunk_index=0, file_index=0)
    table = pq.read_table(data)
    assert table.column_names == list(info["features"])
    for name, feature in info["features"].items():
        assert len(np.atleast_1d(table[name][0].as_py())) == feature["shape"][0]
    frames = table.to_pylist()
    first, second = recorded.ticks[0], recorded.ticks[1]
    assert np.float32(frames[0]["action"]).tobytes() == second.echo.tobytes()
    assert np.float32(frames[0]["observation.state"]).tobytes() == first.observation.tobytes()
    assert frames[0]["next.reward"] == pytest.approx(second.reward)
    assert frames[7]["timestamp"] == pytest.approx(7 / 20) and frames[7]["frame_index"] == 7
    rows = pq.read_table(tmp_path / "cheetah/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["length"] for row in rows] == [len(frames) for frames in found]
    assert rows[-1]["dataset_to_index"] == steps and rows[0]["tasks"] == ["run at 1.5 m/s"]
    stats = json.loads((tmp_path / "cheetah/meta/stats.json").read_text())
    rewards = [frame["next.reward"] for frame in frames]
    assert stats["next.reward"]["mean"] == [pytest.approx(np.mean(rewards))]
    assert stats["next.reward"]["count"] == [steps]
    tasks = pq.read_table(tmp_path / "cheetah/meta/tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "run at 1.5 m/s"}]


def test_ticks_that_are_missing_end_an_episode(recorded):
    recorded.ticks = [t for t in recorded.ticks if t.seq != 40]
    found = list(episodes(recorded))
    assert len(found[0]) == 39 and sum(map(len, found)) == TICKS - 3


def test_lerobot_needs_a_manifest_and_one_robot(recorded, tmp_path, models):
    names, recorded.manifests = recorded.manifests, {}
    with pytest.raises(InvalidRecording, match="--to parquet needs none"):
        to_lerobot([recorded], tmp_path / "x")
    recorded.manifests = {
        **names,
        f"{LSTM}@{VERSION[LSTM]}": Store(models).manifest("counter@1"),
    }
    with pytest.raises(InvalidRecording, match="drives another robot"):
        to_lerobot([recorded], tmp_path / "x")


def test_a_version_that_came_later(recorded, tmp_path):
    """The recording names a version; a folder with the next one alone is told."""
    write_bundle(tmp_path / "models", GRU, VERSION[GRU] + 1)
    with pytest.raises(InvalidRecording, match=r"was recorded with .*-gru@\d, which is not in"):
        rerun(recorded, Store(tmp_path / "models"))
