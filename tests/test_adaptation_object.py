"""Adaptation as an object: frozen, taken out, put back, here or on another daemon."""

import base64
import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from runtime.adaptation import AdaptationMonitor
from runtime.daemon_process import DaemonProcess
from runtime.errors import ProtocolError
from runtime.messages import ActionFlag, Adaptation
from runtime.store import Store
from tests.bundles import write_bundle
from tests.odd_bundles import write_boosted

ONE, NOTHING, SMALL = np.array([[1.0, 0.0], [0.0, 0.0], [1 / 16, 0.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bundles for all tests of this file."""
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "counter", 1)
    write_bundle(models, "counter", 2, gain=0.5)
    write_bundle(models, "other", carry_size=3)
    write_boosted(models)
    return models


@pytest.fixture(scope="module")
def here(folder):
    with DaemonProcess(folder) as process, process.client() as connection:
        yield connection


@pytest.fixture(scope="module")
def there(folder):
    with DaemonProcess(folder) as process, process.client() as connection:
        yield connection


def played(client, policy="counter@1", ticks=3):
    session = client.open(policy)
    for _ in range(ticks):
        session.step(ONE)
    return session


def pushes(session, count=2, **named):
    return [session.step(ONE, **named).action[0] for _ in range(count)]


def trip(session, seed, ticks=20):
    """What a session answers to the same observations, rewards, boundaries and echoes."""
    rng = np.random.default_rng(seed)
    for k in range(ticks):
        obs, applied = rng.uniform(-1, 1, (2, 2))
        answer = session.step(obs, rng.normal(), applied, episode_start=k % 6 == 4)
        yield answer.requested.tobytes(), answer.action.tobytes(), answer.adaptation


def snapshot(client, session):
    return client.request("snapshot", session=session.id)["snapshot"]


def restore(client, session, text):
    return client.request("restore", session=session.id, snapshot=text)


def refusal_of(client, op, **fields):
    with pytest.raises(ProtocolError) as refusal:
        client.request(op, **fields)
    return refusal.value


def test_a_frozen_session_acts_and_does_not_change(here):
    session = played(here)
    facts = here.request("freeze", session=session.id, frozen=True)
    assert facts == {"sessions": [session.id], "frozen": True}
    assert pushes(session) == [4, 4]
    assert session.step(ONE).flags & ActionFlag.FROZEN
    here.request("freeze", session=session.id, frozen=False)
    assert pushes(session) == [4, 5]
    assert not session.step(ONE).flags & ActionFlag.FROZEN


def test_a_reset_forgets_though_the_session_is_frozen(here):
    session = played(here)
    here.request("freeze", session=session.id)
    here.request("reset", session=session.id)
    assert session.step(ONE).flags == ActionFlag.FROZEN | ActionFlag.FRESH
    assert pushes(session) == [1, 1]
    here.request("freeze", session=session.id, frozen=False)
    assert pushes(session) == [1, 2]


def test_a_new_task_forgets_though_the_session_is_frozen(here):
    session = played(here)
    here.request("freeze", session=session.id)
    assert session.step(ONE, new_task=True).action[0] == 1
    here.request("freeze", session=session.id, frozen=False)
    assert pushes(session) == [1, 2]


def test_what_a_frozen_session_saw_is_not_replayed_either(here):
    session = played(here)
    here.request("freeze", session=session.id)
    pushes(session)
    here.request("freeze", session=session.id, frozen=False)
    (report,) = here.request("swap", policy="other", session=session.id)["swaps"]
    assert report["carry"] == "replayed" and pushes(session) == [4, 5]


@pytest.mark.parametrize("ticks", [0, 1, 30])
def test_a_restored_session_gives_the_answers_that_followed_the_snapshot(here, there, ticks):
    """Bit for bit: on the same session later, and on a new one of another daemon."""
    first = here.open("counter@1")
    list(trip(first, seed=1, ticks=ticks))
    taken = snapshot(here, first)
    expected = list(trip(first, seed=2))
    reply = restore(here, first, taken)
    assert reply["session"] == first.id and reply["from_seq"] == ticks + 20
    assert list(trip(first, seed=2)) == expected
    second = there.open("counter@1")
    restore(there, second, taken)
    assert list(trip(second, seed=2)) == expected


def test_a_restored_session_is_not_fresh(here):
    first, second = played(here), here.open("counter@1")
    restore(here, second, snapshot(here, first))
    answer = second.step(ONE)
    assert answer.action[0] == 4 and not answer.flags & ActionFlag.FRESH


def test_a_snapshot_of_a_session_that_was_reset_is_the_prior(here):
    first, second = played(here), played(here)
    here.request("reset", session=first.id)
    taken = snapshot(here, first)
    restore(here, second, taken)
    assert second.step(ONE).action.tolist() == [1, 0]
    assert first.step(ONE).action.tolist() == [1, 0]


def test_a_snapshot_brings_its_options(here):
    first, second = here.open("boosted", options={"boost": 2.0}), here.open("boosted")
    restore(here, second, snapshot(here, first))
    assert second.step(ONE).action[0] == 3


def test_a_swap_after_a_restore_replays_the_snapshots_transitions(here):
    first, second = played(here, ticks=7), here.open("counter@1")
    restore(here, second, snapshot(here, first))
    second.step(ONE)
    (report,) = here.request("swap", policy="other", session=second.id)["swaps"]
    assert report["replayed_steps"] == 8 and second.step(ONE).action[0] == 9


@pytest.mark.parametrize("policy", ["counter@2", "other@1"])
def test_another_policys_snapshot_is_refused(here, policy):
    first, second = played(here, policy), played(here)
    refusal = refusal_of(here, "restore", session=second.id, snapshot=snapshot(here, first))
    assert refusal.code == "OTHER_POLICY" and f"it is of {policy}" in refusal.sentence
    assert pushes(second) == [4, 5]


def test_a_snapshot_of_a_bundle_that_has_changed_is_refused(here, models):
    """The same name and version, and other bytes."""
    taken = snapshot(here, played(here))
    (models / "counter" / "1").rename(models / "gone")
    write_bundle(models, "counter", 1, gain=2.0)
    with DaemonProcess(models) as daemon, daemon.client() as client:
        session = client.open("counter@1")
        refusal = refusal_of(client, "restore", session=session.id, snapshot=taken)
    assert refusal.code == "OTHER_POLICY"
    assert "it is of counter@1, and not of this counter@1" in refusal.sentence


def spoilt(text, **changes):
    """A snapshot with other arrays, or other facts about it."""
    arrays = load(base64.b64decode(text))
    about = json.loads(arrays["about"].tobytes())
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value
        else:
            about[name] = value
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return base64.b64encode(save(arrays)).decode()


SPOILT = {
    "non-finite": ({"carry.h": np.full(2, np.nan, np.float32)}, "'carry.h' is not finite"),
    "of another shape": ({"carry.h": np.zeros(3, np.float32)}, "'carry.h' is float32 [3]"),
    "without its rows": ({"ring.seqs": np.zeros(9, np.uint64)}, "'ring.boundaries' is uint32 [3]"),
    "of another format": ({"format": "adaptd-snapshot-9"}, "its format is 'adaptd-snapshot-9'"),
    "with a wrong status": ({"adaptation": 99}, "99 is not a valid Adaptation"),
    "with wrong steps": ({"monitor_steps": -1}, "-1"),
    "with endless steps": ({"monitor_steps": 2**40}, str(2**40)),
    "with infinite steps": ({"monitor_steps": float("inf")}, "it is no snapshot"),
    "with a number for its rows": (
        {"ring.seqs": np.array(9, np.uint64)},
        "'ring.seqs' is uint64 []",
    ),
    "with much to say": ({"more": [0] * 1000}, "it is no snapshot: its note is too long"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_snapshot_that_was_spoilt_is_refused_and_changes_nothing(here, kind):
    session, (changes, sentence) = played(here), SPOILT[kind]
    text = spoilt(snapshot(here, session), **changes)
    refusal = refusal_of(here, "restore", session=session.id, snapshot=text)
    assert refusal.code == "OTHER_POLICY" and sentence in refusal.sentence
    assert pushes(session) == [4, 5]


def test_garbage_is_no_snapshot(here):
    session, id_ = played(here), {}
    id_["session"] = session.id
    assert refusal_of(here, "restore", **id_, snapshot="???").code == "INVALID_REQUEST"
    header = (1 << 20).to_bytes(8, "little") + b" " * (1 << 20)
    for content in (b"", b"garbage", bytes(100), header, save({"about": np.zeros(3, np.uint8)})):
        text = base64.b64encode(content).decode()
        refusal = refusal_of(here, "restore", **id_, snapshot=text)
        assert refusal.code == "OTHER_POLICY" and "it is no snapshot" in refusal.sentence
    assert refusal_of(here, "restore", **id_).code == "INVALID_REQUEST"
    both = {"snapshot": snapshot(here, session), "last_good": True}
    assert refusal_of(here, "restore", **id_, **both).code == "INVALID_REQUEST"
    assert pushes(session) == [4, 5]


def test_the_last_good_memory_is_there_after_a_hundred_ticks_and_a_restart(daemon, client):
    session = client.open("counter@1")
    for _ in range(99):
        session.step(SMALL)
    refusal = refusal_of(client, "restore", session=session.id, last_good=True)
    assert refusal.code == "NOTHING_GOOD" and "adapted for long enough" in refusal.sentence
    session.step(SMALL)
    for _ in range(30):
        session.step(ONE)
    daemon.kill()
    daemon.start()
    reply = client.request("restore", session=session.id, last_good=True)
    assert (reply["from_seq"], reply["adaptation"]) == (130, "adapted")
    assert session.step(NOTHING).action[0] == 6.25


def test_a_daemon_with_all_its_sessions_open_can_still_restore_and_swap(models):
    with DaemonProcess(models, max_sessions="1") as daemon, daemon.client() as client:
        session = played(client)
        restore(client, session, snapshot(client, session))
        for policy in ("counter@2", "counter@1", "counter@2"):  # each on probation still
            client.request("swap", policy=policy)
            session.step(NOTHING)
        assert session.step(NOTHING).action[0] == 1.5


def test_options_change_actions_and_are_limited(here):
    session = here.open("boosted")
    assert session.facts["options"] == {"boost": 0.0}
    facts = here.request("options", session=session.id, values={"boost": 4.5})
    assert facts == {"options": {"boost": 4.5}} and session.step(ONE).action[0] == 5.5
    for values, sentence in (
        ({"boots": 1.0}, "boosted has no option 'boots'"),
        ({"boost": 5.5}, "option 'boost' is 5.5, allowed -1 to 5"),
        ({"boost": float("nan")}, ""),
    ):
        refusal = refusal_of(here, "options", session=session.id, values=values)
        assert refusal.code in ("UNKNOWN_OPTION", "INVALID_REQUEST") and sentence in str(refusal)
    assert session.step(ONE).action[0] == 6.5
    again = here.open(session=session.id, options={"boost": -1.0})
    assert again.facts["options"] == {"boost": -1.0} and again.step(ONE).action[0] == 2


def test_options_survive_a_restart(models):
    write_boosted(models)
    with DaemonProcess(models) as daemon, daemon.client() as client:
        session = client.open("boosted", options={"boost": 3.0})
        daemon.kill()
        daemon.start()
        assert session.step(ONE).action[0] == 4


def test_the_status_has_hysteresis(folder):
    """Fractions of the width at the prior: begun below 0.8, reached below 0.35, lost above 0.5."""
    policy = Store(folder).load("counter@1")
    prior = float(np.sqrt(policy.prior_belief["spread"].item()))
    monitor, seen = AdaptationMonitor(policy), []
    for fraction in (1.0, 0.81, 0.79, 0.36, 0.49, 0.34, 0.36, 0.49, 0.51, 0.49, 0.9):
        spread = np.array([[(fraction * prior) ** 2]], np.float32)
        seen.append(monitor.follow({"spread": spread}).name.lower())
    expected = ["unadapted"] * 2 + ["adapting"] * 3 + ["adapted"] * 3 + ["adapting"] * 2
    assert seen == [*expected, "unadapted"]
    monitor.invalidate()
    assert monitor.status == Adaptation.INVALID
    monitor.forget()
    assert monitor.status == Adaptation.UNADAPTED
