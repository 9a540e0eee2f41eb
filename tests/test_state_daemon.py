"""State that survives the daemon: restarts, a full disk, idle sessions, over real sockets."""

import json
import os
import re
import resource
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig, ProtocolError
from runtime.layout import FILE_HEADER_SIZE
from runtime.messages import ActionFlag
from tests.bundles import write_bundle
from tests.keyed import wait_for
from tests.signed import Signer
from tests.test_state import spoil_record

ONE = np.array([1.0, 0.0])


def state_of(daemon):
    """The folder where a daemon keeps its state."""
    return Path(daemon._environment["ADAPTD_STATE"])


def played(client, ids, ticks=4):
    """Sessions of counter@1 that have seen ONE so many times."""
    sessions = [client.open("counter@1", session=i) for i in ids]
    for session in sessions:
        for _ in range(ticks):
            session.step(ONE)
    return sessions


def row(client, session):
    (found,) = client.request("status", session=session.id)["sessions"]
    return found


@pytest.mark.fault(
    "a state file is truncated",
    "It is set aside and named; its robots are told, and may begin again.",
)
def test_a_truncated_slab_is_set_aside_and_its_robots_are_told(daemon, client):
    (session,) = played(client, [5])
    daemon.kill()
    (slab,) = state_of(daemon).glob("*.slab")
    os.truncate(slab, FILE_HEADER_SIZE + 1000)
    daemon.start()
    with pytest.raises(ProtocolError, match="there is no session 5: open one first"):
        session.step(ONE)
    again = client.open("counter@1", session=5)
    assert not again.resumed and "truncated to 5096 bytes" in again.facts["set_aside"][0]
    answer = again.step(ONE)
    assert answer.action[0] == 1 and answer.flags & ActionFlag.FRESH
    assert "truncated" in client.request("status")["set_aside"][0]
    events = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert "state_loss" in [e["event"] for e in events]


@pytest.mark.fault(
    "one record of a state file is corrupt", "That session begins at the prior, the others go on."
)
def test_one_broken_record_costs_the_other_sessions_nothing(daemon, client, models):
    first, second, third = played(client, [5, 6, 7])
    daemon.kill()
    spoil_record(models, state_of(daemon), number=1, slots=(0, 1))
    daemon.start()
    assert [s.step(ONE).action[0] for s in (first, third)] == [5, 5]
    answer = second.step(ONE)
    assert answer.action[0] == 1
    assert answer.flags == ActionFlag.FRESH | ActionFlag.GAP  # it counts from 0 again
    assert "session 6 of counter@1" in client.request("status")["set_aside"][0]


def test_two_daemons_on_one_state_folder_are_refused(daemon, client, models):
    with pytest.raises(InvalidConfig, match="another adaptd keeps its state in"):
        DaemonProcess(models, state=str(state_of(daemon)))
    assert client.open("counter@1").step(ONE).action[0] == 1


@pytest.mark.fault("the state folder cannot be written", "The daemon does not start, and says why.")
def test_a_state_folder_that_cannot_be_written_is_a_sentence(models, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidConfig, match=r"adaptd: .* cannot hold state: Not a directory"):
        DaemonProcess(models, state=str(tmp_path / "file" / "state"))


@contextmanager
def small_disk(folder):
    """A file system of 256 KiB; None where this user may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "adaptd-test", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk, daemon):
    """From here on no file can grow: the disk is full, or else the process may not."""
    if disk is None:
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        return
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            return


@pytest.mark.fault(
    "the disk of the state folder is full",
    "What needs room is refused with `NO_ROOM`; open sessions go on.",
)
def test_a_full_disk_refuses_what_needs_room_and_ends_nothing(models, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        settings = {} if disk is None else {"state": str(disk / "state")}
        with DaemonProcess(models, **settings) as daemon, daemon.client() as client:
            session, second = played(client, [5, 6])
            fill(disk, daemon)
            asked = [{"op": "open", "policy": "other"}, {"op": "swap", "policy": "counter@2"}]
            if disk is not None:  # in a slab that is there already
                snapshot = client.request("snapshot", session=5)["snapshot"]
                asked += [
                    {"op": "open", "policy": "counter@1"},
                    {"op": "restore", "session": 5, "snapshot": snapshot},
                ]
            for request in asked:
                with pytest.raises(ProtocolError) as refusal:
                    client.request(**request)
                assert refusal.value.code == "NO_ROOM", (request, refusal.value)
            assert [session.step(ONE).action[0] for _ in range(3)] == [5, 6, 7]
            second.close()
            assert client.open("counter@1").step(ONE).action[0] == 1  # into the room it had
            daemon.kill()
            daemon.start()
            assert session.step(ONE).action[0] == 8


@contextmanager
def read_only(folder):
    """From here on no file of a folder can be made, opened to write, or renamed."""
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "adaptd-test", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    if not mounted and os.geteuid() == 0:
        pytest.skip("root may write everywhere, and may not mount here")
    folder.chmod(0o500) if not mounted else None
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        folder.chmod(0o700)


@pytest.mark.fault(
    "the state folder becomes read-only while sessions go on",
    "New files are refused with `NO_ROOM`; all else goes on, and is written once it can be.",
)
def test_a_state_folder_that_becomes_read_only_ends_nothing(models, tmp_path):
    write_bundle(models, "loud", gain=1e36)
    signer = Signer(tmp_path)
    for version in (1, 2):
        signer.sign(models / "counter" / str(version))
    trusted = json.dumps([signer.public])
    with DaemonProcess(models, signing__trusted_keys=trusted) as daemon, daemon.client() as client:
        (session,) = played(client, [5])
        for policy in ("loud", "counter@2"):
            client.open(policy).close()
        state, counters = state_of(daemon), {"counter": 1}
        with read_only(state):
            with pytest.raises(ProtocolError) as refusal:
                client.open("other")  # neither its slab nor that it has passed can be written
            assert refusal.value.code == "NO_ROOM"
            client.request("swap", policy="loud", session=5)
            for observation in (ONE, 500 * ONE, -500 * ONE):  # it is sent back, which is noted
                assert not session.step(observation).silent
            client.request("load", policy="counter@1", allow_downgrade=True)
            assert client.request("status")["counters"] == counters
            daemon.process.send_signal(signal.SIGHUP)
            assert session.step(ONE).action[0] == 6
        wait_for(lambda: json.loads((state / "counters.json").read_text()) == counters)
        assert "loud@1" in json.loads((state / "quarantine.json").read_text())
        assert client.open("other").step(ONE).action[0] == 1
        assert session.step(ONE).action[0] == 7


def test_an_idle_session_sleeps_and_wakes_within_its_tick(models):
    with DaemonProcess(models, idle_after_s="0.2") as daemon, daemon.client() as client:
        (session,) = played(client, [5])
        client.request("freeze", session=5)
        wait_for(lambda: row(client, session)["asleep"])
        asleep = row(client, session)
        assert asleep["asleep"] and asleep["frozen"]  # to ask does not wake
        assert (asleep["next_seq"], asleep["steps"]) == (4, 4)
        answer = session.step(ONE)
        assert not answer.silent and answer.action[0] == 5
        assert answer.flags == ActionFlag.FROZEN
        assert not row(client, session)["asleep"]


def test_a_session_that_never_ticks_again_is_forgotten(models):
    settings = {"idle_after_s": "0.1", "forget_after_s": "1"}
    with DaemonProcess(models, **settings) as daemon, daemon.client() as client:
        (session,) = played(client, [5])
        wait_for(lambda: not client.request("status")["sessions"])
        with pytest.raises(ProtocolError, match="there is no session 5"):
            session.step(ONE)


def test_a_session_that_is_asleep_can_be_swapped_and_closed(models):
    with DaemonProcess(models, idle_after_s="0.2") as daemon, daemon.client() as client:
        first, second = played(client, [5, 6])
        wait_for(lambda: row(client, first)["asleep"] and row(client, second)["asleep"])
        (report,) = client.request("swap", policy="other", session=5)["swaps"]
        assert report["replayed_steps"] == 4
        answer = first.step(ONE)
        assert answer.action[0] == 5 and answer.generation == 2
        second.close()
        assert [r["session"] for r in client.request("status")["sessions"]] == [5]


def dirty_kib(daemon):
    """How much of the slabs is in memory and not on the disk yet."""
    maps = Path(f"/proc/{daemon.process.pid}/smaps").read_text()
    (slab,) = re.findall(r"^\S+ \S+ .*\.slab\n((?:\w+:.*\n)+)", maps, re.MULTILINE)
    return sum(int(kib) for kib in re.findall(r"_Dirty:\s+(\d+) kB", slab))


def on_a_disk(folder):
    """Whether a folder's pages are written through to something at all."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True)
    return kind.stdout.strip() not in ("tmpfs", "ramfs")


def test_durable_state_is_on_the_disk_within_a_second(models):
    with DaemonProcess(models, durable="true") as daemon, daemon.client() as client:
        played(client, [5])
        if on_a_disk(state_of(daemon)):
            wait_for(lambda: dirty_kib(daemon) == 0, timeout_s=2)


def test_state_is_left_to_the_kernel_unless_durable(daemon, client):
    played(client, [5])
    time.sleep(0.3)
    assert dirty_kib(daemon) > 0
