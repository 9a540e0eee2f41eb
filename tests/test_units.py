"""The unit files: valid to systemd, hardened, each directive with its reason, settings complete."""

import json
import re
import shutil
import subprocess
import tomllib

import pytest

from runtime.config import ServeConfig, load_config
from runtime.reload import AT_START
from tests.unit_sandbox import UNITS, read_unit

SERVICES = ("adaptd", "adaptd-exporter", "adaptd-recorder")
DROP_INS = ("adaptd-tcp", "adaptd-realtime")
NEWER = ("RestartSteps", "RestartMaxDelaySec")
"""Directives of systemd 254, which an older one says it does not know, and leaves out."""


def analyze(*arguments):
    """Run systemd-analyze."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze (Debian: systemd)")
    command = ["systemd-analyze", "--no-pager", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def installed(tmp_path):
    """The units as systemd would find them, with a program that exists here."""
    for name in SERVICES:
        text = (UNITS / f"{name}.service").read_text()
        text = text.replace("/usr/lib/adaptd/bin/adaptd", shutil.which("true"))
        (tmp_path / f"{name}.service").write_text(text)
    return tmp_path


def with_drop_ins(folder, *names):
    """The daemon's unit with drop-ins."""
    (folder / "adaptd.service.d").mkdir()
    for name in names:
        shutil.copy(UNITS / f"{name}.conf", folder / "adaptd.service.d")
    return folder / "adaptd.service"


@pytest.mark.parametrize("drop_ins", [(), DROP_INS[:1], DROP_INS[1:], DROP_INS])
def test_systemd_finds_no_fault_in_any_unit_or_drop_in(installed, drop_ins):
    with_drop_ins(installed, *drop_ins)
    result = analyze("verify", *(installed / f"{name}.service" for name in SERVICES))
    said = [line for line in result.stderr.splitlines() if not any(n in line for n in NEWER)]
    assert result.returncode == 0 and not said


@pytest.mark.parametrize("name", SERVICES)
def test_every_unit_is_exposed_to_one_and_a_half_at_most(name):
    """systemd's measure, from 0 to 10; a unit that says nothing has 9.6."""
    result = analyze("security", "--offline=yes", "--threshold=15", UNITS / f"{name}.service")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("drop_ins", [DROP_INS[:1], DROP_INS[1:], DROP_INS])
def test_with_drop_ins_the_daemon_is_not_exposed_to_more_either(installed, drop_ins):
    unit = with_drop_ins(installed, *drop_ins)
    result = analyze("security", "--offline=yes", "--threshold=15", unit)
    assert result.returncode == 0, result.stdout.splitlines()[-1]


def test_the_daemon_as_it_is_shipped_cannot_reach_a_network_or_gain_anything():
    unit = read_unit(UNITS / "adaptd.service")
    expected = {
        "PrivateNetwork": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict",
        "MemoryDenyWriteExecute": "yes", "Type": "notify", "UMask": "0007",
        "RestrictAddressFamilies": "AF_UNIX AF_NETLINK",
    }  # fmt: skip
    assert {name: unit[name][-1] for name in expected} == expected
    assert unit["CapabilityBoundingSet"] == []


def test_the_tcp_drop_in_keeps_the_family_that_libzmq_needs():
    unit = read_unit(UNITS / "adaptd.service", UNITS / "adaptd-tcp.conf")
    assert {"AF_NETLINK", "AF_INET", "AF_UNIX"} <= set(unit["RestrictAddressFamilies"][-1].split())
    assert unit["PrivateNetwork"][-1] == "no"


@pytest.mark.parametrize("path", sorted([*UNITS.glob("*.service"), *UNITS.glob("adaptd-*.conf")]))
def test_every_directive_has_its_reason(path):
    """Those that belong together share a comment, which is above the first."""
    section, reason = "", False
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section, reason = line, line in ("[Unit]", "[Install]")
        elif line.startswith("#"):
            reason = True
        elif not line:
            reason = False
        else:
            assert reason, f"{section} {line}"


def test_the_shipped_settings_are_those_that_count_by_default(monkeypatch):
    monkeypatch.delenv("ADAPTD_ENDPOINT", raising=False)
    config = load_config(UNITS / "adaptd.toml")
    told = {"endpoint", "models", "policy"}
    assert config.model_fields_set - set(_sections()) == told
    assert config.model_dump(exclude=told) == ServeConfig().model_dump(exclude=told)


def test_every_setting_is_in_the_shipped_file_with_its_default_and_what_a_reload_does():
    text = (UNITS / "adaptd.toml").read_text()
    written = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    fields = ServeConfig.model_fields
    assert set(written) == set(fields)
    defaults = json.loads(ServeConfig().model_dump_json())
    examples = {"endpoint", "models", "policy", "state", "keys.folder", "keys.secret"}
    for name, value in written.items():
        inside = value if isinstance(value, dict) else {"": value}
        expected = defaults[name] if isinstance(value, dict) else {"": defaults[name]}
        assert set(inside) == set(expected), name
        for inner, found in inside.items():
            key = f"{name}.{inner}" if inner else name
            if key not in examples | {"realtime.priority"}:
                assert found == expected[inner], key
            assert (key in AT_START) == _waits(text, name, inner), key


def _sections():
    return [n for n, f in ServeConfig.model_fields.items() if hasattr(f.annotation, "model_fields")]


def _waits(text, name, inner):
    """Whether the comment above a setting, or above its section, says that it takes a restart."""
    if inner:
        before, _, text = text.partition(f"[{name}]\n")
        if "(restart)" in before.rpartition("\n\n")[2]:
            return True
    block = re.split(rf"^(?:# )?{inner or name} = ", text, maxsplit=1, flags=re.MULTILINE)[0]
    comments = re.split(r"^(?:# )?\w+ = .*\n", block, flags=re.MULTILINE)[-1]
    return "(restart)" in comments.rpartition("\n\n")[2]


def test_the_files_of_users_and_folders_are_what_systemd_takes(tmp_path):
    if not shutil.which("systemd-sysusers") or not shutil.which("systemd-tmpfiles"):
        pytest.skip("needs systemd-sysusers and systemd-tmpfiles (Debian: systemd)")
    (tmp_path / "etc").mkdir()
    for tool, name in (("sysusers", "sysusers.conf"), ("tmpfiles", "tmpfiles.conf")):
        create = ["--create"] if tool == "tmpfiles" else []
        command = [f"systemd-{tool}", f"--root={tmp_path}", *create, UNITS / name]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
    assert "robot-clients:x:" in (tmp_path / "etc/group").read_text()
    keys = (tmp_path / "etc/adaptd/keys").stat()
    assert keys.st_mode & 0o777 == 0o750
