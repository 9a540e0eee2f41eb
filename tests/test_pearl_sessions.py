"""Sessions of a PEARL bundle: what the runtime knows of it is options, boundaries and a carry."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from runtime.daemon_process import DaemonProcess
from runtime.errors import ProtocolError
from runtime.messages import Adaptation, unpack
from runtime.session_requests import options_bytes
from tests.loops import EPISODE, INVALID, NEW_TASK, NOTHING, frame, make_loop, session_of, tick
from tests.pearl_bundle import write_posterior
from tests.test_swap import swap

SHIPPED = Path(__file__).parents[1] / "exported_models"
RECURRENT = "halfcheetah-vel-rl2-gru"
K = 8


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_posterior(models)
    shutil.copytree(SHIPPED / RECURRENT, models / RECURRENT)
    return models


@pytest.fixture
def loop(models):
    return make_loop(models, "posterior")


def row(seq):
    """An observation, a reward and the action that the robot did before, the same every time."""
    rng = np.random.default_rng(seq)
    return rng.normal(size=17), rng.normal(), rng.uniform(-1, 1, 6)


def drive(loop, seqs, flags=NOTHING):
    """The actions answered; `flags` go with the first of them."""
    answers = []
    for seq in seqs:
        obs, reward, applied = row(seq)
        answers.append(tick(loop, seq, obs, reward, flags, applied)[1][:6].tolist())
        flags = NOTHING
    return answers


def carry(loop):
    return session_of(loop).memory.carry_arrays()


def factors(loop):
    """Transitions that count, and dropped ones."""
    return carry(loop)["tally"][0].tolist()


def newest(loop):
    return carry(loop)["factors"][0, :, 0].tolist()


def set_options(loop, **values):
    session = session_of(loop)
    session.options = options_bytes(session.policy.manifest, session.options, values)


def test_every_step_but_the_first_is_evidence_across_episodes_too(loop):
    drive(loop, range(3))
    drive(loop, range(3, 5), EPISODE)
    assert factors(loop) == [4, 0]
    drive(loop, range(5, 40))
    assert factors(loop) == [K, 0]


def test_a_new_task_is_the_prior(loop):
    drive(loop, range(5))
    drive(loop, range(5, 6), NEW_TASK)
    assert factors(loop) == [0, 0]


def test_holes_make_no_transition(loop):
    """Of a gap, of an invalid observation, of a frozen time: the belief has no part of them."""
    drive(loop, range(3))
    before = carry(loop)
    drive(loop, [7])  # 3 to 6 are lost
    assert factors(loop) == [2, 0]
    drive(loop, [8])
    assert factors(loop) == [3, 0] and newest(loop) != before["factors"][0, :, 0].tolist()
    drive(loop, [9], INVALID)
    drive(loop, [10])
    assert factors(loop) == [3, 0]
    session_of(loop).frozen = True
    drive(loop, range(11, 14))
    session_of(loop).frozen = False
    drive(loop, [14])
    assert factors(loop) == [3, 0]
    drive(loop, [15])
    assert factors(loop) == [4, 0]


def test_what_a_hole_left_is_what_a_stream_without_it_has(loop, models):
    """The transition from 7 to 8 is the same evidence, whatever came before."""
    drive(loop, [0, 1, 2, 7, 8])
    other = make_loop(models, "posterior")
    drive(other, [7, 8])
    assert newest(loop) == newest(other)


@pytest.mark.parametrize("broken", [{"reward": np.nan}, {"obs": [np.nan] * 17}])
def test_a_reading_that_is_not_finite_is_refused_counted_and_no_evidence(loop, broken):
    drive(loop, range(4))
    before = carry(loop)
    obs, reward, applied = row(4)
    bad = {"obs": obs, "reward": reward, "applied": applied} | broken
    reply = loop.tick(frame(4, **bad), 0).reply
    assert b"nan" in reply and unpack(reply).status
    assert session_of(loop).counters.refused == 1
    assert all(np.array_equal(before[name], now) for name, now in carry(loop).items())
    drive(loop, [5])  # the robot goes on: what happened meanwhile, nobody saw
    assert session_of(loop).counters.missed == 1
    for name in ("factors", "tally"):
        assert np.array_equal(before[name], carry(loop)[name])


def test_options_are_a_sessions_own(models):
    wide, narrow = (make_loop(models, "posterior") for _ in range(2))
    set_options(narrow, window=2)
    for each in (wide, narrow):
        drive(each, range(K + 1))
    assert drive(wide, [20]) != drive(narrow, [20])
    assert carry(wide)["factors"].tobytes() == carry(narrow)["factors"].tobytes()
    set_options(narrow, window=K)
    assert drive(wide, [21]) == drive(narrow, [21])


def test_a_sampled_z_replays_exactly(models):
    def session():
        loop = make_loop(models, "posterior")
        set_options(loop, sample_z=1)
        return loop

    one, other = session(), session()
    actions = [drive(each, range(5)) + drive(each, range(5, 12), EPISODE) for each in (one, other)]
    assert actions[0] == actions[1]
    z = carry(one)["z"]
    drive(one, [12], EPISODE)
    assert not np.array_equal(z, carry(one)["z"])


def test_the_status_follows_the_posteriors_variance(loop):
    seen = []
    for seq in range(K):
        obs, reward, applied = row(seq)
        header, _ = tick(loop, seq, obs, reward, NOTHING, applied)
        variance = session_of(loop).stepper.belief["z_variance"][0]
        width = np.sqrt(variance).mean()  # of the prior: 1
        expected = (
            Adaptation.ADAPTED if width < 0.35
            else Adaptation.ADAPTING if width < 0.8 else Adaptation.UNADAPTED
        )  # fmt: skip
        seen.append((header.adaptation, expected, width))
    assert [status for status, _, _ in seen] == [expected for _, expected, _ in seen]
    assert seen[0][1] == Adaptation.UNADAPTED and seen[-1][1] != Adaptation.UNADAPTED


@pytest.mark.parametrize("before", [3, 30])
def test_a_swap_from_a_hidden_state_and_back_rebuilds_each_memory(models, before):
    """Against sessions that had one policy all along."""
    swapped, recurrent, posterior = (
        make_loop(models, name) for name in (RECURRENT, RECURRENT, "posterior")
    )
    seqs = iter(range(1000))

    def all_drive(count, *, acting):
        now = [next(seqs) for _ in range(count)]
        answers = {id(each): drive(each, now) for each in (swapped, recurrent, posterior)}
        assert answers[id(swapped)] == answers[id(acting)]

    all_drive(before, acting=recurrent)
    report = swap(swapped, "posterior")
    assert (report.carry, report.replayed_steps) == ("replayed", before)
    all_drive(K, acting=posterior)
    for name, value in carry(posterior).items():
        assert np.array_equal(value, carry(swapped)[name]), name
    assert swap(swapped, RECURRENT).replayed_steps == before + K
    all_drive(5, acting=recurrent)


def test_a_session_without_rewards_is_refused_at_open_with_the_fields_name(models):
    with DaemonProcess(models) as daemon, daemon.client() as client:
        with pytest.raises(ProtocolError, match="posterior@1 adapts from prev_reward") as refusal:
            client.open("posterior", sends_reward=False)
        assert refusal.value.code == "NEEDS_REWARD"
        session = client.open("posterior", options={"window": 3, "sample_z": 1})
        assert session.facts["options"] == {"window": 3, "doubt_window": 8, "sample_z": 1}
        assert session.facts["belief"][0] == {
            "name": "z_mean", "shape": [3], "role": "mean", "of": "latent",
        }  # fmt: skip
        with pytest.raises(ProtocolError, match="option 'window' is 9, allowed 1 to 8"):
            client.request("options", session=session.id, values={"window": 9})
