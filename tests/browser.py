"""A real headless browser for pages that people read, driven by its own debugging protocol."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
START_S = 60.0


class Browser:
    """One page of Chromium; a context manager."""

    def __init__(self, folder: Path, width: int = 1200, height: int = 900, dark: bool = False):
        """
        Args:
            folder: for its profile.
            width, height: of the window, in pixels.
            dark: whether the reader prefers dark pages.
        """
        assert PROGRAM is not None
        self.complaints: list[str] = []
        """What the page said of errors on its console."""
        self.requested: list[str] = []
        """Every address that it asked for."""
        profile = folder / "profile"
        self._process = subprocess.Popen(
            [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--remote-debugging-port=0", f"--user-data-dir={profile}",
             f"--window-size={width},{height}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port = self._port(profile / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as listing:
            (page,) = (t for t in json.load(listing) if t["type"] == "page")
        self._connection = connect(page["webSocketDebuggerUrl"], max_size=None, legacy=True)
        self._number = 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")
        if dark:
            prefers = {"name": "prefers-color-scheme", "value": "dark"}
            self._ask("Emulation.setEmulatedMedia", features=[prefers])

    def _port(self, file: Path) -> str:
        deadline = time.monotonic() + START_S
        while not (file.exists() and file.read_text().count("\n")):
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        return file.read_text().split("\n")[0]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message))
        while True:
            heard = json.loads(self._connection.recv(timeout=30))
            if heard.get("id") == self._number:
                assert "error" not in heard, heard
                return heard["result"]
            self._note(heard)

    def _note(self, heard: dict[str, Any]) -> None:
        told = heard.get("params", {})
        if heard.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(told["exceptionDetails"]["exception"]["description"])
        elif heard.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(told["entry"]["text"])
        elif heard.get("method") == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])

    def be_a_phone(self) -> None:
        """Show pages as a telephone that is held upright does."""
        self._ask("Emulation.setDeviceMetricsOverride", width=390, height=844, mobile=True,
                  deviceScaleFactor=2)  # fmt: skip

    def open(self, page: Path | str, until: str) -> None:
        """Open a file, or an address, and wait until a script gives something true."""
        self._ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait until a script gives something true."""
        deadline = time.monotonic() + START_S
        while not self.run(until):
            assert time.monotonic() < deadline and not self.complaints, self.complaints
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of a script in the page."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self._ask("Input.insertText", text=text)

    def mouse(self, kind: str, x: float, y: float, clicks: int = 0) -> None:
        """``mouseMoved``, ``mousePressed`` or ``mouseReleased`` at a point of the window."""
        button = "left" if clicks else "none"
        self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=clicks)

    def drag(self, x: float, y: float, to_x: float) -> None:
        """Press, move to the side and let go."""
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, 1)
        for i in range(1, 6):
            self._ask("Input.dispatchMouseEvent", type="mouseMoved", x=x + i * (to_x - x) / 5,
                      y=y, button="left", buttons=1)  # fmt: skip
        self.mouse("mouseReleased", to_x, y, 1)

    def screenshot(self, into: Path) -> bytes:
        """A picture of the whole page, as PNG."""
        taken = self._ask("Page.captureScreenshot", captureBeyondViewport=True)
        into.write_bytes(picture := base64.b64decode(taken["data"]))
        return picture

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.wait(timeout=20)
