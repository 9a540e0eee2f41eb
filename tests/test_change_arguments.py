"""What a `Change` can be made of, and what a family allows it to redraw."""

import numpy as np
import pytest

import sim
from runtime.errors import InvalidTask
from sim.change import Change
from sim.families.bandit import Bandit
from sim.trials import TrialEnv


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (((5),), "between two steps, whole numbers, as (100, 150), or (100, 100)"),
        (((1, 2, 3),), "got (1, 2, 3)"),
        (((1.5, 2),), "got (1.5, 2)"),
        (("12",), "got '12'"),
        (((0, 3),), "the first not below 1"),
        (((9, 9), {"payload": "1"}), "the new value of 'payload' must be a number, got '1'"),
        (((9, 9), {"payload": [1.0]}), "must be a number, got [1.0]"),
        (((9, 9), ("payload",)), "given by parameter, as {'payload': 0}"),
        (((9, 9), {}, None), "by the parameters' names, got None"),
        (((9, 9), {}, (1,)), "by the parameters' names, got (1,)"),
        (((9, 9), {"payload": 1}, ("payload",)), "cannot change 'payload' twice at once"),
        (((9, 9), {}, ("payload", "payload")), "cannot change 'payload' twice at once"),
        (((9, 9), {}, (), "all"), "must be in [0, 1]: all"),
    ],
)
def test_arguments_that_make_no_change_are_one_sentence(arguments, complaint):
    with pytest.raises(InvalidTask) as refusal:
        Change(*arguments)
    assert complaint in str(refusal.value)


def test_a_change_takes_numpy_numbers_lists_and_a_lone_name():
    change = Change([np.int64(2), 3], {"payload": np.float32(0.5)}, "gravity")
    assert change == Change((2, 3), {"payload": 0.5}, ("gravity",))
    assert str(change) == "2-3:payload=0.5,gravity"
    sim.make("halfcheetah-vel", 1, changes=Change((9, 9), redraw="target_velocity"))


class Twins(Bandit):
    """The first two arms share their luck."""

    drawn_together = ("probability_0", "probability_1")

    def __init__(self):
        super().__init__("twins", arms=3)

    def sample(self, rng, n):
        tasks = super().sample(rng, n)
        return {**tasks, "probability_1": tasks["probability_0"]}


def test_what_is_drawn_together_is_redrawn_together():
    with pytest.raises(InvalidTask) as refusal:
        TrialEnv(Twins(), 1, changes=Change((9, 9), redraw=("probability_1", "probability_2")))
    assert "draws probability_1 together with probability_0: redraw all" in str(refusal.value)
    both = Change((1, 1), redraw=("probability_0", "probability_1"))
    alone, given = Change((2, 2), redraw="probability_2"), Change((3, 3), {"probability_0": 0.5})
    env = TrialEnv(Twins(), 50, changes=(both, alone, Change((4, 4)), given))
    env.reset()
    before = env.tasks["probability_0"].copy()
    env.step(np.zeros((50, 3), np.float32))
    assert (env.tasks["probability_0"] != before).all()
    assert np.array_equal(env.tasks["probability_0"], env.tasks["probability_1"])
