"""A daemon of one's own, as another process, for demos and tests."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from runtime.client import Client
from runtime.errors import InvalidConfig

START_TIMEOUT_S = 60.0


class DaemonProcess:
    """Runs `adaptd serve` on an endpoint in a temporary folder; a context manager."""

    program: Sequence[str] = ("runtime.cli",)
    """The module that is run, and its first arguments."""
    arguments: Sequence[str] = ()
    """Further ones of `serve`."""
    passed: Path | None = None
    """A daemon's list of bundles that need no trial any more (`passed.json`), to begin with."""

    def __init__(
        self, models: Path, endpoint: str | None = None, key: Path | None = None, **settings: str
    ):
        """
        Args:
            models: folder of bundles to serve.
            endpoint: where; None makes one up.
            key: file of a client that may ask for the status, if the daemon asks for keys.
            settings: further configuration keys, those of a section as ``section__key``; those
                of the caller's environment are left out.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="adaptd-")
        self.endpoint = endpoint or f"ipc://{self._folder.name}/adaptd"
        self.log = Path(self._folder.name) / "log.jsonl"
        self.models, self.key = models, key
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}
        state = Path(self._folder.name) / "state"
        self._environment["ADAPTD_STATE"] = str(state)
        if self.passed is not None:
            state.mkdir(mode=0o700)
            shutil.copy(self.passed, state)
        self._environment |= {f"ADAPTD_{k.upper()}": v for k, v in settings.items()}
        root = str(Path(__file__).parents[1])  # works from a source tree, installed or not
        path = filter(None, (root, os.environ.get("PYTHONPATH")))
        self._environment["PYTHONPATH"] = os.pathsep.join(path)
        self.start()

    def start(self) -> None:
        """Start the process and wait until it serves.

        Raises:
            InvalidConfig: it stopped instead; with what it said.
        """
        command = [sys.executable, "-m", *self.program, "serve"]
        command += ["--endpoint", self.endpoint, "--models", str(self.models)]
        command += self.arguments
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._serves():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise InvalidConfig(f"the daemon did not start: {self.log.read_text().strip()}")

    def _serves(self) -> bool:
        """Whether this process, and not another on the same endpoint, answers."""
        if self.process.poll() is not None:
            return False
        with Client(self.endpoint, timeout_s=0.3, key=self.key) as client:
            try:
                return client.request("status")["pid"] == self.process.pid
            except TimeoutError:
                return False

    def stop(self) -> int:
        """Stop in order; the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=10)

    def kill(self) -> None:
        """Stop at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def client(self) -> Client:
        """A new connection."""
        return Client(self.endpoint, key=self.key)

    def __enter__(self) -> "DaemonProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        self._folder.cleanup()
