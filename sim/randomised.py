"""Any family with physics, on a body whose dynamics vary from task to task.

What is rewarded and how the body behaves are drawn independently and combine freely: a
family of tasks (reward variation) wrapped in randomisations (dynamics variation) is the
"combined variation" of the literature. Nothing of the wrapped family is copied.
"""

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidTask
from sim.dynamics import Fields, Randomisation
from sim.family import HELD_OUT_STREAM, Floats, Ids, Marker
from sim.mujoco_family import MujocoFamily, MujocoWorld
from sim.signals import Signal, State
from sim.task import TaskParameter, Tasks, deal, draw

_DERIVING: frozenset[str] = frozenset(mujoco.MjModel._setconst_inputs)
"""Model fields from which MuJoCo derives constants."""


class Dynamics:
    """What the simulations of one world have of their own: model fields, signals, tasks."""

    def __init__(
        self, world: MujocoWorld, randomisations: Sequence[Randomisation], signals: list[State]
    ):
        names = {name for r in randomisations for name in r.fields}
        self.own: Fields = {name: world.batch.expand(name) for name in sorted(names)}
        self.base = {name: rows[0].copy() for name, rows in self.own.items()}
        self.derives = any(n in _DERIVING or n.startswith("opt.") for n in names)
        self.signals = signals
        self.tasks: Tasks = {}
        self.rng = np.random.default_rng(0)


class Randomised(MujocoFamily):
    """`family` with its dynamics, and the signals to and from it, drawn per task.

    The reward is the wrapped family's, of the action that the policy sent: with a delay, of
    that one and not of the one that moved the robot.
    """

    def __init__(
        self,
        family: MujocoFamily,
        variations: Sequence[Randomisation | Signal],
        name: str | None = None,
        summary: str | None = None,
    ):
        """
        Args:
            family: what is rewarded, on which body; it may itself be randomised.
            variations: of `sim.dynamics` and `sim.signals`; each writes on what those before
                it wrote.
            name: of the new family; the family's with its variations if not given.
            summary: one line for listings.

        Raises:
            UnknownName: a variation names a body, motor, joint or channel that does not exist.
            InvalidTask: no variation, two that draw the same parameter, a range with low above
                high, or a family whose model is another in every task.
        """
        if not variations:
            raise InvalidTask(f"{family.name}: no dynamics randomisation was given")
        if family.task_models:
            raise InvalidTask(
                f"{family.name} compiles a model per task; randomise in its task_spec instead"
            )
        if isinstance(family, Randomised):  # one layer writes the fields, so none undoes another
            variations = (*family.variations, *variations)
            name, family = name or _name(family.family, variations), family.family
        self.family, self.variations = family, tuple(variations)
        self._model = family.model()
        self.randomisations = [v for v in variations if isinstance(v, Randomisation)]
        self.signals = [v for v in variations if isinstance(v, Signal)]
        varied = ", ".join(v.summary for v in variations)
        self.name = name or _name(family, variations)
        self.summary = summary or f"{family.summary}; {varied} vary"
        drawn: list[TaskParameter] = []
        for r in self.randomisations:
            drawn += r.parameters(self._model)
        for s in self.signals:
            drawn += s.parameters(family.observation)
        self.task_parameters = (*family.task_parameters, *drawn)
        self.bodies, self.body = family.bodies, family.body  # type: ignore[misc]
        self.frame_skip = family.frame_skip  # type: ignore[misc]
        self.outputs, self.stage = family.outputs, family.stage  # type: ignore[misc]
        self.observation, self.action = family.observation, family.action
        for signal in self.signals:
            self.observation = signal.channels(self.observation)
        self.control_hz = family.control_hz
        self.horizon, self.episodes = family.horizon, family.episodes
        self.sparse_at_test = family.sparse_at_test
        self.drawn_together = family.drawn_together
        self._own = drawn
        self.check()

    def spec(self) -> mujoco.MjSpec:
        return self.family.spec()

    def model(self) -> mujoco.MjModel:
        return self._model

    def world(self, num_envs: int, num_threads: int) -> MujocoWorld:
        world = self.family.world(num_envs, num_threads)
        states = [s.state(num_envs, self.observation, len(self.action)) for s in self.signals]
        dynamics = Dynamics(world, self.randomisations, states)
        dynamics.tasks = {p.name: np.zeros(num_envs) for p in self._own}
        world.layers[self.name] = dynamics
        return world

    def _dynamics(self, world: MujocoWorld) -> Dynamics:
        return world.layers[self.name]

    def apply(self, world: MujocoWorld, ids: Ids, tasks: Tasks) -> None:
        dynamics = self._dynamics(world)
        own = {p.name: np.asarray(tasks[p.name]) for p in self._own}
        for name, values in own.items():
            dynamics.tasks[name][ids] = values
        base = dynamics.base.items()
        rows = {k: np.repeat(np.asarray(v)[None], len(ids), axis=0) for k, v in base}
        for randomisation in self.randomisations:
            randomisation.write(rows, own, self._model)
        for name, values in rows.items():
            dynamics.own[name][ids] = values
        if dynamics.derives and len(ids):
            world.batch.set_const(ids)
            # What is derived from the state follows, as a centre of mass with other masses.
            world.batch.forward(ids, stage=mujoco.mjtStage.mjSTAGE_POS)
        rest = {name: values for name, values in tasks.items() if name not in own}
        self.family.apply(world, ids, rest)

    def reset(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        self.family.reset(world, ids, rng)
        dynamics = self._dynamics(world)
        dynamics.rng = rng
        for state in dynamics.signals:
            state.restart(ids, rng, dynamics.tasks)

    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        self.family.start_state(world, ids, rng)

    def step(self, world: MujocoWorld, action: Floats) -> None:
        dynamics = self._dynamics(world)
        for state in dynamics.signals:
            action = state.act(action, dynamics.tasks)
        self.family.step(world, action)
        for state in dynamics.signals:
            state.sense(dynamics.rng, dynamics.tasks)

    def pause(self, world: MujocoWorld, paused: NDArray[np.bool_]) -> None:
        self.family.pause(world, paused)

    def observe(self, world: MujocoWorld) -> NDArray[np.float32]:
        obs, dynamics = self.family.observe(world), self._dynamics(world)
        for state in dynamics.signals:
            obs = state.observe(obs, dynamics.tasks)
        return obs

    def reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64]:
        return self.family.reward(world, action)

    def test_reward(self, world: MujocoWorld, action: Floats) -> NDArray[np.float64] | None:
        return self.family.test_reward(world, action)

    def terminated(self, world: MujocoWorld) -> NDArray[np.bool_] | None:
        return self.family.terminated(world)

    def measure(self, world: MujocoWorld) -> NDArray[np.float64] | None:
        return self.family.measure(world)

    def markers(self, world: MujocoWorld, index: int) -> list[Marker]:
        return self.family.markers(world, index)

    def sample(self, rng: np.random.Generator, n: int) -> Tasks:
        return {**self.family.sample(rng, n), **draw(self._own, rng, n)}

    def held_out(self, n: int, seed: int = 0) -> Tasks:
        drawn = draw(self._own, np.random.default_rng([HELD_OUT_STREAM, seed, 1]), n)
        # Dealt with the family's own choices in mind, so that all combinations come.
        dealt = {k: v for k, v in deal(self.task_parameters, n).items() if k in drawn}
        return {**self.family.held_out(n, seed), **drawn, **dealt}


def _name(family: MujocoFamily, variations: Sequence[Randomisation | Signal]) -> str:
    return "+".join((family.name, *(v.summary.replace(" ", "-") for v in variations)))
