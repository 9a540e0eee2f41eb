"""Families whose dynamics vary: their tasks, and what could go wrong when they combine."""

import mujoco
import numpy as np
import pytest

import sim
from runtime.errors import InvalidTask, UnknownName
from sim import parts
from sim.dynamics import BodyMass, Damping, Friction, MotorStrength, Payload
from sim.families.halfcheetah import HalfCheetahVel
from sim.families.hopper import HopperRun
from sim.randomised import Randomised
from sim.trials import TrialEnv


def test_held_out_tasks_are_the_wrapped_familys():
    """Block pushing draws its goal in the lane of the block that counts; so must a variation."""
    plain = sim.family("block-push").held_out(20, 3)
    varied = sim.family("block-push+payload").held_out(20, 3)
    assert {k: v.tolist() for k, v in plain.items()} == {
        k: v.tolist() for k, v in varied.items() if k != "payload"
    }
    assert len(np.unique(varied["payload"])) == 20


def test_all_combinations_of_choices_are_held_out():
    tasks = sim.family("halfcheetah-dir+weak-motor+delay").held_out(48)
    seen = set(zip(tasks["direction"], tasks["weak_motor"], tasks["delay"], strict=True))
    assert len(seen) == 48  # 2 directions, 6 motors, 4 delays


@pytest.mark.parametrize("variation", ["rand-params", "mass", "payload"])
def test_a_change_of_masses_is_not_a_motion(variation):
    """The humanoid's reward is of its centre of mass, which moves when masses do."""
    rewards = []
    for change in (False, True):
        env = sim.make(f"humanoid-dir+{variation}", 16, seed=0)
        env.reset()
        still = np.zeros((16, 17), np.float32)
        env.step(still)
        if change:
            after = env.family.sample(np.random.default_rng(1), 16)
            env.change_tasks(np.arange(16), {**after, "heading": env.tasks["heading"]})
        rewards.append(env.step(still)[1])
    assert np.abs(rewards[0] - rewards[1]).max() < 0.1


def motors_of(xml):
    return parts.motors(mujoco.MjModel.from_xml_string(xml))


def test_nameless_motors_keep_apart():
    body = """<mujoco><worldbody><body><geom size="0.1"/><joint name="a"/><body><geom size="0.1"/>
    <joint name="b" axis="1 0 0"/></body></body></worldbody><tendon><fixed name="t">
    <joint joint="a" coef="1"/></fixed></tendon><actuator>{}</actuator></mujoco>"""
    nameless = '<motor joint="a"/><motor joint="b"/><motor tendon="t"/><motor joint="a"/>'
    assert motors_of(body.format(nameless)) == {"a": 0, "b": 1, "motor2": 2, "motor3": 3}
    named = '<motor name="push" joint="a"/><motor joint="b"/>'
    assert motors_of(body.format(named)) == {"push": 0, "b": 1}


def test_friction_is_that_of_contacts():
    names = [p.name for p in Randomised(HopperRun(), [Friction()]).task_parameters]
    assert "friction.floor.slide" in names
    assert not any(name.endswith(("spin", "roll")) for name in names)  # contacts have none
    with pytest.raises(InvalidTask, match="whose contacts have none"):
        sim.family("maze2d+friction")


def test_a_text_is_one_pattern():
    family = Randomised(HalfCheetahVel(), [BodyMass("torso"), MotorStrength("b*")])
    names = [p.name for p in family.task_parameters[1:]]
    assert names == ["mass.torso", "strength.bthigh", "strength.bshin", "strength.bfoot"]


def test_what_cannot_vary_says_so():
    with pytest.raises(InvalidTask, match="whose joints have none"):
        sim.family("maze2d+damping")
    with pytest.raises(InvalidTask, match=r"'payload': its range \[-50.0, 1.0\] leaves"):
        Randomised(HalfCheetahVel(), [Payload(low=-50.0, high=1.0)])
    with pytest.raises(UnknownName, match="damped joint 'knee'"):
        Randomised(HalfCheetahVel(), [Damping("knee")])


def test_runners_are_tasks_once_their_body_varies():
    assert [p.name for p in sim.family("walker-run+payload").task_parameters] == ["payload"]
    assert "walker-run" not in sim.names()
    with pytest.raises(InvalidTask, match="walker-run has no task parameters: nothing varies"):
        sim.make("walker-run")


def test_a_mix_of_many_variations_is_bit_for_bit_the_same_at_any_number_of_threads():
    name = "halfcheetah-vel+rand-params+weak-motor+payload+gravity+delay+noise+bias"
    runs = []
    for threads in (1, 2):
        env = sim.make(name, 6, threads, seed=3)
        obs, _ = env.reset()
        moves = np.random.default_rng(0).uniform(-1, 1, (20, 6, 6)).astype(np.float32)
        runs.append(np.array([obs, *(env.step(move)[0] for move in moves)]))
    assert np.array_equal(*runs)


def test_a_light_body_can_carry_half_its_weight():
    class Feather(HopperRun):
        name = "feather"

        def spec(self):
            spec = super().spec()
            for geom in spec.geoms:
                geom.density = 1e-4
            return spec

    family = Randomised(Feather(), [Payload()])
    assert 0 < family.task_parameters[0].high < 0.01
    TrialEnv(family, 1).reset()
