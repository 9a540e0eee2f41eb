"""A recorder on a daemon, in a thread of the test's own process, and what there is to record."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from runtime.onlooker import Onlooker
from runtime.recording.files import GIB, MIB, RecordingFiles
from runtime.recording.reading import Recording
from runtime.recording.recorder import Recorder
from tests.bundles import write_bundle

PATIENCE_S = 60.0
RNG = np.random.default_rng(0)


class Taped:
    """Records while it is entered; then `recording()` reads what was written."""

    def __init__(self, endpoint: str, folder: Path, session=None, checkpoint_s=300.0, **limits):
        sizes = {"file_bytes": 256 * MIB, "file_s": 3600.0, "keep_bytes": 10 * GIB, "spare": 0}
        self.files = RecordingFiles(folder, **(sizes | limits))
        self.folder = folder
        self.onlooker = Onlooker(endpoint, session, status_every_s=0.1)
        self.recorder = Recorder(self.onlooker, self.files, checkpoint_s)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._record, daemon=True)

    def __enter__(self):
        self._thread.start()
        self.until(lambda: self.onlooker.status)
        time.sleep(0.5)  # until the subscription has reached the daemon
        return self

    def _record(self):
        while not self._stopping.is_set():
            self.recorder.turn(0.02)

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "it did not come"
            time.sleep(0.01)

    def seen(self, ticks):
        """Wait until so many ticks have been written."""
        self.until(lambda: self.recorder.ticks + self.recorder.dropped >= ticks)

    def checkpoints(self, count):
        """Wait until so many checkpoints have been written."""
        self.until(lambda: self.recorder.checkpoints >= count)

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()
        self.recorder.close()
        self.onlooker.close()

    def recording(self):
        return Recording([self.folder])


def write_models(folder):
    """Bundles that are noisy, so that replays depend on the session and the seq, and others."""
    write_bundle(folder, "counter", 1, noisy=True)
    write_bundle(folder, "counter", 2, gain=0.5, noisy=True)
    write_bundle(folder, "other", 1, carry_size=3)
    slow = {"unit": "N", "low": -1.0, "high": 1.0, "max_rate": 2.0}
    write_bundle(folder, "limited", 1, action=[{"name": n, **slow} for n in ("push", "turn")])
    boundaries = dict.fromkeys(("episode", "task", "gap"), "prior")
    write_bundle(folder, "forgetful", 1, boundaries=boundaries)
    return folder


def steps(session, count, **named):
    """Random observations and rewards."""
    for _ in range(count):
        session.step(RNG.normal(size=2).astype(np.float32), float(RNG.normal()), **named)


def cli(*arguments):
    """Exit status and output of an `adaptd` command."""
    result = subprocess.run(
        [sys.executable, "-m", "runtime.cli", *map(str, arguments)], capture_output=True, text=True
    )
    return result.returncode, result.stdout + result.stderr
