"""A recorder on a daemon, in a thread of the test's own process."""

import threading
import time
from pathlib import Path

from runtime.onlooker import Onlooker
from runtime.recording.files import GIB, MIB, RecordingFiles
from runtime.recording.reading import Recording
from runtime.recording.recorder import Recorder

PATIENCE_S = 10.0


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
        time.sleep(0.2)  # until the subscription has reached the daemon
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
