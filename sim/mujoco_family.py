"""Families whose world is a batch of MuJoCo simulations."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from mujoco.batch import DATA_FIELDS, Batch
from numpy.typing import NDArray

from runtime.errors import InvalidTask, UnknownName
from sim.family import Floats, Ids, TaskFamily
from sim.task import Tasks

GYMNASIUM_BODIES = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
"""The MJCF files that the gymnasium package ships."""
OWN_BODIES = Path(__file__).parent / "assets"
"""Those that no package ships."""


@contextmanager
def _no_deprecations() -> Iterator[None]:
    """gymnasium's bodies use attributes that MuJoCo 4 calls deprecated; they still work."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compiler attribute .* is deprecated", UserWarning)
        yield


class MujocoWorld:
    """n MuJoCo simulations of one model, their tasks, and the positions before the last step."""

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        num_threads: int,
        parameters: list[str],
        outputs: tuple[str, ...] = (),
    ):
        self.model = model
        self.batch = Batch(model, num_envs, num_threads)
        self.qpos: NDArray[np.float64] = self.batch.bind("qpos")  # (n, nq), live
        self.qvel: NDArray[np.float64] = self.batch.bind("qvel")  # (n, nv), live
        self.ctrl: NDArray[np.float64] = self.batch.bind("ctrl")  # (n, nu), live
        self.qpos_before = self.qpos.copy()
        self.outputs: dict[str, NDArray[np.float64]] = {n: self.batch.bind(n) for n in outputs}
        """Derived fields of every simulation, (n, ...) each, read-only."""
        self.tasks: Tasks = {name: np.zeros(num_envs) for name in parameters}
        self.running: NDArray[np.intp] | None = None
        """The simulations that are stepped; None for all."""
        self.layers: dict[str, Any] = {}
        """What wrappers of the family keep of these simulations, by their family's name."""


class MujocoFamily(TaskFamily):
    """Steps and resets a `MujocoWorld`; a subclass adds a body, an observation and a reward."""

    bodies: ClassVar[Path] = GYMNASIUM_BODIES
    """Folder of MJCF files."""
    body: ClassVar[str] = ""
    """File name of the body's MJCF in `bodies`; none where `spec` is overridden."""
    frame_skip: ClassVar[int]
    """Physics steps per control step."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Derived `MjData` fields that observation, reward or termination read, as `world.outputs`.

    With ``cfrc_ext``, the external forces on the bodies, the model gets an accelerometer, since
    MuJoCo works them out only for a sensor; the motion stays the same to the last bit. They are
    those at the state before the last physics step. gymnasium's, worked out after a Runge-Kutta
    step, belong to the trial state of its last stage, which the body was never in: the two
    agree in size and not step by step.
    """
    stage: ClassVar[mujoco.mjtStage] = mujoco.mjtStage.mjSTAGE_NONE
    """How far derived fields are brought up to the new state after a step; without, they lag
    one physics step, as they do after `mj_step`."""

    task_models: ClassVar[bool] = False
    """Whether every task has a model of its own, which `task_spec` describes."""

    @property
    def gymnasium_body(self) -> Path | None:
        """The body's file in the gymnasium package, if it is one of gymnasium's."""
        return self.bodies / self.body if self.body and self.bodies == GYMNASIUM_BODIES else None

    def spec(self) -> mujoco.MjSpec:
        """The body as it can still be edited."""
        file = self.bodies / self.body
        if not file.is_file():
            raise InvalidTask(f"{self.name}: there is no MJCF file {file}")
        with _no_deprecations():
            return mujoco.MjSpec.from_file(str(file))

    def model(self) -> mujoco.MjModel:
        """The compiled body."""
        return self._compile(self.spec())

    def _compile(self, spec: mujoco.MjSpec) -> mujoco.MjModel:
        if "cfrc_ext" in self.outputs:
            root = spec.bodies[1]
            root.name = root.name or "root"
            spec.add_sensor(
                name="acceleration_for_cfrc_ext",
                type=mujoco.mjtSensor.mjSENS_FRAMELINACC,
                objtype=mujoco.mjtObj.mjOBJ_BODY,
                objname=root.name,
            )
        with _no_deprecations():
            return spec.compile()

    def task_spec(self, task: dict[str, float]) -> mujoco.MjSpec:
        """The body of one task, where `task_models` is set: another limb length, say.

        All tasks' models must have the same sizes.
        """
        raise InvalidTask(f"{self.name} sets task_models and does not say task_spec")

    def world(self, num_envs: int, num_threads: int) -> MujocoWorld:
        parameters = [p.name for p in self.task_parameters]
        return MujocoWorld(self.model(), num_envs, num_threads, parameters, self.outputs)

    def check(self) -> None:
        super().check()
        for output in self.outputs:
            if output not in DATA_FIELDS:
                raise UnknownName("MjData field for a family's outputs", output, DATA_FIELDS)
        model = self.model()
        if model.nu != len(self.action):
            raise InvalidTask(
                f"{self.name}: the body has {model.nu} motors, the family names "
                f"{len(self.action)} actions: {[c.name for c in self.action]}"
            )
        seconds = self.frame_skip * model.opt.timestep
        if abs(self.control_hz * seconds - 1) > 1e-6:
            raise InvalidTask(
                f"{self.name}: {self.frame_skip} physics steps of {model.opt.timestep:g} s are "
                f"{1 / seconds:g} control steps per second, control_hz is {self.control_hz:g}"
            )
        if self.task_models:
            self._check_sizes()

    def _check_sizes(self) -> None:
        """Compile some held-out tasks and those at the ends of the ranges, compare their sizes."""
        ends = [{p.name: getattr(p, end) for p in self.task_parameters} for end in ("low", "high")]
        held_out = self.held_out(4)
        tasks = ends + [{k: float(v[i]) for k, v in held_out.items()} for i in range(4)]
        expected = _sizes(self.model())
        for task in tasks:
            found = _sizes(self._compile(self.task_spec(task)))
            if found != expected:
                other = {k: (expected[k], n) for k, n in found.items() if n != expected[k]}
                raise InvalidTask(
                    f"{self.name}: the model's sizes change between tasks: {other} (as without "
                    f"a task, and for {task})"
                )

    def apply(self, world: MujocoWorld, ids: Ids, tasks: Tasks) -> None:
        for name, values in tasks.items():
            world.tasks[name][ids] = values
        if self.task_models and len(ids):
            self._apply_models(world, ids, tasks)

    def _apply_models(self, world: MujocoWorld, ids: Ids, tasks: Tasks) -> None:
        models = world.layers.setdefault("models", [world.model] * world.batch.nsim)
        for i, sim in enumerate(ids):
            task = {name: float(values[i]) for name, values in tasks.items()}
            models[sim] = self._compile(self.task_spec(task))
        world.batch.set_models(models)

    def reset(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        world.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        self.start_state(world, ids, rng)
        world.batch.forward(ids)

    @abstractmethod
    def start_state(self, world: MujocoWorld, ids: Ids, rng: np.random.Generator) -> None:
        """Write random start positions and velocities of the simulations `ids`."""

    def step(self, world: MujocoWorld, action: Floats) -> None:
        np.copyto(world.qpos_before, world.qpos)
        np.copyto(world.ctrl, action)
        world.batch.step(world.running, nstep=self.frame_skip, stage=self.stage)

    def pause(self, world: MujocoWorld, paused: NDArray[np.bool_]) -> None:
        world.running = np.flatnonzero(~paused) if paused.any() else None


def _sizes(model: mujoco.MjModel) -> dict[str, int]:
    """How many there are of everything that a state or an action has room for."""
    names = ("nq", "nv", "na", "nu", "nbody", "njnt", "ngeom", "nsite", "nsensordata", "nmocap")
    return {name: getattr(model, name) for name in names}
