"""Replayed: every bit of every answer, whatever happened between the ticks."""

import json
import shutil
import time

import numpy as np
import pytest

from runtime.daemon_process import DaemonProcess
from runtime.recording.reading import Recording
from runtime.recording.rerun import rerun
from runtime.spec import Manifest
from runtime.store import Store
from tests.bundles import write_bundle
from tests.conftest import SHIPPED
from tests.gradient_bundle import adapt_graph, write_linear
from tests.taped import RNG, Taped, cli, steps, write_models

OBS = np.array([0.25, -1.0], np.float32)


@pytest.fixture
def models(tmp_path):
    return write_models(tmp_path / "models")


def replayed(taped, models, session=None, from_seq=None):
    return rerun(taped.recording().session(session), Store(models), from_seq)


def assert_exact(report, ticks):
    assert report.differences == [] and report.unchecked == [] and report.notes == []
    assert report.exact == report.recorded == ticks
    assert report.checkpoints_differ == 0


def record_swap_and_restart(daemon, folder, policy, other):
    """A session whose policy is swapped, and whose daemon is killed: 150 ticks."""
    with Taped(daemon.endpoint, folder) as taped:
        with daemon.client() as client:
            session = client.open(policy, session=11)
            size = len(session.facts["observation"])

            def some(session, count):
                for i in range(count):
                    noise = RNG.normal(size=size).astype(np.float32)
                    session.step(0.3 * noise, float(RNG.normal()), episode_start=i == 20)

            some(session, 50)
            report = client.request("swap", policy=other, session=11, migration="replay")
            assert report["swaps"][0]["carry"] == "replayed"
            some(session, 50)
        taped.seen(100)
        taped.checkpoints(2)
        daemon.kill()
        daemon.start()
        time.sleep(0.5)  # until the subscription has reached the new daemon
        with daemon.client() as client:
            again = client.open(session=11)
            assert again.next_seq == 100
            some(again, 50)
        taped.seen(150)
    return taped


def newest(name: str) -> Manifest:
    return Store(SHIPPED).load(name).manifest


@pytest.mark.parametrize("policy", sorted(p.name for p in SHIPPED.iterdir() if p.is_dir()))
def test_every_shipped_bundle_replays_exactly_across_a_swap_and_a_restart(policy, tmp_path):
    manifests = {m.name: m for m in map(newest, sorted(p.name for p in SHIPPED.iterdir()))}
    fitting = [n for n, m in manifests.items() if m.family == manifests[policy].family]
    other = next((name for name in fitting if name != policy), policy)  # or by itself
    with DaemonProcess(SHIPPED) as daemon:
        taped = record_swap_and_restart(daemon, tmp_path / "taped", policy, other)
    report = replayed(taped, SHIPPED)
    assert_exact(report, 150)
    labels = [f"{name}@{manifests[name].version}" for name in (policy, other)]
    assert report.policies == list(dict.fromkeys(labels)) and report.checkpoints >= 1


def test_what_an_operator_does_is_replayed(daemon, client, models, tmp_path):
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        session = client.open("counter@1")
        steps(session, 10, applied_action=[0.5, 0.25])
        client.request("reset", session=session.id)
        steps(session, 5)
        client.request("freeze", session=session.id)
        steps(session, 5)
        client.request("freeze", session=session.id, frozen=False)
        client.request("shadow", policy="counter@2", session=session.id)
        steps(session, 7)
        client.request("promote", session=session.id, blend=4)
        steps(session, 8)
        client.request("rollback", session=session.id)
        steps(session, 5)
        client.request("swap", policy="counter@2", session=session.id, blend=3)
        steps(session, 5)
        client.request("stop", session=session.id)
        steps(session, 3, episode_start=True)
        client.request("rearm", session=session.id)
        steps(session, 5)
        taped.seen(53)
    assert_exact(replayed(taped, models), 53)


def test_what_a_robot_does_is_replayed(daemon, client, models, tmp_path):
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        for policy in ("limited", "forgetful"):
            session = client.open(policy)
            steps(session, 5)
            session.step([np.nan, 1.0], invalid=True, new_task=True)
            steps(session, 3)
            session.next_seq += 4  # left out by the robot
            steps(session, 3)
            session.step(OBS, 1.0, episode_start=True)
            session.step(OBS, 1.0, applied_action=[0.1, 0.2], new_task=True)
            steps(session, 2)
        taped.seen(32)
    recording = taped.recording()
    for number in recording.sessions():
        assert_exact(rerun(recording.session(number), Store(models)), 16)


def test_what_was_learnt_is_replayed(tmp_path):
    models = tmp_path / "models"
    write_linear(models, "linear", adapt_graph())
    with DaemonProcess(models) as daemon, Taped(daemon.endpoint, tmp_path / "taped") as taped:
        with daemon.client() as client:
            session = client.open("linear")
            for _ in range(3):
                session.step(OBS, 0.5, applied_action=[0.3, 0.2], episode_start=True)
                for _ in range(5):
                    session.step(RNG.normal(size=2), 0.5, applied_action=RNG.normal(size=2))
                    time.sleep(0.02)  # what was learnt arrives between two ticks
        taped.seen(18)
        time.sleep(0.3)
    recorded = taped.recording().session()
    assert [e["event"] for e in recorded.events].count("lesson") == 2
    assert_exact(rerun(recorded, Store(models)), 18)


def test_a_recorder_that_comes_late_begins_at_a_checkpoint(daemon, client, models, tmp_path):
    session = client.open("counter@1")
    steps(session, 40)
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        steps(session, 1)
        taped.checkpoints(1)
        steps(session, 20)
        client.request("swap", policy="other", session=session.id)  # replays from before
        steps(session, 10)
        taped.seen(31)
    report = replayed(taped, models)
    assert report.is_exact and report.first_seq == 41 and report.exact == 30
    assert report.unchecked == [(40, 40, "before the first checkpoint")]


def test_replay_begins_at_the_nearest_checkpoint(daemon, client, models, tmp_path):
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        session = client.open("counter@1")
        steps(session, 30)
        taped.checkpoints(1)
        steps(session, 10)
        taped.seen(40)
    recorded = taped.recording().session()
    (checkpoint,) = recorded.checkpoints
    report = rerun(recorded, Store(models), from_seq=35)
    assert report.is_exact and report.first_seq == checkpoint.next_seq
    assert report.exact == 40 - checkpoint.next_seq


def test_missed_ticks_are_filled_from_a_checkpoint(daemon, client, models, tmp_path):
    """Ticks 10 to 14 are taken out of what was recorded."""
    with Taped(daemon.endpoint, tmp_path / "taped", checkpoint_s=0.1) as taped:
        session = client.open("counter@1")
        steps(session, 20)
        taped.checkpoints(1)
        time.sleep(1.5)
        steps(session, 5)
        taped.checkpoints(2)
        taped.seen(25)
    recorded = taped.recording().session()
    recorded.checkpoints = [c for c in recorded.checkpoints if c.next_seq >= 20]
    recorded.ticks = [t for t in recorded.ticks if not 10 <= t.seq < 15]
    report = rerun(recorded, Store(models))
    assert report.is_exact and report.filled == 5 and report.exact == 20


def test_missed_ticks_that_nothing_knows_are_said(daemon, client, models, tmp_path):
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        session = client.open("counter@1")
        steps(session, 20)
        taped.seen(20)
    recorded = taped.recording().session()
    recorded.ticks = [t for t in recorded.ticks if t.seq != 10]
    recorded.checkpoints.clear()
    report = rerun(recorded, Store(models))
    assert report.exact == 10
    assert report.unchecked[0][:2] == (10, 19) and "missed" in report.unchecked[0][2]


def test_a_restored_memory_is_gone_on_from_at_the_next_checkpoint(daemon, client, models, tmp_path):
    session = client.open("counter@1")
    steps(session, 5)
    taken = client.request("snapshot", session=session.id)["snapshot"]
    steps(session, 5)
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        steps(session, 1)
        taped.checkpoints(1)
        steps(session, 5)
        client.request("restore", session=session.id, snapshot=taken)
        steps(session, 1)
        taped.checkpoints(2)
        steps(session, 6)
        taped.seen(13)
    report = replayed(taped, models)
    assert report.is_exact and report.exact >= 11
    assert "restored from elsewhere" in report.unchecked[-1][2]


@pytest.fixture
def small(daemon, client, tmp_path):
    """A folder with a recording of 10 ticks of counter@1."""
    with Taped(daemon.endpoint, tmp_path / "taped") as taped:
        steps(client.open("counter@1"), 10)
        taped.seen(10)
        time.sleep(1.2)
    return tmp_path / "taped"


def test_replay_as_a_command(small, models):
    code, said = cli("replay", small, "--models", models)
    assert code == 0 and "10 of 10 ticks compared are the same to the bit" in said
    code, said = cli("replay", small, "--models", models, "--json")
    assert code == 0 and json.loads(said)["is_exact"]


def test_a_bundle_that_is_another_one_by_now(small, models):
    shutil.rmtree(models / "counter" / "1")
    write_bundle(models, "counter", 1, gain=0.25, noisy=True)
    code, said = cli("replay", small, "--models", models)
    assert code == 2 and "was recorded with another counter@1" in said
    assert "--policy counter@1" in said
    code, said = cli("replay", small, "--models", models, "--policy", "counter@1")
    assert code == 0 and "of its range" in said


def test_a_bundle_that_is_not_there(small, tmp_path):
    write_bundle(tmp_path / "few", "other", 1)
    code, said = cli("replay", small, "--models", tmp_path / "few")
    assert code == 2 and "was recorded with counter@1, which is not in" in said


def test_a_recording_without_a_manifest_is_replayed_with_a_note(small, models):
    recorded = Recording([small]).session()
    recorded.manifests.clear()
    report = rerun(recorded, Store(models))
    assert report.exact == 10 and "no manifest of counter@1" in report.notes[0]
