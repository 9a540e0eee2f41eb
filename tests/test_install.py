"""`make install`, `uninstall` and `deb` into folders of their own, and the daemon in them.

No package is fetched: the environment that is made borrows those that the tests run with.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.client import Client
from tests.keyed import wait_for

ROOT = Path(__file__).parents[1]
SOURCES = (
    "runtime", "sim", "training", "systemd", "docs", "exported_models", "Makefile", "LICENSE",
    "README.md", "pyproject.toml", "constraints.txt",
)  # fmt: skip
UNITS = ("adaptd.service", "adaptd-exporter.service", "adaptd-recorder.service")


def run(*command, cwd=None, **environment):
    """Run something that has to work; what it says."""
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, cwd=cwd,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the repository, and what `make` is told so that it fetches nothing."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        path = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, folder / name, **({"ignore": ignored} if path.is_dir() else {}))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps"]
    run(*pip, "--no-build-isolation", "--no-index", "-w", folder / "wheel", ".", cwd=folder)
    (wheel,) = (folder / "wheel").glob("*.whl")
    settings = {
        "VENV": str(Path(sys.prefix)),
        "SYSTEM_PYTHON": os.path.realpath(sys.executable),
        "PACKAGE": str(wheel),
        "PIP_ARGS": "--no-index --no-deps",
    }
    return folder, [f"{name}={value}" for name, value in settings.items()]


def files_of(root):
    """Every file and link under a folder."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


def borrow(root):
    """Let an installed environment use the packages of the one that the tests run in."""
    (packages,) = (root / "usr/lib/adaptd/lib").glob("python3.*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root / "usr/lib/adaptd/bin/python"


def serves(root, models, folder):
    """Start the daemon of an installation with its settings, as a unit would, and stop it.

    Args:
        root: of the installation.
        models: folder of bundles under it.
        folder: for the socket and the state.

    Returns:
        The policies that it had in memory.
    """
    endpoint = f"ipc://{folder}/adaptd"
    command = [borrow(root), root / "usr/lib/adaptd/bin/adaptd", "serve"]
    command += ["--config", root / "etc/adaptd/adaptd.toml", "--endpoint", endpoint]
    command += ["--models", root / models, "--state", folder / "state"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    daemon = subprocess.Popen([*map(str, command)], env=environment, cwd=folder)
    try:
        with Client(endpoint, timeout_s=0.5) as client:

            def answer():
                assert daemon.poll() is None, "it did not start"
                with suppress(TimeoutError):
                    return client.request("status")

            facts = wait_for(answer, timeout_s=60)
        daemon.terminate()
        assert daemon.wait(10) == 0
        return facts["loaded"]
    finally:
        if daemon.poll() is None:
            daemon.kill()


def test_install_stages_a_host_and_uninstall_leaves_what_is_the_administrators(source, tmp_path):
    folder, settings = source
    root = tmp_path / "root"
    run("make", "install", f"DESTDIR={root}", *settings, cwd=folder)
    for unit in UNITS:
        assert (root / "usr/lib/systemd/system" / unit).is_file()
    assert os.readlink(root / "usr/bin/adaptd") == "../lib/adaptd/bin/adaptd"
    program = (root / "usr/lib/adaptd/bin/adaptd").read_text()
    assert program.startswith("#!/usr/lib/adaptd/bin/python") and str(root) not in program
    assert str(root) not in (root / "usr/lib/adaptd/pyvenv.cfg").read_text()
    assert os.listdir(root / "usr/lib/adaptd/bin").count("adaptd") == 1
    (loaded,) = serves(root, "usr/share/adaptd/exported_models", tmp_path)
    assert loaded.startswith("halfcheetah-vel-rl2-gru@")

    settings_file = root / "etc/adaptd/adaptd.toml"
    settings_file.write_text("# mine\n" + settings_file.read_text())
    run("make", "install-files", f"DESTDIR={root}", *settings, cwd=folder)
    assert settings_file.read_text().startswith("# mine")
    run("make", "uninstall", f"DESTDIR={root}", *settings, cwd=folder)
    assert files_of(root) == ["etc/adaptd/adaptd.toml"]


def test_an_installation_that_fails_leaves_the_program_that_was_there(tmp_path):
    """As where the network is gone when `make install` wants to fetch a newer package."""
    program = tmp_path / "adaptd" / "bin" / "adaptd"
    program.parent.mkdir(parents=True)
    program.write_text("the one before")
    script, python = ROOT / "systemd" / "install_program.sh", os.path.realpath(sys.executable)
    command = ["sh", script, tmp_path / "adaptd", "/usr/lib/adaptd", python, "adaptd", "false"]
    assert subprocess.run([*map(str, command)], timeout=60).returncode == 1
    assert program.read_text() == "the one before" and os.listdir(tmp_path) == ["adaptd"]


def dpkg(root, *arguments):
    """dpkg on a root of its own, without changing into it: the scripts are told by DPKG_ROOT."""
    options = [
        "--force-script-chrootless",
        "--force-depends",
        "--force-not-root",
        "--log=/dev/null",
    ]
    return run("dpkg", f"--root={root}", *options, *arguments)


@pytest.fixture
def host(tmp_path):
    """An empty root that dpkg knows how to install into."""
    root = tmp_path / "host"
    for folder in ("info", "updates"):
        (root / "var/lib/dpkg" / folder).mkdir(parents=True)
    for name in ("status", "available"):
        (root / "var/lib/dpkg" / name).touch()
    (root / "etc").mkdir()
    return root


def test_a_package_installs_serves_upgrades_and_is_removed_without_a_trace(source, host, tmp_path):
    if not shutil.which("dpkg-deb") or not shutil.which("systemd-sysusers"):
        pytest.skip("needs dpkg and systemd (Debian)")
    if os.geteuid() != 0:
        pytest.skip("needs root: the package has users and folders of theirs")
    folder, settings = source
    run("make", "deb", *settings, cwd=folder)
    (package,) = (folder / "dist").glob("adaptd_*.deb")
    assert "python3 (>= 3." in run("dpkg-deb", "-f", package, "Depends")
    assert "root/root" in run("dpkg-deb", "-c", package)

    dpkg(host, "-i", package)
    users = (host / "etc/passwd").read_text()
    assert users.startswith("adaptd:") and "adaptd-recorder:" in users
    state = (host / "var/lib/adaptd").stat()
    assert f"adaptd:x:{state.st_uid}:" in users
    models = host / "var/lib/adaptd/exported_models"
    assert models.stat().st_uid == 0 and (models / "halfcheetah-vel-rl2-gru").is_dir()
    wanted = host / "etc/systemd/system/multi-user.target.wants"
    assert [path.name for path in wanted.iterdir()] == ["adaptd.service"]
    (loaded,) = serves(host, "var/lib/adaptd/exported_models", tmp_path)
    assert loaded.startswith("halfcheetah-vel-rl2-gru@")

    # An upgrade keeps what was set, what was removed and what was disabled.
    (host / "etc/adaptd/adaptd.toml").write_text('policy = "halfcheetah-vel-rl2-gru"\n')
    (wanted / "adaptd.service").unlink()
    shutil.rmtree(models / "ant-dir-rl2-gru")
    dpkg(host, "--force-confold", "-i", package)
    assert (host / "etc/adaptd/adaptd.toml").read_text().startswith("policy")
    assert not (wanted / "adaptd.service").exists()
    assert not (models / "ant-dir-rl2-gru").exists()

    (next((host / "usr/lib/adaptd/lib").glob("python3.*/site-packages")) / "borrowed.pth").unlink()
    (host / "etc/adaptd/keys/server.key").write_text("secret")
    dpkg(host, "-r", "adaptd")
    assert not (host / "usr/lib/adaptd").exists() and not (host / "usr/bin/adaptd").is_symlink()
    assert (host / "etc/adaptd/keys/server.key").exists() and models.exists()

    # An installation after a removal is as it was before that: nothing enabled, then the recorder.
    dpkg(host, "-i", package)
    assert not list(wanted.glob("*"))
    run("systemctl", f"--root={host}", "enable", "adaptd.service", "adaptd-recorder.service")
    dpkg(host, "-r", "adaptd")
    assert not list(wanted.glob("*"))
    dpkg(host, "-i", package)
    assert {path.name for path in wanted.glob("*")} == {"adaptd.service", "adaptd-recorder.service"}
    dpkg(host, "-P", "adaptd")
    left = [name for name in files_of(host) if not name.startswith(("var/lib/dpkg", "etc/.pwd"))]
    assert {Path(name).name.rstrip("-") for name in left} <= {
        "passwd",
        "group",
        "shadow",
        "gshadow",
    }
