"""Replay per task: what it holds, what it draws, and that no task ever gets another's rows."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from training.replay_buffer import Layout, Replay


def numbered(tasks):
    """Rows that say their task, and which of its rows they are, given the task of each."""
    seen = {}
    rows = []
    for task in tasks:
        rows.append((task, seen.setdefault(task, 0)))
        seen[task] += 1
    return torch.tensor(rows, dtype=torch.float32).view(-1, 2)


@given(st.lists(st.lists(st.integers(0, 2), max_size=30), min_size=1, max_size=4))
def test_it_holds_the_newest_rows_of_each_task(batches):
    replay, capacity = Replay(3, 7, 2), 7
    everything = [task for batch in batches for task in batch]
    rows = numbered(everything).split([len(batch) for batch in batches])
    for batch, part in zip(batches, rows, strict=True):
        replay.add(torch.tensor(batch, dtype=torch.int64), part)
    for task in range(3):
        count = everything.count(task)
        held = replay.rows[task, : min(count, capacity)]
        assert replay.filled[task] == min(count, capacity)
        assert (held[:, 0] == task).all()
        expected = set(range(max(0, count - capacity), count))
        assert {int(x) for x in held[:, 1]} == expected


def filled(counts, capacity=10):
    replay = Replay(len(counts), capacity, 2)
    tasks = [task for task, count in enumerate(counts) for _ in range(count)]
    replay.add(torch.tensor(tasks), numbered(tasks))
    return replay


def test_samples_are_of_the_task_and_uniform():
    replay, generator = filled([3, 25]), torch.Generator().manual_seed(0)
    drawn = replay.sample(torch.tensor([1, 0, 1]), 20_000, generator)
    assert drawn.shape == (3, 20_000, 2)
    assert (drawn[..., 0] == torch.tensor([[1], [0], [1]])).all()
    for row, expected in ((0, range(15, 25)), (1, range(3))):
        values, counts = drawn[row, :, 1].unique(return_counts=True)
        assert values.tolist() == list(expected)
        assert (counts / 20_000 - 1 / len(expected)).abs().max() < 0.02
    assert not torch.equal(drawn[0], drawn[2])


def test_stretches_follow_each_other_in_time_across_the_ring_s_end():
    replay, generator = filled([4, 25]), torch.Generator().manual_seed(0)
    drawn = replay.stretches(torch.ones(500, dtype=torch.int64), 6, generator)
    assert (drawn[:, 1:, 1] - drawn[:, :-1, 1] == 1).all()
    assert drawn[:, 0, 1].unique().tolist() == [15, 16, 17, 18, 19]
    short = replay.stretches(torch.zeros(50, dtype=torch.int64), 6, generator)
    assert (short[..., 1] == torch.tensor([0.0, 1, 2, 3, 0, 1])).all()


def test_what_it_gives_puts_it_back():
    replay, again = filled([3, 25]), Replay(2, 10, 2)
    again.load(replay.tensors())
    assert torch.equal(again.rows, replay.rows) and torch.equal(again.added, replay.added)
    few = filled([3, 2], capacity=1000)
    assert few.tensors()["rows"].shape == (2, 3, 2)  # no room is saved for what never was


def test_parts_of_a_row_are_those_that_were_put_in():
    layout = Layout(observation=3, action=2)
    rows = torch.arange(2 * 5 * layout.width, dtype=torch.float32).view(2, 5, layout.width)
    parts = layout.split(rows)
    assert parts.next_observation.shape == (2, 5, 3) and parts.terminated.shape == (2, 5, 1)
    assert torch.equal(parts.rows(), rows)
