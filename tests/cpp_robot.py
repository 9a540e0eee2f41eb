"""A robot in C++: tests/cpp_driver.cpp, built and told what to do, and a wire that loses frames."""

import json
import os
import select
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import zmq

from runtime.daemon_process import DaemonProcess
from runtime.messages import planes


def compiler() -> list[str]:
    """The command that compiles C++ here; the test is skipped where there is none."""
    command = [os.environ.get("CXX", "g++"), "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no C++ compiler: {command[0]} is not installed")
    probe = [command[0], "-E", "-x", "c++", "-include", "zmq.h", "/dev/null"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no zmq.h: the package libzmq3-dev is not installed")
    return command


def build(source: Path, folder: Path) -> Path:
    """The program of one source file, in a folder."""
    program = folder / source.stem
    command = [*compiler(), str(source), "-lzmq", "-pthread", "-o", str(program)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


class Driver:
    """A C++ robot that does what it is told, a line at a time."""

    def __init__(
        self, program: Path, endpoint: str, timeout_s: float = 5.0, key: Path | None = None
    ):
        pipe = subprocess.PIPE
        command = [program, endpoint, str(timeout_s)]
        environment = {**os.environ, **({"ADAPTD_KEY": str(key)} if key else {})}
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )
        assert self.process.stdin and self.process.stdout
        self._in, self._out = self.process.stdin, self.process.stdout

    def say(self, line: str) -> Any:
        """What it answers."""
        self._in.write(line + "\n")
        self._in.flush()
        assert select.select([self._out], [], [], 20)[0], f"no answer to {line!r}"
        return json.loads(self._out.readline())

    def step(self, *words: str, timeout_s: float = 5.0) -> dict:
        """One step of the observation (1, 0), unless `words` has another."""
        return self.say(" ".join([f"step {timeout_s} obs=1,0", *words]))

    def ticks(self, count: int) -> list[dict]:
        """The next ticks on its tap."""
        seen = []
        while len(seen) < count:
            found = self.say("ticks 10")
            assert found, f"{len(seen)} of {count} ticks"
            seen += found
        return seen

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._in.close()
        self._out.close()


class LossyWire:
    """Stands between a robot and a daemon; loses observations while `deaf`, and while `slow`
    lets an answer through only together with the next one."""

    def __init__(self, daemon: DaemonProcess, endpoint: str):
        self.deaf, self.slow, self.lost = False, False, 0
        self._context, self._stopping = zmq.Context(), threading.Event()
        self._pairs = []
        for near, far in list(zip(planes(endpoint), planes(daemon.endpoint), strict=True))[:2]:
            front, back = self._context.socket(zmq.ROUTER), self._context.socket(zmq.DEALER)
            front.bind(near)
            back.connect(far)
            self._pairs.append((front, back))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        robot = [b""] * len(self._pairs)
        held: list[list[bytes]] = []
        while not self._stopping.wait(0.001):
            for i, (front, back) in enumerate(self._pairs):
                while front.poll(0):
                    robot[i], *frames = front.recv_multipart()
                    if self.deaf:
                        self.lost += 1
                    else:
                        back.send_multipart(frames)
                while back.poll(0):
                    held.append([robot[i], *back.recv_multipart()])
                    if not self.slow or len(held) > 1:
                        while held:
                            front.send_multipart(held.pop(0))

    def close(self) -> None:
        """Cut it."""
        self._stopping.set()
        self._thread.join()
        self._context.destroy(linger=0)
