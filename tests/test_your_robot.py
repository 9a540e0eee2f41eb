"""docs/your-robot.md does what it says: its files are written, its commands are run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sim
from runtime.errors import InvalidTask, UnknownName

PAGE = Path(__file__).parent.parent / "docs" / "your-robot.md"
FEW = "9000"
"""Control steps instead of the page's million: one batch of trials, and the first look."""


def blocks(kind):
    """(title, text) of each of the page's code blocks of that kind."""
    return re.findall(rf'^```{kind}(?: title="(.*?)")?\n(.*?)^```', PAGE.read_text(), re.M | re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's files."""
    for kind in ("xml", "python"):
        for name, text in blocks(kind):
            (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in ("my_robot", "heavy_robot"):
        sys.modules.pop(module, None)


def run(script, folder):
    programs = Path(sys.executable).parent
    environment = {
        **{k: v for k, v in os.environ.items() if k != "ADAPTD_ENDPOINT"},
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_of_the_page_runs(folder):
    train, serve, heavy = (text for _, text in blocks("sh"))
    assert "1000000" in train and "1000000" in heavy
    out = run(train.replace("1000000", FEW), folder)
    assert "memory cleared" in out
    assert (folder / "bundles/slider/1/manifest.json").exists()
    out = run(heavy.replace("1000000", FEW), folder)
    assert "Return on 30 held-out tasks" in out
    socket = f"ipc://{folder}/slider.sock"
    served = serve.replace("ipc:///tmp/slider.sock", socket)
    assert served.count(socket) == 2
    wait = f"until adaptd status --endpoint {socket} > /dev/null 2>&1; do sleep 0.2; done\n"
    first, second = served.strip().split("\n")
    out = run(f"trap 'kill %1; wait' EXIT\n{first}\n{wait}{second}\n", folder)
    assert "0.80 -> -0.50" in out


def test_the_page_s_family_varies_what_it_says(folder):
    heavy = sim.family("heavy_robot:heavy_slider")
    ranges = {p.name: (p.low, p.high, p.unit) for p in heavy.task_parameters}
    assert ranges == {
        "goal": (-1.0, 1.0, "m"),
        "payload": (0.0, 3.0, "kg"),
        "damping.rail": (1.0, 2.0, "1"),
    }
    both = sim.family("my_robot:Slider+payload+delay")
    assert [p.name for p in both.task_parameters] == ["goal", "payload", "delay"]


def test_a_family_that_cannot_be_imported_is_refused(folder):
    with pytest.raises(InvalidTask, match="no module 'your_robot' here"):
        sim.family("your_robot:Slider")
    with pytest.raises(InvalidTask, match="module my_robot has no 'Slyder'"):
        sim.family("my_robot:Slyder")
    with pytest.raises(InvalidTask, match="makes a PosixPath, expected a TaskFamily"):
        sim.family("my_robot:Path")
    with pytest.raises(UnknownName, match="no dynamics variation 'weight'"):
        sim.family("my_robot:Slider+weight")
    (folder / "broken.py").write_text("X = 3\n\n\ndef needs(argument): ...\n")
    with pytest.raises(InvalidTask, match="'int' object is not callable"):
        sim.family("broken:X")
    with pytest.raises(InvalidTask, match="cannot be made without arguments"):
        sim.family("broken:needs")
    with pytest.raises(InvalidTask, match="expected MODULE:CLASS"):
        sim.family(":A")
