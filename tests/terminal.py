"""A person's terminal: a real shell on a real pty."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping
from pathlib import Path

ROWS, COLUMNS = 40, 120
PATIENCE_S = 120.0
_PROMPT = re.compile(rb"<<status (\d+)>>\r?\n")


class Terminal:
    """Bash, which is typed at and read; a context manager."""

    def __init__(self, folder: Path, environment: Mapping[str, str]):
        """
        Args:
            folder: where it starts.
            environment: of the shell, and nothing besides.
        """
        told = {**environment, "TERM": "xterm-256color", "PS1": "", "PS2": ""}
        told["PROMPT_COMMAND"] = r'printf "<<status %d>>\n" $?'
        self._pid, self._pty = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], told)
        fcntl.ioctl(self._pty, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._heard = b""
        self._prompted(PATIENCE_S)
        self.run("stty -echo")

    def run(self, command: str) -> tuple[int, str]:
        """Type a command and wait until it is over: its status, and what was shown."""
        self._type(f"{command}\n")
        found = self._prompted(PATIENCE_S)
        assert found is not None, f"{command!r} is not over after {PATIENCE_S:g} s: {self._shown()}"
        return found

    def look_in(self, command: str, for_s: float) -> tuple[int, str]:
        """Type a command, let it show something, press Ctrl-C a while later; as `run`."""
        self._type(f"{command}\n")
        shows = time.monotonic() + PATIENCE_S
        while not self._heard.strip() and time.monotonic() < shows:
            self._listen(0.1)
        found = self._prompted(for_s)
        if found is None:
            self._type("\x03")
            found = self._prompted(PATIENCE_S)
        assert found is not None, f"{command!r} does not heed Ctrl-C: {self._shown()}"
        return found

    def _type(self, keys: str) -> None:
        os.write(self._pty, keys.encode())

    def _shown(self) -> str:
        return self._heard.decode(errors="replace")

    def _prompted(self, within_s: float) -> tuple[int, str] | None:
        """The status before the next prompt and what was shown until then; None without one."""
        deadline = time.monotonic() + within_s
        while not (prompt := _PROMPT.search(self._heard)):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            self._listen(left_s)
        shown, self._heard = self._heard[: prompt.start()], self._heard[prompt.end() :]
        return int(prompt[1]), shown.decode(errors="replace")

    def _listen(self, within_s: float) -> None:
        if select.select([self._pty], [], [], within_s)[0]:
            self._heard += os.read(self._pty, 1 << 16)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._type("\x03")  # whatever a failed test has left there
        self._prompted(PATIENCE_S)
        self.run("kill $(jobs -p) 2> /dev/null; wait")
        os.kill(self._pid, signal.SIGHUP)
        os.close(self._pty)
        os.waitpid(self._pid, 0)
