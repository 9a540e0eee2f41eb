"""Recordings: what is in them, how they are bounded, repaired, and refused."""

import json
import os
import signal
import subprocess
import sys
import time

import foxglove
import numpy as np
import pytest
from mcap.reader import make_reader

from runtime.errors import InvalidConfig, InvalidRecording, NotSaved, UnknownName
from runtime.recording.channels import PER_TICK
from runtime.recording.files import MIB, RecordingFiles
from runtime.recording.reading import Recording
from runtime.recording.recovery import recover
from runtime.recording.rerun import rerun
from runtime.store import Store
from tests.make_recorded_session import RECORDED
from tests.taped import Taped, cli, steps, write_models

OBS = np.array([0.25, -1.0], np.float32)


@pytest.fixture
def models(tmp_path):
    return write_models(tmp_path / "models")


EVERY_BIT = """
import numpy as np, orjson
from runtime.recording.reading import vector
bits = np.random.default_rng(1).integers(0, 2**32, 500_000, np.uint32)
floats = bits.view(np.float32)
text = orjson.dumps({"v": floats}, option=orjson.OPT_SERIALIZE_NUMPY)
again = vector(orjson.loads(text)["v"])
whole = np.isfinite(floats)
assert (again.view(np.uint32) == bits)[whole].all() and np.isnan(again[~whole]).all()
"""


def test_every_bit_of_a_float_survives():
    """In a process where ONNX Runtime has not run: it makes the processor flush denormals."""
    subprocess.run([sys.executable, "-c", EVERY_BIT], check=True)


def test_a_recording_is_for_anybody(daemon, client, tmp_path):
    """Standard MCAP: topics with JSON schemas, and the manifest attached."""
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        session = client.open("counter@1")
        session.step(OBS, 0.5, new_task=True)
        session.step([20.0, 0.0], 0.0, applied_action=[1.0, 2.0], episode_start=True)
        taped.seen(2)
        time.sleep(1.2)
    with open(taped.files.current, "rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        messages = [
            (schema, channel.topic, json.loads(message.data))
            for schema, channel, message in reader.iter_messages()
        ]
        attached = {a.name: a.data for a in reader.iter_attachments()}
    assert json.loads(attached["manifest/counter@1.json"])["name"] == "counter"
    by_topic = {}
    for schema, topic, content in messages:
        assert schema.encoding == "jsonschema" and json.loads(schema.data)["type"] == "object"
        by_topic.setdefault(topic, []).append(content)
    own = f"/{session.id}"
    assert {f"{own}/{name}" for name in (*PER_TICK, "boundary", "event")} <= set(by_topic)
    assert [b["kinds"] for b in by_topic[f"{own}/boundary"]] == [
        ["new_task", "fresh"], ["episode_start"]]  # fmt: skip
    first, second = by_topic[f"{own}/action"]
    assert second["limited_by"] == ["bounds"] and second["applied"][0] == 10.0
    assert second["requested"][0] > 10 and first["policy"] == "counter@1"
    assert by_topic[f"{own}/reward"][0] == {"seq": 0, "reward": 0.5}
    assert by_topic[f"{own}/observation"][1]["echo"] == [1.0, 2.0]
    assert by_topic["/status"][-1]["sessions"][0]["policy"] == "counter@1"
    assert by_topic["/recorder"][-1]["missed"] == 0


def test_files_follow_each_other_and_the_disk_stays_bounded(daemon, client, models, tmp_path):
    with Taped(daemon.endpoint, tmp_path / "taped", file_s=0.5) as taped:
        session = client.open("counter@1")
        for _ in range(30):
            steps(session, 4)
            time.sleep(0.1)
        taped.seen(120)
    files = sorted((tmp_path / "taped").iterdir())
    assert len(files) >= 3
    whole = rerun(taped.recording().session(), Store(models))
    assert whole.is_exact and whole.exact == 120 and not whole.unchecked
    parts = [Recording([path]).session() for path in files[1:-1]]
    begun = [  # on a busy machine a file may be over before its checkpoint comes
        part
        for part in parts
        if part.checkpoints and part.checkpoints[0].next_seq <= part.ticks[-1].seq
    ]
    assert begun and all(rerun(part, Store(models)).is_exact for part in begun)


def test_the_oldest_files_make_room(tmp_path):
    files = RecordingFiles(tmp_path, MIB, 60.0, keep_bytes=5000, spare=0)
    paths = []
    for _ in range(4):
        paths.append(files.next())
        paths[-1].write_bytes(bytes(2000))
        assert files.make_room()
    assert sorted(tmp_path.iterdir()) == paths[2:] and files.deleted == 2
    full = RecordingFiles(tmp_path / "b", MIB, 60.0, keep_bytes=5000, spare=2**62)
    full.next().write_bytes(bytes(10))
    assert not full.make_room() and full.current.exists()


@pytest.mark.fault(
    "the disk of the recordings is full",
    "What is not written is counted; it goes on when there is room.",
)
def test_a_full_disk_is_counted_and_not_written_to(daemon, client, tmp_path):
    with Taped(daemon.endpoint, tmp_path / "taped", spare=2**62) as taped:
        taped.until(lambda: taped.recorder.paused)
        session = client.open("counter@1")
        steps(session, 5)
        taped.seen(5)
        assert taped.recorder.missed == 5 and taped.recorder.ticks == 0


def test_a_folder_that_goes_and_comes_back(daemon, client, models, tmp_path):
    folder = tmp_path / "taped"
    with Taped(daemon.endpoint, folder) as taped:
        session = client.open("counter@1")
        steps(session, 3)
        taped.seen(3)
        folder.rename(tmp_path / "away")
        taped.until(lambda: taped.recorder.paused)
        steps(session, 5)
        taped.seen(8)
        folder.mkdir()
        taped.until(lambda: not taped.recorder.paused and any(folder.iterdir()))
        steps(session, 10)
        taped.seen(18)
        taped.checkpoints(2)
        steps(session, 10)
        taped.seen(28)
    assert taped.recorder.missed == 5
    assert rerun(taped.recording().session(), Store(models)).is_exact


def recorder_process(daemon, folder):
    command = [sys.executable, "-m", "runtime.cli", "record", str(folder), "--spare-gib", "0"]
    process = subprocess.Popen([*command, "--endpoint", daemon.endpoint], stdout=subprocess.PIPE)
    assert b"recording" in process.stdout.readline()
    time.sleep(0.5)
    return process


@pytest.fixture
def killed(daemon, client, tmp_path):
    """A file whose recorder was killed, and how many ticks there had been."""
    folder = tmp_path / "killed"
    process = recorder_process(daemon, folder)
    session = client.open("counter@1")
    for _ in range(25):
        steps(session, 10)
        time.sleep(0.1)
    process.kill()
    process.wait()
    (path,) = folder.iterdir()
    return path, 250


def test_a_killed_recorder_loses_at_most_its_last_second(killed, models, tmp_path):
    path, ticks = killed
    with pytest.raises(InvalidRecording, match=r"`adaptd recover .*` makes a whole file"):
        Recording([path])
    target = tmp_path / "whole.mcap"
    found = recover(path, target)
    assert ticks - 120 <= found.ticks <= ticks and found.sessions == 1
    report = rerun(Recording([target]).session(), Store(models))
    assert report.is_exact and report.exact == found.ticks
    with pytest.raises(InvalidRecording, match="exists already"):
        recover(path, target)


def test_a_recording_that_is_cut_anywhere_is_recovered_or_refused(killed, tmp_path):
    whole = tmp_path / "whole.mcap"
    recover(killed[0], whole)
    content = whole.read_bytes()
    for i, size in enumerate(np.linspace(0, len(content) - 1, 25).astype(int)):
        cut = tmp_path / f"cut{i}.mcap"
        cut.write_bytes(content[:size])
        with pytest.raises(InvalidRecording):
            Recording([cut])
        try:
            recover(cut, tmp_path / f"again{i}.mcap")
        except InvalidRecording:
            continue
        Recording([tmp_path / f"again{i}.mcap"]).sessions()


def test_a_recording_with_flipped_bits_is_told(killed, tmp_path):
    whole = tmp_path / "whole.mcap"
    recover(killed[0], whole)
    content = bytearray(whole.read_bytes())
    for at in np.random.default_rng(2).integers(20, len(content) - 20, 40):
        broken = bytearray(content)
        broken[at] ^= 0xFF
        path = tmp_path / "broken.mcap"
        path.write_bytes(broken)
        try:
            Recording([path]).session()
        except (InvalidRecording, UnknownName):
            continue


@pytest.mark.fault("the recorder freezes", "It costs itself alone.")
def test_a_recorder_that_stops_reading_costs_only_itself(daemon, client, models, tmp_path):
    folder = tmp_path / "slow"
    process = recorder_process(daemon, folder)
    session = client.open("counter@1")
    steps(session, 20)
    process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    steps(session, 2000)
    assert time.monotonic() - started < 20 and session.next_seq == 2020
    process.send_signal(signal.SIGCONT)
    steps(session, 20)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[0].decode()
    assert process.returncode == 0 and "ticks of 1 sessions" in said
    recorded = Recording([folder]).session()
    missed = int(said.split(" missed")[0].split()[-1])
    assert len(recorded.ticks) + missed == 2040


# Bad input


def test_files_that_are_no_recordings(tmp_path, models):
    empty = tmp_path / "empty.mcap"
    empty.write_bytes(b"")
    text = tmp_path / "text.mcap"
    text.write_text("hello, this is no recording of anything")
    foreign, later = tmp_path / "foreign.mcap", tmp_path / "later.mcap"
    foxglove.open_mcap(foreign, context=foxglove.Context()).close()
    writer = foxglove.open_mcap(later, context=foxglove.Context())
    writer.write_metadata("adaptd", {"format": "adaptd-recording-9"})
    writer.close()
    for path, expected in (
        (empty, "is empty: nothing can be got from it"),
        (text, "is not an MCAP file"),
        (foreign, "not of `adaptd record`"),
        (later, "has the format 'adaptd-recording-9', this adaptd reads"),
        (tmp_path / "absent.mcap", "cannot be read: No such file"),
        (tmp_path / "models", "holds no *.mcap file"),
    ):
        code, said = cli("replay", path, "--models", models)
        assert code == 2 and expected in said, said
        assert "Traceback" not in said
    code, said = cli("recover", empty)
    assert code == 2 and "is empty: nothing can be recovered" in said
    code, said = cli("replay", RECORDED, "--session", "5", "--models", models)
    assert code == 2 and "no session in the recording '5'" in said


def test_several_sessions_are_told_apart(daemon, client, models, tmp_path):
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        for _ in range(3):
            steps(client.open("counter@1"), 4)
        taped.seen(12)
    with pytest.raises(InvalidRecording, match="holds 3 sessions; choose one by --session"):
        taped.recording().session()


def test_a_recording_of_nothing(daemon, tmp_path):
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        time.sleep(0.1)
    with pytest.raises(InvalidRecording, match="holds no tick of any session"):
        taped.recording().session()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidConfig, match="cannot hold recordings"):
        RecordingFiles(tmp_path / "file" / "x", 1, 1.0, 1, 0)
    with pytest.raises(NotSaved, match="cannot be made"):
        recover(tmp_path / "file" / "y", tmp_path / "z")


def test_a_missing_extra_says_how_to_get_it(tmp_path):
    script = (
        "import sys; sys.modules['mcap'] = None; import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda n: None if n == 'mcap' else f(n)\n"
        "import runtime.extras; runtime.extras.find_spec = u.find_spec\n"
        "from runtime.cli import main; sys.exit(main(['replay', 'x.mcap']))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 2 and "pip install 'adaptd[record]'" in result.stderr


def test_recordings_work_without_a_terminal_or_a_daemon(tmp_path):
    environment = {**os.environ, "ADAPTD_ENDPOINT": f"ipc://{tmp_path}/nobody"}
    command = [sys.executable, "-m", "runtime.cli", "record", str(tmp_path / "r")]
    result = subprocess.run(
        [*command, "--duration-s", "0.5", "--spare-gib", "0"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert result.returncode == 0 and "0 ticks of 0 sessions" in result.stdout
