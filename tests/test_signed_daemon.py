"""Signatures and hostile bundles on a real daemon: refused, counted, told, and nothing else."""

import json
import threading

import numpy as np
import pytest

from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig, ProtocolError
from runtime.signing.seal import key_id
from tests import hostile_models as hostile
from tests.bundles import write_bundle
from tests.signed import Signer
from tests.test_spec import replace

ONE = np.array([1.0, 0.0])


@pytest.fixture
def ann(tmp_path):
    return Signer(tmp_path, "ann")


def serve(models, *signers, **settings):
    """A daemon that wants signatures by some."""
    keys = json.dumps([signer.public for signer in signers])
    required = {"signing__trusted_keys": keys, "signing__require_signature": "true"}
    return DaemonProcess(models, **required | settings)


def refused(client, op, code, **fields):
    """The sentence of a request's refusal."""
    with pytest.raises(ProtocolError) as refusal:
        client.request(op, **fields)
    assert refusal.value.code == code
    return refusal.value.sentence


def events(daemon, name):
    lines = daemon.log.read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == name]


def test_only_what_is_signed_is_served(models, ann, tmp_path):
    ann.sign(models / "counter" / "1")
    Signer(tmp_path, "mallory").sign(models / "other" / "1")
    with serve(models, ann) as daemon, daemon.client() as client:
        session = client.open("counter@1")
        assert session.step(ONE).action[0] == 1
        for policy, why in (("counter@2", "is not signed"), ("other@1", "trusted are")):
            for op in ("open", "load", "swap", "shadow"):
                assert why in refused(client, op, "UNTRUSTED_BUNDLE", policy=policy)
        facts = client.request("status")
        assert facts["refused_bundles"]["untrusted"] == 8
        assert facts["signed"] == {"counter@1": {"key": key_id(ann.public), "counter": 1}}
        assert facts["loaded"] == ["counter@1"] and facts["counters"] == {"counter": 1}
        assert session.step(ONE).action[0] == 2
        told = events(daemon, "bundle_refusal")
        assert {(e["policy"], e["kind"]) for e in told} == {
            ("counter@2", "untrusted"),
            ("other@1", "untrusted"),
        }


def test_a_default_policy_without_a_signature_is_a_sentence_at_the_start(models, ann):
    with pytest.raises(InvalidConfig, match="counter@2 is not signed"):
        serve(models, ann, policy="counter")
    with pytest.raises(InvalidConfig, match="is no minisign public key"):
        DaemonProcess(models, signing__trusted_keys='["nonsense"]')
    with pytest.raises(InvalidConfig, match="no bundle could be served"):
        DaemonProcess(models, signing__require_signature="true")


def test_what_was_signed_before_does_not_come_back_unasked(models, ann):
    for version in (1, 2):
        ann.sign(models / "counter" / str(version))
    with serve(models, ann) as daemon, daemon.client() as client:
        session = client.open("counter@1")
        for _ in range(3):
            session.step(ONE)
        client.request("shadow", policy="counter@2")  # to look at one is not to use it
        client.open("counter@1").close()
        client.request("swap", policy="counter@2", session=session.id)
        assert "counter@1 is signed with counter 1, and counter with counter 2" in refused(
            client, "open", "DOWNGRADE", policy="counter@1"
        )
        refused(client, "swap", "DOWNGRADE", policy="counter@1")
        assert session.step(ONE).action[0] == 2  # half of 4
        daemon.kill()
        daemon.start()
        refused(client, "load", "DOWNGRADE", policy="counter@1")
        # the way back stays open, also after the probation
        (report,) = client.request("rollback", session=session.id)["swaps"]
        assert (report["old"], report["new"]) == ("counter@2", "counter@1")
        assert session.step(ONE).action[0] == 5
        daemon.kill()
        daemon.start()
        assert session.step(ONE).action[0] == 6
        refused(client, "open", "DOWNGRADE", policy="counter@1")
        loaded = client.request("load", policy="counter@1", allow_downgrade=True)
        assert loaded == {"policy": "counter@1"}
        client.open("counter@1").close()
        assert client.request("status")["counters"] == {"counter": 1}
        (told,) = events(daemon, "downgrade")
        assert (told["policy"], told["counter"], told["highest"]) == ("counter@1", 1, 2)
        assert client.request("status")["refused_bundles"]["downgrade"] == 1  # since the restart


def test_downgrades_may_be_allowed_for_good(models, ann):
    for version in (1, 2):
        ann.sign(models / "counter" / str(version))
    with (
        serve(models, ann, signing__allow_downgrades="true") as daemon,
        daemon.client() as client,
    ):
        client.open("counter@2")
        client.open("counter@1")
        assert client.request("status")["counters"] == {"counter": 2}


def test_a_damaged_list_of_counters_stops_the_start(models, ann):
    ann.sign(models / "counter" / "1")
    with serve(models, ann) as daemon, daemon.client() as client:
        client.open("counter@1")
        daemon.kill()
        (state,) = daemon.log.parent.glob("state")
        counters = next(state.rglob("counters.json"))
        counters.write_bytes(counters.read_bytes()[:5])
        with pytest.raises(InvalidConfig, match=r"counters\.json cannot be read: it is damaged"):
            daemon.start()
        counters.unlink()
        daemon.start()


def test_robots_are_answered_while_a_hostile_bundle_is_tried(models):
    write_bundle(models, "trap", adapt=hostile.looping_adapt(1))
    replace(models / "trap" / "1", "adapt.onnx", hostile.looping_adapt(1 << 62))
    write_bundle(models, "glutton")
    replace(models / "glutton" / "1", "policy.onnx", hostile.hungry_policy(1 << 12))
    settings = {"bundles__trial_s": "1", "bundles__trial_memory_mib": "256"}
    with DaemonProcess(models, **settings) as daemon, daemon.client() as client:
        session = client.open("counter@1")
        for policy in ("trap", "glutton"):
            said = []

            def ask(policy=policy, said=said):
                with Client(daemon.endpoint, timeout_s=60) as other:
                    said.append(refused(other, "load", "UNSAFE_BUNDLE", policy=policy))

            asking = threading.Thread(target=ask)
            asking.start()
            ticks = 0
            while asking.is_alive():
                ticks += not session.step(ONE, timeout_s=30).silent
            asking.join()
            assert ticks > 20
            assert "trying it took more than" in said[0]
        facts = client.request("status")
        assert facts["refused_bundles"]["unsafe"] == 2 and facts["loaded"] == ["counter@1"]
        assert facts["sessions"][0]["missed"] == 0
