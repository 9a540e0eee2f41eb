"""Swaps that fail on a real daemon: two strikes, quarantine, and a restart in between."""

import time

import numpy as np
import pytest

from runtime.daemon_process import DaemonProcess
from runtime.errors import ProtocolError
from runtime.messages import ActionFlag, Limit
from tests.bundles import write_bundle

ONE, FAR = np.array([1.0, 0.0]), np.array([500.0, 0.0])
LOUD = "loud@1"


@pytest.fixture
def daemon(models):
    """As everywhere, with a policy whose output overflows at 340."""
    write_bundle(models, "loud", gain=1e36)
    with DaemonProcess(models) as process:
        yield process


def refusal_of(client, op, **fields):
    with pytest.raises(ProtocolError) as refusal:
        client.request(op, **fields)
    return refusal.value


def fail_once(client, session):
    """Swap to the loud policy, and let it fail; the answer to that tick."""
    client.request("swap", policy=LOUD, session=session.id)
    session.step(ONE)
    answer = session.step(FAR)
    session.step(-FAR)
    return answer


def only_row(client):
    (row,) = client.request("status")["sessions"]
    return row


def test_two_strikes_and_a_policy_is_not_tried_again_until_released(daemon, client):
    session = client.open("counter@1")
    answer = fail_once(client, session)
    assert answer.action[0] == 10 and answer.requested[0] == 501  # the old one's, at its bound
    assert answer.flags & ActionFlag.SWAPPED and answer.generation == 3
    assert client.request("status")["quarantined"] == {}
    fail_once(client, session)
    reason = "its output is not finite or its step failed"
    assert client.request("status")["quarantined"] == {LOUD: reason}
    rows = {r["policy"]: r["quarantined"] for r in client.request("policies")["policies"]}
    assert rows[LOUD] == reason and rows["counter@1"] is None

    time.sleep(0.5)  # the strikes are written off the control path
    daemon.kill()
    daemon.start()
    for op in ("load", "swap", "shadow", "open"):
        refusal = refusal_of(client, op, policy=LOUD)
        assert refusal.code == "QUARANTINED" and "sent back twice" in refusal.sentence, op
    assert session.step(ONE).action[0] == 3  # one, one, and one now
    refusal = refusal_of(client, "release", policy="lod@1")
    assert refusal.code == "UNKNOWN_POLICY" and "Did you mean 'loud@1'?" in refusal.sentence
    assert client.request("release", policy=LOUD) == {"policy": LOUD}
    fail_once(client, session)  # it may, once more
    assert client.request("status")["quarantined"] == {}


def test_a_restart_in_the_middle_of_a_probation_keeps_the_way_back(daemon, client):
    session = client.open("counter@1")
    for _ in range(5):
        session.step(ONE)
    client.request("swap", policy=LOUD)
    for _ in range(3):
        session.step(ONE)
    daemon.kill()
    daemon.start()
    row = only_row(client)
    assert (row["policy"], row["previous_policy"]) == (LOUD, "counter@1")
    assert row["probation"] in (97, 98)  # the last tick's may not have been written
    assert session.step(ONE).generation == 2
    answer = session.step(FAR)  # 5 + 3 + 1 + 500
    assert answer.requested[0] == 509 and answer.flags & ActionFlag.SWAPPED
    assert not answer.limits & Limit.NOT_FINITE
    row = only_row(client)
    assert (row["policy"], row["probation"]) == ("counter@1", 0)
    daemon.kill()
    daemon.start()
    assert session.step(-FAR).action[0] == 9


def test_an_operator_goes_back_after_a_restart_in_a_probation(daemon, client):
    session = client.open("counter@1")
    for _ in range(5):
        session.step(ONE)
    client.request("swap", policy="counter@2")
    session.step(ONE)
    daemon.kill()
    daemon.start()
    (report,) = client.request("rollback", session=session.id)["swaps"]
    assert (report["old"], report["new"], report["carry"]) == ("counter@2", "counter@1", "kept")
    answer = session.step(ONE)
    assert answer.action[0] == 7 and answer.flags & ActionFlag.SWAPPED


def test_a_restart_goes_on_where_the_policy_before_is_gone(daemon, client, models):
    session = client.open("counter@1")
    for _ in range(5):
        session.step(ONE)
    client.request("swap", policy="other")
    session.step(ONE)
    daemon.kill()
    (models / "counter" / "1" / "policy.onnx").write_bytes(b"broken by then")
    daemon.start()
    row = only_row(client)
    assert (row["policy"], row["probation"]) == ("other@1", 0)
    assert session.step(ONE).action[0] == 7
    assert "incumbent_loss" in daemon.log.read_text()
