"""Sessions stepped together: each gets the bits that it would get alone."""

import struct

import numpy as np
import pytest

from runtime.messages import HEADER_SIZE, ActionFlag, Code, Kind, Limit, unpack
from runtime.reception import STREAM
from runtime.stepper import Stepper
from runtime.store import Store
from tests.bundles import write_bundle
from tests.conftest import SHIPPED
from tests.loops import EPISODE, NEW_TASK, NOTHING, Bench, frame
from tests.odd_bundles import FRAGILE_FROM, write_boosted, write_crowded, write_fragile

GRU = "halfcheetah-vel-rl2-gru"


@pytest.fixture
def kinds(models):
    """Bundles that differ in what they take and in what a boundary does."""
    write_bundle(models, "noisy", noisy=True)
    write_boosted(models)
    rules = {"episode": "prior", "task": "prior", "gap": "prior"}
    write_bundle(models, "strict", carry_size=3, boundaries=rules)
    return models


def traffic(bench, seed=0, rounds=5):
    """Frames of every session, round by round, with boundaries, gaps, echoes and rewards."""
    rng = np.random.default_rng(seed)
    seqs = dict.fromkeys(bench.loop.registry.live, 0)
    for t in range(rounds):
        frames = []
        for i, session in bench.loop.registry.live.items():
            seqs[i] += 3 if (i + t) % 11 == 10 else 1
            flags = EPISODE if (i + t) % 3 == 0 else NOTHING
            flags |= NEW_TASK if (i + 2 * t) % 7 == 6 else NOTHING
            applied = rng.uniform(-1, 1, session.action_size) if i % 2 else None
            obs = rng.standard_normal(session.obs_size)
            frames.append(frame(seqs[i], obs, rng.normal(), flags, applied, session=i))
        yield frames


def opened(models, references, count):
    """So many sessions of these policies, in turn; options differ."""
    bench = Bench(models)
    for i in range(1, count + 1):
        session = bench.open(references[i % len(references)], session=i)
        options = session.policy.manifest.options
        session.options = struct.pack(f"<{len(options)}f", *(0.1 * i for _ in options))
    return bench


def said(reply):
    """An answer without its times."""
    header = unpack(reply)
    return header._replace(time_ns=0, queue_ns=0, inference_ns=0), reply[HEADER_SIZE:]


def note_sizes(bench, reference):
    """The set of batch sizes that a policy is stepped at from now on."""
    stepper, sizes = bench.serve(reference).stepper, set()
    choose = stepper.choose
    stepper.choose = lambda batch: (sizes.add(batch), choose(batch))
    return sizes


def assert_alike(models, references, count):
    """The sizes at which the first of the policies was stepped in batches."""
    together, alone = (opened(models, references, count) for _ in range(2))
    sizes = note_sizes(together, references[0])
    for frames in traffic(together):
        batch = [said(result.reply) for result in together.loop.tick_all(frames, 0)]
        assert batch == [said(alone.loop.tick(f, 0).reply) for f in frames]
        assert {header.kind for header, _ in batch} == {Kind.ACTION}
    for i, session in together.loop.registry.live.items():
        ours, theirs = session.memory, alone.loop.registry.live[i].memory
        assert list(map(bytes, ours.carry)) == list(map(bytes, theirs.carry))
        np.testing.assert_array_equal(ours.since(0).rows, theirs.since(0).rows)
    return sizes


@pytest.mark.parametrize("count", [1, 2, 7, 64, 65, 130])
def test_sessions_stepped_together_get_the_bits_of_sessions_stepped_alone(kinds, count):
    sizes = assert_alike(kinds, ["counter@1"], count)
    assert max(sizes) == min(count, 64) and (count % 64 or 64) in sizes


def test_a_policy_with_a_large_carry_is_stepped_fewer_at_once(kinds, monkeypatch):
    """Buffers of all sizes up to 64 take 2080 rows; a trial tries only a few of them."""
    row_bytes = 4 * (2 + 2 + 1 + 1 + 2) + 4 * (2 + 2 + 2)  # inputs and outputs of `counter`
    monkeypatch.setattr("runtime.stepper.MAX_BUFFER_BYTES", 6 * row_bytes)
    assert assert_alike(kinds, ["counter@1"], 8) == {3, 2}
    monkeypatch.setattr("runtime.stepper.MAX_BUFFER_BYTES", 0)
    assert assert_alike(kinds, ["counter@1"], 2) == {1}


@pytest.mark.parametrize("count", [2, 8, 130])
def test_policies_of_several_kinds_mixed_in_one_batch_do_not_disturb_each_other(kinds, count):
    sizes = assert_alike(kinds, ["noisy", "boosted", "strict", "counter@2"], count)
    assert max(sizes, default=1) == {2: 1, 8: 2, 130: 16}[count]  # a fourth of 64 at most


def test_a_recurrent_networks_bits_do_not_depend_on_the_batch():
    assert_alike(SHIPPED, [GRU, "halfcheetah-vel-rl2-lstm"], 66)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_stepper_gives_the_bits_of_the_policys_step(batch):
    policy, rng = Store(SHIPPED).load(GRU), np.random.default_rng(0)
    shapes, stepper = policy.manifest.input_shapes(), Stepper(policy)
    inputs = {
        name: rng.standard_normal((batch, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    carry = {n.removeprefix("carry."): v for n, v in inputs.items() if n.startswith("carry.")}
    expected = policy.step(inputs, carry)
    stepper.choose(batch)
    for i in range(batch):
        parts = ("obs", "prev_action", "prev_reward", "prev_done")
        row = b"".join(inputs[name][i].tobytes() for name in parts)
        stepper.load(i, row, [value[i].tobytes() for value in carry.values()], b"", None)
    stepper.run()
    assert stepper.action.tobytes() == expected.action.tobytes()
    for i in range(batch):
        found = list(map(bytes, stepper.carry_of(i)))
        assert found == [value[i].tobytes() for value in expected.carry.values()]
    for name, value in expected.belief.items():
        assert stepper.belief[name].tobytes() == value.tobytes()


def crowd(models):
    """Three sessions whose policy adds the mean over the batch to each action."""
    write_crowded(models)
    return opened(models, ["crowded"], 3)


def pushes(loop):
    """Three sessions' first actions, for observations 1, 2 and 3."""
    frames = [frame(0, obs=(i, 0), session=i) for i in (1, 2, 3)]
    return [np.frombuffer(r.reply, np.float32, 1, HEADER_SIZE)[0] for r in loop.tick_all(frames, 0)]


def test_a_policy_whose_rows_depend_on_the_batch_is_found_out_and_steps_alone(models):
    bench = crowd(models)
    assert not bench.serve("crowded").policy.batch_invariant
    assert bench.serve("counter@1").policy.batch_invariant
    assert pushes(bench.loop) == [2, 4, 6]  # each its own mean
    assert set(bench.serve("crowded").stepper._bounds) == {1}


def test_an_operator_may_allow_batches_that_change_a_sessions_bits(models):
    bench = crowd(models)
    bench.loop.allow_variant_batches = True
    assert pushes(bench.loop) == [3, 4, 5]  # the mean of 1, 2 and 3


def test_observations_of_one_session_that_came_together_are_stepped_in_their_order(models):
    loop = opened(models, ["counter@1"], 2).loop
    frames = [frame(seq, obs=(1, 0), session=1) for seq in range(3)]
    frames.insert(1, frame(0, obs=(5, 0), session=2))
    answers = [unpack(result.reply) for result in loop.tick_all(frames, 0, STREAM)]
    late = [bool(header.flags & ActionFlag.SUPERSEDED) for header in answers]
    assert [header.seq for header in answers] == [0, 0, 1, 2]
    assert late == [True, False, True, False]
    carries = [session.memory.carry_arrays()["h"][0, 0] for session in loop.registry.live.values()]
    assert carries == [3, 5]


def test_a_frame_that_came_twice_does_not_supersede_itself(models):
    loop = opened(models, ["counter@1"], 1).loop
    first, again = loop.tick_all([frame(0, session=1)] * 2, 0)
    assert unpack(first.reply).flags == ActionFlag.FRESH
    assert unpack(again.reply).flags == ActionFlag.FRESH | ActionFlag.REPEATED
    assert loop.registry.live[1].counters.steps == 1


def test_a_bad_frame_among_good_ones_costs_nobody_else_anything(models):
    loop = opened(models, ["counter@1"], 3).loop
    frames = [
        frame(0, obs=(1, 0), session=1),
        b"garbage",
        frame(0, obs=(np.nan, 0), session=2),
        frame(0, obs=(3, 0), session=99),
        frame(0, obs=(3, 0), session=3),
    ]
    codes = [unpack(result.reply).status for result in loop.tick_all(frames, 0)]
    assert codes == [0, Code.MALFORMED, Code.NOT_FINITE, Code.UNKNOWN_SESSION, 0]
    assert [s.next_seq for s in loop.registry.live.values()] == [1, 0, 1]


def test_one_sessions_overflow_in_a_batch_leaves_the_others_alone(models):
    loop = opened(models, ["counter@1"], 3).loop
    huge = [frame(0, obs=(3e38 if i == 2 else i, 0), session=i) for i in (1, 2, 3)]
    loop.tick_all(huge, 0)
    more = [frame(1, obs=(3e38 if i == 2 else i, 0), session=i) for i in (1, 2, 3)]
    limits = [unpack(result.reply).limits for result in loop.tick_all(more, 0)]
    assert [bool(x & Limit.NOT_FINITE) for x in limits] == [False, True, False]
    carries = [s.memory.carry_arrays()["h"][0, 0] for s in loop.registry.live.values()]
    assert carries == [2, np.float32(3e38), 6]


def test_one_sessions_failing_step_in_a_batch_leaves_the_others_alone(models):
    write_fragile(models)
    loop = opened(models, ["fragile"], 3).loop
    frames = [frame(0, obs=(i, FRAGILE_FROM if i == 2 else 0), session=i) for i in (1, 2, 3)]
    codes = [unpack(result.reply).status for result in loop.tick_all(frames, 0)]
    assert codes == [0, Code.INTERNAL, 0]
    assert [s.next_seq for s in loop.registry.live.values()] == [1, 0, 1]
    assert unpack(loop.tick(frame(0, session=2), 0).reply).status == 0  # and it goes on
