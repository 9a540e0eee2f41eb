"""Dynamics and signals that vary with the task, against MuJoCo by hand."""

import mujoco
import numpy as np
import pytest

import sim
from runtime.errors import InvalidTask, UnknownName
from sim.dynamics import BodyMass, Damping, Gravity, MotorStrength, Payload, rand_params
from sim.families.halfcheetah import HalfCheetahRun, HalfCheetahVel
from sim.families.hopper import HopperRun
from sim.randomised import Randomised
from sim.registry import VARIATIONS
from sim.signals import ActuatorDelay, SensorBias, SensorNoise
from sim.task import TaskParameter
from sim.trials import TrialEnv


def neutral(env, **given):
    """Tasks of all simulations under which nothing differs from the plain body, but `given`."""
    calm = {"payload": 0.0, "gravity": 9.81, "delay": 0.0, "locked_joint": -1.0}
    tasks = {}
    for p in env.family.task_parameters:
        value = calm.get(p.name, 0.0 if p.unit != "1" else 1.0)
        tasks[p.name] = np.full(env.num_envs, given.get(p.name, value))
    return tasks


def started(name, n=2, **given):
    """An environment in the start states of seed 0, with tasks as `neutral` says."""
    env = sim.make(name, n, seed=0)
    env.reset(seed=0, options={"tasks": neutral(env, **given)})
    return env


def actions(env, steps, seed=0):
    shape = (steps, env.num_envs, len(env.family.action))
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def states(env, moves):
    rows = []
    for action in moves:
        env.step(action)
        rows.append(np.concatenate((env.world.qpos, env.world.qvel), axis=1))
    return np.array(rows)


@pytest.mark.parametrize("name", ["halfcheetah", "hopper", "walker"])
def test_rand_params_move_as_a_model_written_by_hand(name):
    env = sim.make(f"{name}-rand-params", 3, seed=5)
    env.reset()
    model, data = env.world.model, mujoco.MjData(env.world.model)
    written = {"mass": model.body_mass, "damping": model.dof_damping}
    grids = {"inertia": model.body_inertia, "friction": model.geom_friction}
    axes = ("x", "y", "z", "slide", "spin", "roll")
    for key, values in env.tasks.items():
        kind, rest = key.split(".", 1)
        if kind == "mass":
            written[kind][model.body(rest).id] *= values[1]
        elif kind == "damping":
            written[kind][model.joint(rest).dofadr[0]] *= values[1]
        else:
            what, axis = rest.rsplit(".", 1)
            owner = model.body(what) if kind == "inertia" else model.geom(what)
            grids[kind][owner.id, axes.index(axis) % 3] *= values[1]
    mujoco.mj_setConst(model, data)
    data.qpos[:], data.qvel[:] = env.world.qpos[1], env.world.qvel[1]
    mujoco.mj_forward(model, data)
    for action in actions(env, 30):
        env.step(action)
        data.ctrl[:] = action[1]
        mujoco.mj_step(model, data, env.family.frame_skip)
        np.testing.assert_allclose(env.world.qpos[1], data.qpos, rtol=1e-9, atol=1e-12)


def test_rand_params_are_log_uniform_and_drawn_apart():
    family = sim.family("walker-rand-params")
    tasks = family.sample(np.random.default_rng(0), 20_000)
    mass = {p.name for p in family.task_parameters if p.name.startswith("mass")}
    assert len(mass) == 7  # the world has none
    for name, base in (("mass.torso", 1.5), ("damping.thigh_joint", 1.3)):
        exponent = np.log(tasks[name]) / np.log(base)
        assert np.abs(exponent).max() <= 3
        assert exponent.mean() == pytest.approx(0, abs=0.05)
        assert exponent.std() == pytest.approx(6 / np.sqrt(12), rel=0.02)
    apart = np.corrcoef(tasks["mass.torso"], tasks["mass.thigh"])[0, 1]
    assert abs(apart) < 0.03


@pytest.mark.parametrize("variation", [v for v in VARIATIONS if v not in ("noise", "bias")])
def test_a_neutral_task_is_the_plain_body(variation):
    plain = started("halfcheetah-vel", target_velocity=1.0)
    varied = started(f"halfcheetah-vel+{variation}", target_velocity=1.0)
    moves = actions(plain, 20)
    if variation == "gravity":
        assert varied.world.model.opt.gravity[2] == -9.81
    np.testing.assert_allclose(states(varied, moves), states(plain, moves), rtol=1e-9, atol=1e-12)


def test_reward_and_dynamics_combine():
    env = sim.make("halfcheetah-vel+payload+weak-motor", 4, seed=1)
    env.reset()
    before = env.world.qpos[:, 0].copy()
    action = actions(env, 1)[0]
    _, reward, *_ = env.step(action)
    velocity = (env.world.qpos[:, 0] - before) / 0.05
    cost = 0.05 * np.square(action, dtype=np.float64).sum(axis=1)
    np.testing.assert_allclose(reward, -np.abs(velocity - env.tasks["target_velocity"]) - cost)
    assert env.family.name == "halfcheetah-vel+payload+weak-motor"
    assert env.reset()[1]["task"].shape == (4, 4)


def test_gravity_is_the_acceleration_of_a_falling_body():
    env = TrialEnv(Randomised(HopperRun(), [Gravity(low=1.0, high=20.0)]), 2, seed=0)
    env.reset(options={"tasks": {"gravity": np.array([3.0, 12.0])}})
    env.world.qpos[:, 1:] = [50.0, 0.0, -0.5, -0.5, 0.0]  # far from the floor and joints' limits
    env.world.qvel[:] = 0.0
    env.step(np.zeros((2, 3), np.float32))
    seconds = env.family.frame_skip * env.world.model.opt.timestep
    np.testing.assert_allclose(env.world.qvel[:, 1], [-3 * seconds, -12 * seconds], rtol=1e-6)


def test_a_payload_is_mass_on_the_named_body_and_can_drop_off():
    family = Randomised(HalfCheetahVel(), [Payload("bfoot", 1.0, 3.0)])
    env = TrialEnv(family, 1, seed=0, changes=sim.Change((2, 2), {"payload": 0.0}))
    env.reset(options={"tasks": {"target_velocity": np.zeros(1), "payload": np.array([2.5])}})
    model = env.world.model
    foot = model.body("bfoot").id
    masses, below = (env.world.batch.expanded(f) for f in ("body_mass", "body_subtreemass"))
    assert masses[0, foot] == pytest.approx(model.body_mass[foot] + 2.5)
    assert below[0, 0] == pytest.approx(model.body_mass.sum() + 2.5)
    for _ in range(2):
        env.step(np.zeros((1, 6), np.float32))
    assert masses[0].tolist() == model.body_mass.tolist()
    assert env.tasks["payload"][0] == 0.0


def test_half_the_strength_is_half_the_action():
    strong, weak = (started("halfcheetah-vel+motors") for _ in range(2))
    weak.change_tasks(np.arange(2), neutral(weak, **{"strength.bthigh": 0.5}))
    moves = actions(strong, 10)
    halved = moves.copy()
    halved[..., 0] /= 2
    np.testing.assert_allclose(states(weak, moves), states(strong, halved), rtol=1e-12)


def test_a_weak_motor_is_one_of_them():
    env = started("halfcheetah-vel+weak-motor", weak_motor=2.0, weak_motor_strength=0.0)
    other = started("halfcheetah-vel")
    moves = actions(env, 10)
    without = moves.copy()
    without[..., 2] = 0.0
    np.testing.assert_allclose(states(env, moves), states(other, without), rtol=1e-12)


def test_a_locked_joint_stays_where_it_is():
    env = started("walker-rand-params+locked-joint", locked_joint=1.0)
    free = started("walker-rand-params+locked-joint")
    moves = actions(env, 30)
    held, loose = (states(e, moves)[:, 0, 4] for e in (env, free))  # the right knee
    assert np.ptp(held) < 0.01 < 0.2 < np.ptp(loose)


def test_a_delay_is_the_same_action_later():
    env = sim.make("halfcheetah-vel+delay", 4, seed=0)
    delays = np.arange(4.0)
    env.reset(seed=0, options={"tasks": {"target_velocity": np.ones(4), "delay": delays}})
    plain = started("halfcheetah-vel", 4)
    plain.world.qpos[:], plain.world.qvel[:] = env.world.qpos, env.world.qvel
    moves = actions(env, 12)
    later = np.zeros_like(moves)
    for i in range(4):
        later[i:, i] = moves[: 12 - i, i]
    assert np.array_equal(states(env, moves), states(plain, later))


def test_a_delay_forgets_the_last_episode():
    env = sim.make("halfcheetah-vel+delay", 2, seed=0)
    env.reset(options={"tasks": neutral(env, delay=3.0)})
    for action in actions(env, 5):
        env.step(action)
    env.reset(options={"reset_mask": np.array([True, False])})
    env.step(np.ones((2, 6), np.float32))
    assert not env.world.ctrl[0].any() and env.world.ctrl[1].any()


def test_noise_has_its_deviation_and_stays_out_of_the_physics():
    env = started("halfcheetah-vel+noise", 200, sensor_noise=0.07)
    added = []
    for action in actions(env, 20):
        obs, *_ = env.step(action)
        assert np.array_equal(obs, env.family.observe(env.world))  # looking again changes nothing
        added.append(obs - np.concatenate((env.world.qpos[:, 1:], env.world.qvel), axis=1))
    assert np.std(added) == pytest.approx(0.07, rel=0.02)
    assert np.mean(added) == pytest.approx(0, abs=0.001)


def test_noise_on_chosen_channels_only():
    family = Randomised(HalfCheetahVel(), [SensorNoise(("root_*",), high=0.5)])
    env = TrialEnv(family, 3, seed=0)
    obs, _ = env.reset(options={"tasks": neutral(env, sensor_noise=0.5)})
    clean = np.concatenate((env.world.qpos[:, 1:], env.world.qvel), axis=1, dtype=np.float32)
    noisy = [c.name.startswith("root_") for c in family.observation]
    assert (obs != clean).all(axis=0).tolist() == noisy
    assert np.isinf(family.observation[0].high)


def test_a_bias_is_a_constant_of_the_task():
    family = Randomised(HalfCheetahVel(), [SensorBias(("*_position",), -0.2, 0.2)])
    env = TrialEnv(family, 2, seed=0)
    obs, _ = env.reset(options={"tasks": neutral(env, **{"bias.root_z_position": 0.125})})
    assert obs[:, 0] == pytest.approx(env.world.qpos[:, 1] + 0.125, abs=1e-6)
    assert obs[:, 8:] == pytest.approx(env.world.qvel, abs=1e-6)
    for action in actions(env, 3):
        obs, *_ = env.step(action)
        assert obs[:, 0] == pytest.approx(env.world.qpos[:, 1] + 0.125, abs=1e-6)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_a_change_of_dynamics_leaves_the_state_untouched(variation):
    env = sim.make(f"halfcheetah-vel+{variation}", 3, seed=0)
    env.reset()
    for action in actions(env, 5):
        env.step(action)
    before = env.world.qpos.copy(), env.world.qvel.copy()
    env.change_tasks(np.array([1]), env.family.sample(np.random.default_rng(9), 1))
    assert np.array_equal(before, (env.world.qpos, env.world.qvel))


def test_writing_a_task_twice_is_writing_it_once():
    env = sim.make("hopper-rand-params+payload", 2, seed=0)
    env.reset()
    once = env.world.batch.expanded("body_mass").copy()
    env.change_tasks(np.arange(2), env.tasks)
    assert np.array_equal(once, env.world.batch.expanded("body_mass"))


def test_randomisations_name_what_they_vary():
    named = Randomised(
        HalfCheetahRun(),
        [BodyMass(("torso", "b*")), Damping(("*foot",)), MotorStrength(("fthigh",))],
    )
    assert [p.name for p in named.task_parameters] == [
        "mass.torso", "mass.bthigh", "mass.bshin", "mass.bfoot", "damping.bfoot", "damping.ffoot",
        "strength.fthigh",
    ]  # fmt: skip
    assert {p.unit for p in named.task_parameters} == {"1"}
    nameless = Randomised(sim.family("ant-vel"), [BodyMass()])
    assert "mass.body4" in [p.name for p in nameless.task_parameters]


@pytest.mark.parametrize(
    ("vary", "problem"),
    [
        (lambda: BodyMass(("tors",)), r"no body 'tors'. Did you mean 'torso'\? Known: .*bfoot"),
        (lambda: Payload("head"), "no body 'head'"),
        (lambda: Damping(("rootx",)), "no damped joint 'rootx'"),
        (lambda: MotorStrength(("knee",)), "no motor 'knee'.*bthigh"),
        (lambda: SensorNoise(("camera",)), "no observation channel 'camera'"),
        (lambda: BodyMass(low=2.0, high=1.0), "low 2.0 must be below high 1.0"),
        (lambda: BodyMass(low=-1.0), "a log scale needs low above 0"),
        (lambda: Payload(low=3.0, high=1.0), "'payload': low 3.0 must be below high 1.0"),
        (lambda: ActuatorDelay(3, 1), "low 3 must be in 0 to below high 1"),
    ],
)
def test_a_randomisation_that_makes_no_sense_is_refused(vary, problem):
    with pytest.raises((InvalidTask, UnknownName), match=problem):
        Randomised(HalfCheetahVel(), [vary()])


def test_what_cannot_combine_is_refused():
    with pytest.raises(InvalidTask, match="no dynamics randomisation"):
        Randomised(HalfCheetahVel(), [])
    with pytest.raises(InvalidTask, match=r"task_parameters repeats the names \['payload'\]"):
        Randomised(HalfCheetahVel(), [Payload(), Payload("ffoot")])
    with pytest.raises(InvalidTask, match="bandit has no physics"):
        sim.family("bandit+payload")
    with pytest.raises(
        UnknownName, match=r"no dynamics variation 'paylod'. Did you mean 'payload'"
    ):
        sim.family("halfcheetah-vel+paylod")
    env = sim.make("halfcheetah-vel+payload", 1)
    with pytest.raises(InvalidTask, match="'payload' cannot be below 0 kg, got -1"):
        env.reset(options={"tasks": neutral(env, payload=-1.0)})
    with pytest.raises(InvalidTask, match="has no plus"):
        sim.register("my+family", HalfCheetahVel)
    assert all(isinstance(r.summary, str) for r in rand_params())


class Limbs(HalfCheetahVel):
    """A half cheetah whose torso is another length in every task."""

    task_models = True
    task_parameters = (TaskParameter("torso_radius", "m", 0.03, 0.06),)

    def __init__(self):
        self.name, self.summary = "limbs", "half cheetah, its torso's radius varies"

    def task_spec(self, task):
        spec = self.spec()
        spec.geom("torso").size[0] = task["torso_radius"]
        return spec

    def reward(self, world, action):
        return self.forward_velocity(world)


def test_a_model_per_task():
    env = TrialEnv(Limbs(), 3, seed=0)
    env.reset()
    for i in range(3):
        radius = env.world.batch.get_model(i).geom("torso").size[0]
        assert radius == pytest.approx(env.tasks["torso_radius"][i])
    moves = actions(env, 5)
    start = np.concatenate((env.world.qpos, env.world.qvel), axis=1)
    after = states(env, moves)[-1]
    model = env.world.batch.get_model(2)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = np.split(start[2], [model.nq])
    for move in moves:
        data.ctrl[:] = move[2]
        mujoco.mj_step(model, data, env.family.frame_skip)
    np.testing.assert_allclose(after[2], np.concatenate((data.qpos, data.qvel)), rtol=1e-9)
    with pytest.raises(InvalidTask, match="compiles a model per task"):
        Randomised(Limbs(), [Payload()])


class Growing(Limbs):
    def task_spec(self, task):
        spec = super().task_spec(task)
        if task["torso_radius"] > 0.05:
            spec.body("torso").add_geom(size=[0.1, 0.1, 0.1])
        return spec


def test_a_model_that_changes_its_sizes_between_tasks_is_refused():
    with pytest.raises(InvalidTask, match=r"sizes change between tasks: \{'ngeom': \(9, 10\)\}"):
        TrialEnv(Growing(), 1)
