"""Every command and every snippet of the documentation works.

Commands are typed into a real shell, page by page, in a folder with what a checkout has.
Blocks with a title ("takes hours") are left to test_command_lines.py.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from docs.site import pages
from runtime.daemon_process import DaemonProcess
from tests.conftest import SHIPPED
from tests.cpp_robot import compiler
from tests.desk import Desk
from tests.pages import PROGRAMS, ROOT, Block, blocks, shell

PAGES = sorted([*pages(), "README.md"])
ELSEWHERE = {
    "docs/your-robot.md": ("sh", "python"),  # test_your_robot.py
    "docs/families.md": ("python",),  # test_families_page.py
}
"""Languages of blocks that a test of their own runs."""
NOT_RUN = {"hex", "json", "mermaid", "toml", "xml", "yaml"}
ROBOT = (
    "simrobot run halfcheetah-vel --policy halfcheetah-vel-rl2-gru --session 42"
    " --rate-hz 50 --episodes 1000 &"
)
"""The robot that a page speaks of, where the page starts none."""
AROUND_CPP = """
#include "adaptd.hpp"
adaptd::Vector read();
void apply(const adaptd::Vector&);
void slow_down();
void snippet(double reward) {{
{}
}}
"""


def _pages_with(language: str) -> list[str]:
    return [
        page
        for page in PAGES
        if language not in ELSEWHERE.get(page, ()) and _blocks(page, language)
    ]


def _blocks(page: str, language: str) -> list[Block]:
    found = shell(page) if language == "sh" else blocks(page)
    return [block for block in found if block.language == language]


@pytest.fixture
def desk():
    folder = Path(tempfile.mkdtemp(prefix="adaptd-"))  # short, as the paths of sockets must be
    made = Desk(folder)
    with made.terminal:
        yield made
    shutil.rmtree(folder)


@pytest.mark.parametrize("page", _pages_with("sh"))
def test_every_command_works(page, desk):
    for block in _blocks(page, "python"):
        if block.title:
            (desk.folder / block.title).write_text(block.text)
    commands = [command for block in shell(page) for command in block.commands]
    if any(command.startswith("g++") for command in commands):
        compiler()
    if "adaptd serve &" not in commands and any(c.startswith(PROGRAMS) for c in commands):
        desk.do("adaptd serve &")
        desk.do(ROBOT)
    for command in commands:
        if "--session 42" in command and not command.endswith("&"):
            desk.await_steps(100)
        if "--last-good" in command:  # kept every 100 steps, where the policy is adapted
            desk.await_steps(300, more=True)
        desk.do(command)


class StandIn:
    """The robot of the snippets."""

    def read(self) -> np.ndarray:
        return np.zeros(17)

    def apply(self, action: np.ndarray) -> float:
        return -float(np.square(action).sum())


@pytest.mark.parametrize("page", _pages_with("python"))
def test_every_python_snippet_runs(page, monkeypatch):
    with DaemonProcess(SHIPPED) as daemon, daemon.client() as client:
        monkeypatch.setenv("ADAPTD_ENDPOINT", daemon.endpoint)
        names = {"np": np, "client": client, "robot": StandIn(), "observation": np.zeros(17)}
        names |= {"session": client.open("halfcheetah-vel-rl2-gru")}
        names |= {"running": iter([True, True, False]).__next__}
        for block in _blocks(page, "python"):
            if not block.title:  # those that have one are files, for commands
                line = "\n" * block.line  # an error names the line of the page
                exec(compile(line + block.text, page, "exec"), names)


@pytest.mark.parametrize("page", _pages_with("cpp"))
def test_every_cpp_snippet_compiles(page, tmp_path):
    for block in _blocks(page, "cpp"):
        source = tmp_path / "snippet.cpp"
        source.write_text(AROUND_CPP.format(block.text))
        command = [*compiler(), "-I", str(ROOT / "clients" / "cpp"), "-fsyntax-only", str(source)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", pages())
def test_no_block_is_of_a_kind_that_nobody_looks_at(page):
    languages = {block.language for block in blocks(page)}
    assert languages <= {"sh", "python", "cpp"} | NOT_RUN
    text = (ROOT / page).read_text()
    assert text.count("\n```") == 2 * len(blocks(page)), "a block that has no language"
    for program in (*PROGRAMS, "make", "pip", "python"):
        assert f"\n    {program} " not in text, "commands belong in a block of sh"
