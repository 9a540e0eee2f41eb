"""Shared fixtures, and the rule that CI skips nothing."""

import os
from pathlib import Path

import pytest

from runtime.access.key_folder import KeyFolder
from runtime.daemon_process import DaemonProcess
from runtime.vetting.passed import Passed
from sim.headless import choose_renderer
from tests.bundles import write_bundle
from tests.keyed import make_keys

pytest_plugins = ("tests.reliability_report",)
choose_renderer()  # before any test module imports mujoco

SHIPPED = Path(__file__).parents[1] / "exported_models"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where TESTS_MUST_NOT_SKIP is set, as in CI, a skipped test has failed."""
    report = yield
    if report.skipped and os.environ.get("TESTS_MUST_NOT_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def tried_before(tmp_path_factory):
    """Hundreds of daemons serve these bundles, and the trial of one takes as long as a daemon's
    start. That it is made, and what it finds, is in tests/test_vetting.py."""
    folder = tmp_path_factory.mktemp("tried")
    passed = Passed(folder / "passed.json")
    ours = small_bundles(folder / "models")
    for bundles in (SHIPPED, ours):
        for manifest in sorted(bundles.glob("*/*/manifest.json")):
            passed.add(manifest.read_bytes())
    DaemonProcess.passed = passed.path


def small_bundles(folder: Path) -> Path:
    """Hand-made ones; tests.bundles says what they compute."""
    write_bundle(folder, "counter", 1)
    write_bundle(folder, "counter", 2, gain=0.5)
    write_bundle(folder, "other", 1, carry_size=3)
    return folder


@pytest.fixture
def models(tmp_path) -> Path:
    """A folder of small hand-made bundles."""
    return small_bundles(tmp_path / "models")


@pytest.fixture
def daemon(models):
    """A real daemon process on an ipc endpoint, serving `models`."""
    with DaemonProcess(models) as process:
        yield process


@pytest.fixture
def client(daemon):
    """A connection to `daemon`."""
    with daemon.client() as connection:
        yield connection


@pytest.fixture
def keys(tmp_path) -> KeyFolder:
    """A folder of keys; tests.keyed says whose, and has a daemon that asks for them."""
    return make_keys(tmp_path / "keys")
