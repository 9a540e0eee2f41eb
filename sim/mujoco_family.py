"""Families whose world is a batch of MuJoCo simulations."""

import warnings
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import gymnasium
import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from runtime.errors import InvalidTask
from sim.family import Floats, Ids, TaskFamily, Tasks

GYMNASIUM_BODIES = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
"""The MJCF files that the gymnasium package ships."""


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


class MujocoFamily(TaskFamily):
    """Steps and resets a `MujocoWorld`; a subclass adds a body, an observation and a reward."""

    body: ClassVar[str]
    """File name of the MJCF in `GYMNASIUM_BODIES`."""
    frame_skip: ClassVar[int]
    """Physics steps per control step."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Derived `MjData` fields that observation, reward or termination read, as `world.outputs`."""
    stage: ClassVar[mujoco.mjtStage] = mujoco.mjtStage.mjSTAGE_NONE
    """How far derived fields are brought up to the new state after a step; without, they lag
    one physics step, as they do after `mj_step`."""

    def model(self) -> mujoco.MjModel:
        """The compiled body."""
        with warnings.catch_warnings():
            # gymnasium's bodies use attributes that MuJoCo 4 calls deprecated; they still work.
            warnings.filterwarnings("ignore", "compiler attribute .* is deprecated", UserWarning)
            return mujoco.MjSpec.from_file(str(GYMNASIUM_BODIES / self.body)).compile()

    def world(self, num_envs: int, num_threads: int) -> MujocoWorld:
        parameters = [p.name for p in self.task_parameters]
        return MujocoWorld(self.model(), num_envs, num_threads, parameters, self.outputs)

    def check(self) -> None:
        super().check()
        motors = self.model().nu
        if motors != len(self.action):
            raise InvalidTask(
                f"{self.name}: the body has {motors} motors, the family names "
                f"{len(self.action)} actions: {[c.name for c in self.action]}"
            )

    def apply(self, world: MujocoWorld, ids: Ids, tasks: Tasks) -> None:
        for name, values in tasks.items():
            world.tasks[name][ids] = values

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
        world.batch.step(nstep=self.frame_skip, stage=self.stage)
