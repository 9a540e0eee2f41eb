"""A module of the runtime as another process, for what a measurement needs beside it."""

import os
import select
import subprocess
import sys
from pathlib import Path


class SideProcess:
    """Runs ``python -m MODULE ...``; lines go to it and come from it."""

    def __init__(self, module: str, *arguments: str):
        root = str(Path(__file__).parents[1])  # works from a source tree, installed or not
        path = filter(None, (root, os.environ.get("PYTHONPATH")))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.pid = self._process.pid

    def tell(self, line: bytes) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    def has_line(self) -> bool:
        """Whether `hear` would not wait."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def hear(self) -> bytes:
        """The next line from it; empty where it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def cpu_s(self) -> float:
        """Processor time that it has taken so far, of all its threads."""
        with open(f"/proc/{self.pid}/stat") as stat:
            told = stat.read().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.communicate()
