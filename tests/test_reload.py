"""SIGHUP: other settings and newer bundles count, sessions go on, the broken changes nothing."""

import signal
from functools import partial

import numpy as np
import pytest

from runtime.config import GuardConfig, ServeConfig, SwapConfig
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig, ProtocolError
from runtime.reload import AT_START, merge
from tests.bundles import write_bundle
from tests.keyed import KeyedDaemon, events, wait_for
from tests.signed import Signer
from tests.test_daemon import ONE


@pytest.fixture
def configured(models, tmp_path, monkeypatch):
    """A daemon that was started by `adaptd serve --config FILE`; and its file."""
    path = tmp_path / "adaptd.toml"
    path.write_text('policy = "counter@1"\n')
    monkeypatch.setattr(DaemonProcess, "arguments", ("--config", str(path)))
    with DaemonProcess(models) as daemon:
        yield daemon, path


def reload(daemon, event="reload"):
    """Ask for a reload; what the daemon says of it."""
    before = len(events(daemon, event))
    daemon.process.send_signal(signal.SIGHUP)
    return wait_for(lambda: events(daemon, event)[before:])[0]


def test_sessions_go_on_and_new_settings_count(configured):
    daemon, path = configured
    with daemon.client() as client:
        session = client.open()
        assert session.step(ONE).action[0] == 1
        path.write_text('policy = "other"\n[guard]\nstuck_ticks = 1\n')
        said = reload(daemon)
        assert said["changed"] == ["guard.stuck_ticks", "policy"] and not said["waiting"]
        assert session.step(ONE).action[0] == 2  # no step was lost
        assert session.step(ONE).limits.name == "STUCK"
        assert client.open().facts["policy"] == "other@1"
        path.write_text('policy = "other"\n')
        assert reload(daemon)["changed"] == ["guard.stuck_ticks"]
        assert session.step(ONE).action[0] == 3


def test_a_newer_version_is_in_memory_and_sessions_keep_theirs(configured, models):
    daemon, _ = configured
    with daemon.client() as client:
        session = client.open("counter")
        assert session.facts["policy"] == "counter@2"
        write_bundle(models, "counter", 3)
        assert "counter@3" in reload(daemon)["policies"]
        answer = session.step(ONE)
        assert answer.generation == 1
        assert client.open("counter").facts["policy"] == "counter@3"


def test_a_broken_newer_version_is_refused_and_the_rest_is_reloaded(configured, models):
    daemon, path = configured
    folder = write_bundle(models, "counter", 3)
    (folder / "policy.onnx").write_bytes(b"not a graph")
    path.write_text('policy = "counter@1"\nlog_level = "warning"\n')
    daemon.process.send_signal(signal.SIGHUP)
    refusal = wait_for(lambda: events(daemon, "bundle_refusal"))[0]
    assert refusal["policy"] == "counter"
    with daemon.client() as client:
        assert client.open().step(ONE).action[0] == 1
    assert not events(daemon, "opening")  # the other level counts


@pytest.mark.fault(
    "an update of the default policy is broken",
    "The version before it serves, after a reload and after a restart.",
)
def test_a_broken_update_of_the_default_policy_leaves_the_version_before(configured, models):
    daemon, path = configured
    path.write_text('policy = "counter"\n')
    (write_bundle(models, "counter", 3) / "policy.onnx").write_bytes(b"not a graph")
    reload(daemon)
    for _ in range(2):
        refusal = [each for each in events(daemon, "bundle_refusal") if "instead" in each][-1]
        with daemon.client() as client:
            assert client.open().facts["policy"] == refusal["instead"] == "counter@2"
        daemon.kill()
        daemon.start()
    for version in (1, 2):
        (models / "counter" / str(version) / "policy.onnx").write_bytes(b"neither")
    daemon.kill()
    with pytest.raises(InvalidConfig, match="did not start"):
        daemon.start()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("max_sesions = 5\n", "Did you mean 'max_sessions'?"),
        ("[guard]\nmax_age_s = -1\n", "guard.max_age_s"),
        ("[guard]\nmax_age_s = inf\n", "guard.max_age_s"),
        ("idle_after_s = inf\n", "idle_after_s"),
        ("not toml", "is not TOML"),
        ('policy = "conter"\n', "Did you mean 'counter'?"),
        (None, "cannot be read"),
    ],
)
def test_what_cannot_be_used_changes_nothing_and_is_said(configured, content, complaint):
    daemon, path = configured
    with daemon.client() as client:
        session = client.open()
        session.step(ONE)
        path.unlink() if content is None else path.write_text(content)
        said = reload(daemon, "reload_failure")
        assert said["level"] == "warning" and complaint in said["reason"]
        answer = session.step(ONE)
        assert answer.action[0] == 2 and not answer.limits
        assert client.open().facts["policy"] == "counter@1"


def test_settings_of_the_start_wait_for_a_restart(configured, models):
    daemon, path = configured
    path.write_text(
        'policy = "counter@1"\nring_size = 8\nmax_sessions = 1\n[realtime]\nmlock = true\n'
    )
    said = reload(daemon)
    assert said["waiting"] == ["max_sessions", "realtime.mlock", "ring_size"]
    assert not said["changed"]
    with daemon.client() as client:
        client.open(), client.open()
        assert client.request("status")["ring_size"] == 1024


def test_ticks_under_way_are_not_disturbed_by_reloads(configured):
    daemon, _ = configured
    with daemon.client() as client:
        session, small = client.open(), np.array([0.001, 0.0])
        for k in range(300):
            if k % 30 == 0:
                daemon.process.send_signal(signal.SIGHUP)
            answer = session.step(small)
            assert not answer.silent
        np.testing.assert_allclose(answer.action[0], 0.3, rtol=1e-3)


def test_limits_of_clients_change_with_a_reload(models, keys, monkeypatch, tmp_path):
    path = tmp_path / "adaptd.toml"
    path.write_text("")
    monkeypatch.setattr(KeyedDaemon, "arguments", ("--config", str(path)))
    with KeyedDaemon(models, keys) as daemon, daemon.of("robot") as robot:
        robot.open("counter@1")
        path.write_text("[keys]\nsessions = 1\n")
        assert reload(daemon)["changed"] == ["keys.sessions"]
        wait_for(lambda: events(daemon, "allowlist"))  # the door has looked
        with pytest.raises(ProtocolError, match="has 1 sessions open"):
            robot.open("counter@1")


def test_every_setting_that_waits_is_one():
    known = {
        f"{name}.{inner}" if hasattr(field.annotation, "model_fields") else name
        for name, field in ServeConfig.model_fields.items()
        for inner in getattr(field.annotation, "model_fields", [""])
    }
    assert known >= AT_START


def test_a_merge_takes_what_may_change_and_names_the_rest():
    before = ServeConfig(guard=GuardConfig(max_age_s=2), swap=SwapConfig(blend_ticks=3))
    read = ServeConfig(
        guard=GuardConfig(stuck_ticks=4), swap=SwapConfig(blend_ticks=3), endpoint="ipc:///tmp/x"
    )
    config, changed, waiting = merge(before, read)
    assert config.guard == GuardConfig(max_age_s=1.0, stuck_ticks=4)
    assert config.swap.blend_ticks == 3 and config.endpoint == before.endpoint
    assert (changed, waiting) == (["guard.max_age_s", "guard.stuck_ticks"], ["endpoint"])


def test_a_daemon_without_a_file_reloads_its_bundles(daemon, client, models):
    client.open("other")
    write_bundle(models, "other", 2, carry_size=3)
    said = reload(daemon)
    assert said["policies"] == ["other@1", "other@2"] and not said["changed"]


def test_whose_bundles_count_may_change_and_sessions_go_on(configured, tmp_path):
    daemon, path = configured
    public = Signer(tmp_path).public
    with daemon.client() as client:
        session = client.open()
        before = path.read_text()
        path.write_text(
            f'{before}[signing]\nrequire_signature = true\ntrusted_keys = ["{public}"]\n'
        )
        assert reload(daemon)["changed"] == ["signing.require_signature", "signing.trusted_keys"]
        assert session.step(ONE).action[0] == 1
        for ask in (client.open, partial(client.request, "load", policy="other")):
            with pytest.raises(ProtocolError) as refusal:  # whether it is in memory or not
                ask()
            assert refusal.value.code == "UNTRUSTED_BUNDLE"
        path.write_text(f"{before}[signing]\nrequire_signature = true\n")
        assert "trusted" in reload(daemon, "reload_failure")["reason"]
        with pytest.raises(ProtocolError):  # as before
            client.request("load", policy="other")
        path.write_text(before)
        reload(daemon)
        assert client.request("load", policy="other")["policy"] == "other@1"
