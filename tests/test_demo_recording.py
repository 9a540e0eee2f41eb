"""What the demo keeps of beliefs that mean different things, and that it can be drawn."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from runtime.answer import silence
from runtime.spec import BeliefSpec
from sim.demo import print_tables
from sim.demo_picture import draw
from sim.demo_recording import EPISODE, Recording, Story, read_believers
from sim.robot import Moment
from tests.bundles import write_bundle

TASK = [
    BeliefSpec(name="task_mean", shape=[1], role="mean"),
    BeliefSpec(name="task_variance", shape=[1], role="variance"),
]
LATENT = [
    BeliefSpec(name="z_variance", shape=[2], role="variance", of="latent"),
    BeliefSpec(name="z_mean", shape=[2], role="mean", of="latent"),
]


def moment(step: int) -> Moment:
    answer = silence(np.zeros(6, np.float32), step)
    task = {"target_velocity": 1.0}
    return Moment(step + 1, step // EPISODE, step, 0.0, task, False, 1.0, answer, 0.001)


@pytest.fixture
def recording() -> Recording:
    """`knows` acts for two steps, `guesses` for two, then `knows` again; one belief is missing."""
    replayed = {"carry": "replayed", "replayed_steps": 2}
    swaps = [
        {"old": "knows@1", "new": "guesses@1", "from_seq": 2, **replayed},
        {"old": "guesses@1", "new": "knows@1", "from_seq": 4, **replayed},
    ]
    known, guessed = np.array([1.0, 0.25]), np.array([4.0, 9.0, -1.0, 1.0])
    beliefs = {0: known, 2: guessed, 3: guessed, 4: known, 5: known}
    believers = {"knows@1": TASK, "guesses@1": LATENT}
    return Recording([moment(step) for step in range(20)], beliefs, swaps, believers)


def test_beliefs_are_told_apart_by_who_acted(recording):
    nan = np.nan
    means, deviations = recording.believed("task")
    np.testing.assert_array_equal(means[:6, 0], [1, nan, nan, nan, 1, 1])
    np.testing.assert_array_equal(deviations[:6, 0], [0.5, nan, nan, nan, 0.5, 0.5])
    means, deviations = recording.believed("latent")
    np.testing.assert_array_equal(means[2:4], [[-1, 1]] * 2)
    np.testing.assert_array_equal(deviations[2:4], [[2, 3]] * 2)
    assert np.isnan(means[[0, 1, *range(4, 20)]]).all()


@pytest.mark.parametrize("believes", [LATENT, TASK])
def test_it_can_be_drawn_with_and_without_a_latent_belief(recording, tmp_path, believes):
    recording.believers["guesses@1"] = believes
    draw(recording, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_story_may_swap_back():
    there, back = Story.of("a", "b", back=False), Story.of("a", "b", back=True)
    assert [policy for _, policy in there.swaps] == ["b"]
    assert [policy for _, policy in back.swaps] == ["b", "a"]
    assert max(at for at, _ in back.swaps) < back.steps - EPISODE


def test_what_outputs_mean_is_read_from_the_bundles(tmp_path):
    write_bundle(tmp_path, "counter", 2)
    (spec,) = read_believers(tmp_path, ["counter@2"])["counter@2"]
    assert (spec.name, spec.role, spec.of) == ("spread", "variance", "task")


def test_what_has_no_steps_after_it_is_told_without_a_number(recording):
    console = Console(record=True, width=120, file=StringIO())
    print_tables(recording, console)
    said = console.export_text()
    assert said.count("policy swapped") == 2 and "nan" not in said
