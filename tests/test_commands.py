"""The programs as people start them, the demo among them, and the files around them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from runtime.cli import main as adaptd
from runtime.daemon_process import DaemonProcess
from sim.cli import main as simrobot
from sim.families.halfcheetah import HalfCheetahVel
from tests.conftest import SHIPPED

ROOT = Path(__file__).parents[1]
VEL = "halfcheetah-vel-rl2-gru"


@pytest.fixture(scope="module")
def shipped():
    """A daemon that serves the shipped bundles."""
    with DaemonProcess(SHIPPED) as process:
        yield process


def run(program, *arguments):
    """Start one of the programs in a process; its status, output and complaint."""
    result = subprocess.run(
        [sys.executable, "-m", f"{program}.cli", *arguments],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return result.returncode, result.stdout, result.stderr.strip()


def test_the_demo_adapts_and_survives_its_swap(tmp_path):
    picture = tmp_path / "demo.png"
    status, output, complaint = run("sim", "demo", "--picture", str(picture))
    assert status == 0, complaint
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = " ".join(output.split())
    assert "0 ticks missed" in said and "memory replayed from its last" in said
    rows = re.findall(r"target becomes\s+[\d.]+\s+│\s+([\d.]+)\s+│\s+([\d.]+)", output)
    assert len(rows) == 2
    for before, after in rows:  # the speed error after adaptation is a fraction of that before
        assert float(after) < 0.5 * float(before)


def test_a_robot_runs_through_a_daemon(shipped):
    endpoint = ["--endpoint", shipped.endpoint]
    task = ["--task", "target_velocity=1.5", "--episodes", "1", "--keep"]
    status, output, complaint = run(
        "sim", "run", "halfcheetah-vel", "--policy", VEL, *task, *endpoint
    )
    assert status == 0, complaint
    assert "target_velocity 1.50" in output and "200 ticks" in output
    status, output, _ = run("runtime", "status", *endpoint)
    assert status == 0 and "adapted" in output
    session = re.search(r"\b(\d{8,})\b", output).group(1)
    status, output, _ = run("runtime", "swap", "halfcheetah-vel-rl2-lstm", *endpoint)
    assert status == 0 and "memory replayed over 200 steps" in output.replace("\n", " ")
    assert run("runtime", "rollback", "--session", session, *endpoint)[0] == 0
    assert run("runtime", "reset", "--session", session, *endpoint)[0] == 0
    status, output, _ = run("runtime", "policies", *endpoint)
    assert status == 0 and "halfcheetah-dir" in output


class Ending(HalfCheetahVel):
    """An episode ends where the cheetah has run a metre."""

    def terminated(self, world):
        return np.abs(world.qpos[:, 0]) > 1


def test_a_run_counts_episodes_however_short(shipped, capsys):
    arguments = ["run", f"{__name__}:Ending", "--policy", VEL, "--task", "target_velocity=2"]
    changes = ["--change", "9:target_velocity=1.5", "--change", "599:target_velocity=1"]
    assert simrobot([*arguments, *changes, "--endpoint", shipped.endpoint]) == 0
    output = " ".join(capsys.readouterr().out.split())
    returns = output[: output.index("Mean reward")]
    assert re.findall(r"│ (\d) │ target_velocity", returns) == ["1", "2", "3"]
    assert "target_velocity 2.00 -> 1.50" in output
    steps = int(re.search(r"(\d+) ticks", output).group(1))
    assert 30 < steps < 200
    (never,) = re.findall(r"the change (\S+) never came: the episodes were over after", output)
    assert never == "599:target_velocity=1.0"


def test_a_video_shows_the_robot(shipped, tmp_path):
    video = tmp_path / "out.mp4"
    arguments = ["halfcheetah-vel", "--policy", VEL, "--episodes", "1", "--video", str(video)]
    status, _, complaint = run("sim", "run", *arguments, "--endpoint", shipped.endpoint)
    if status == 2 and "offscreen rendering does not work here" in complaint:
        assert not video.exists()
        pytest.skip(f"needs libegl1 and libgl1-mesa-dri: {complaint}")
    assert status == 0, complaint
    with imageio.get_reader(video) as reader:
        frames = [f for f in reader]  # noqa: C416  (list() believes its length, which is infinite)
    assert len(frames) == 200
    assert frames[100].std() > 20  # not one grey: a floor and a cheetah
    assert abs(frames[100].astype(int) - frames[105]).mean() > 1


def test_no_screen_is_a_sentence(shipped):
    hidden = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    result = subprocess.run(
        [sys.executable, "-m", "sim.cli", "run", "halfcheetah-vel", "--policy", VEL, "--view",
         "--endpoint", shipped.endpoint],
        capture_output=True, text=True, timeout=60, env=hidden,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.strip() == (
        "simrobot: there is no screen to open a viewer on; --video FILE needs none"
    )


@pytest.mark.parametrize(
    ("program", "arguments", "complaint"),
    [
        (adaptd, ["sevre"], "there is no command 'sevre'. Did you mean 'serve'?"),
        (adaptd, ["verify", "halfcheeta-vel-rl2-gru"], "Did you mean 'halfcheetah-vel-rl2-gru'?"),
        (adaptd, ["status", "--endpoint", "nonsense"], "'nonsense' is no endpoint"),
        (simrobot, ["rnu"], "there is no command 'rnu'. Did you mean 'run'?"),
        (simrobot, ["run", "halfcheetah"], "Did you mean 'halfcheetah-"),
        (simrobot, ["run", "halfcheetah-vel", "--episodes", "0"], "episodes must be at least 1"),
        (simrobot, ["run", "halfcheetah-vel", "--task", "fast"], "'fast' is no task"),
        (simrobot, ["run", "halfcheetah-vel", "--task", "speed=1"], "['target_velocity'], got"),
        (simrobot, ["demo", "--models", "/nowhere"], "/nowhere holds no policy bundles"),
        (simrobot, ["demo", "--picture", "/nowhere/d.png"], "there is no folder /nowhere"),
        (
            simrobot,
            ["demo", "--swap-to", "halfcheetah-vel-lstm"],
            "Did you mean 'halfcheetah-vel-rl",
        ),
    ],
)
def test_bad_commands_get_one_sentence(capsys, program, arguments, complaint):
    assert program(arguments) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert "Traceback" not in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "name", "complaint"),
    [
        ("benchmarks.environment", "halfcheetah-vle", "Did you mean 'halfcheetah-vel'?"),
        ("benchmarks.environment", "bandit", "environment: bandit has no physics"),
        ("sim.gallery", "halfcheetah-vle", "Did you mean 'halfcheetah-vel'?"),
    ],
)
def test_programs_about_families_get_by_with_one_sentence(module, name, complaint):
    command = [sys.executable, "-m", module, name]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 2
    assert complaint in result.stderr and result.stderr.count("\n") == 1


def test_verify_says_a_sound_bundle_is_sound(capsys):
    assert adaptd(["verify", VEL, "--models", str(SHIPPED)]) == 0
    assert "is sound" in capsys.readouterr().out


def test_the_readmes_set_up_commands_are_make_targets():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^\s*make (\w+)", readme, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()
