"""Where the commands of the documentation are typed: a folder like a checkout, and a shell."""

import os
import re
import shutil
import sys
import time
import tomllib
from pathlib import Path

from runtime.client import Client
from tests.pages import ROOT
from tests.terminal import Terminal

CHECKOUT = (
    "Makefile", "clients", "constraints.txt", "exported_models", "monitoring", "pyproject.toml",
    "systemd",
)  # fmt: skip
"""What commands find in the folder in which they are typed."""
CTRL_C = re.compile(r"adaptd (serve|top|view|exporter|record)\b[^&]*$")
"""Commands that a person may have to end; their exit status is then 0 or 130."""
LOOK_S = 1.0
ADDED = {
    r"adaptd (exporter|view)\b": " --port 0",  # the usual one may be taken on this machine
    r"simrobot run .* --scene": " --rate-hz 400 --episodes 1",
}
"""What is added to a command."""
PATIENCE_S = 60.0


class Desk:
    """A folder with what commands need, a terminal in it, and an endpoint of its own."""

    def __init__(self, folder: Path):
        for name in CHECKOUT:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        (folder / ".venv").symlink_to(sys.prefix)
        self.folder, self.endpoint = folder, f"ipc://{folder}/adaptd"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "ADAPTD_ENDPOINT": self.endpoint,
            "ADAPTD_STATE": f"{folder}/state",
        }
        self.terminal = Terminal(folder, environment)

    def do(self, command: str) -> None:
        """Type a command of a page, and see that it works."""
        typed = as_tested(command)
        if CTRL_C.match(typed):
            status, shown = self.terminal.look_in(typed, LOOK_S)
            assert status in (0, 130), f"{typed}: {shown}"
        else:
            status, shown = self.terminal.run(typed)
            assert status == 0, f"{typed}: {shown}"
        if typed == "adaptd serve &":
            self.await_steps(0)

    def await_steps(self, steps: int, more: bool = False) -> None:
        """Wait until the daemon's sessions have made so many steps, or so many more."""
        deadline = time.monotonic() + PATIENCE_S
        with Client(self.endpoint, timeout_s=PATIENCE_S) as client:

            def made() -> int:
                return sum(row["steps"] for row in client.request("status")["sessions"])

            wanted = steps + (made() if more else 0)
            while made() < wanted:
                assert time.monotonic() < deadline, "no session makes steps"
                time.sleep(0.05)


def as_tested(command: str) -> str:
    """The command as it is typed: nothing is installed or built, and what `ADDED` adds."""
    if command.startswith("make "):
        return command.replace("make ", "make --dry-run ", 1)
    if command.startswith("pip install "):
        extras = re.findall(r"\[(.*?)\]", command)[0].split(",")
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())
        assert set(extras) <= set(known["project"]["optional-dependencies"]), command
        return "true"
    return command + "".join(more for found, more in ADDED.items() if re.match(found, command))
