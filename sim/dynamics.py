"""Dynamics randomisations: how the body itself differs between tasks.

Each is a frozen description of what varies, with unit and range. `sim.randomised.Randomised`
puts any number of them on any family with physics, draws them with the task and writes them
into the fields that each simulation has of its own. What acts on the signals between robot
and policy (delay, noise, bias) is in `sim.signals`.

Names of bodies, motors and joints may be patterns: "*" is all of them, "*_leg" those that
end so. A factor's scale is logarithmic, so that halving is as likely as doubling.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidTask
from sim import parts
from sim.task import TaskParameter, Tasks

Fields = dict[str, NDArray[Any]]
"""Model fields of k simulations, (k, ...) each, as named in `MjModel` or ``opt.<name>``."""

LOCK = 1e4
"""Dry friction that holds a joint [N m]: far above what any motor here can do."""


class Randomisation(ABC):
    """One thing about a body that varies between tasks."""

    summary: str
    """A few words for listings."""
    unit: str = "1"
    """Of what is drawn; 1 for a factor or share."""
    fields: tuple[str, ...]
    """The model fields that it writes."""

    def describe(self) -> str:
        """What varies, in which range."""
        return describe_range(self)

    @abstractmethod
    def parameters(self, model: mujoco.MjModel) -> tuple[TaskParameter, ...]:
        """What is drawn per task, for this model.

        Raises:
            UnknownName: the model has no body, motor or joint of that name.
            InvalidTask: a range with low above high.
        """

    @abstractmethod
    def write(self, rows: Fields, tasks: Tasks, model: mujoco.MjModel) -> None:
        """Change the fields of k simulations, in place, for their tasks (k,) per parameter."""


def describe_range(variation: Any) -> str:
    """``summary, low to high unit`` of what has a range; else its summary."""
    if not hasattr(variation, "low"):
        return variation.summary
    unit = "" if variation.unit == "1" else f" {variation.unit}"
    return f"{variation.summary}, {variation.low:.2g} to {variation.high:.2g}{unit}"


@dataclass(frozen=True)
class _Factors(Randomisation):
    """A factor per selected element of one field, drawn log-uniformly from [low, high]."""

    which: tuple[str, ...] = ("*",)
    low: float = 0.5
    high: float = 2.0

    def describe(self) -> str:
        return f"{self.summary}, times {self.low:.2g} to {self.high:.2g}"

    @abstractmethod
    def elements(self, model: mujoco.MjModel) -> dict[str, tuple[int, ...]]:
        """Index into the field, by parameter name."""

    def parameters(self, model: mujoco.MjModel) -> tuple[TaskParameter, ...]:
        return tuple(
            TaskParameter(name, "1", self.low, self.high, scale="log", least=1e-6)
            for name in self.elements(model)
        )

    def write(self, rows: Fields, tasks: Tasks, model: mujoco.MjModel) -> None:
        for name, index in self.elements(model).items():
            rows[self.fields[0]][(slice(None), *index)] *= tasks[name]


@dataclass(frozen=True)
class BodyMass(_Factors):
    """Factors on the bodies' masses; their inertia stays, see `BodyInertia`."""

    summary = "mass"
    fields = ("body_mass",)

    def elements(self, model: mujoco.MjModel) -> dict[str, tuple[int, ...]]:
        return {f"mass.{body}": (i,) for body, i in parts.bodies(model, self.which).items()}


@dataclass(frozen=True)
class BodyInertia(_Factors):
    """Factors on the bodies' principal moments of inertia, each its own."""

    summary = "inertia"
    fields = ("body_inertia",)

    def elements(self, model: mujoco.MjModel) -> dict[str, tuple[int, ...]]:
        bodies = parts.bodies(model, self.which).items()
        return {f"inertia.{b}.{axis}": (i, k) for b, i in bodies for k, axis in enumerate("xyz")}


@dataclass(frozen=True)
class Friction(_Factors):
    """Factors on the geoms' sliding, torsional and rolling friction, as far as contacts have it.

    MuJoCo takes the larger friction of two geoms that touch.
    """

    summary = "friction"
    fields = ("geom_friction",)

    def elements(self, model: mujoco.MjModel) -> dict[str, tuple[int, ...]]:
        geoms = parts.select("colliding geom", parts.colliding(model), self.which).items()
        kinds = parts.friction_kinds(model)
        if not kinds:
            raise InvalidTask("friction cannot vary in a model whose contacts have none (condim 1)")
        return {f"friction.{g}.{kind}": (i, k) for g, i in geoms for k, kind in enumerate(kinds)}


@dataclass(frozen=True)
class Damping(_Factors):
    """Factors on the damping of joints; those without any are left out."""

    summary = "damping"
    fields = ("dof_damping",)

    def elements(self, model: mujoco.MjModel) -> dict[str, tuple[int, ...]]:
        damped = parts.dofs(model, model.dof_damping > 0)
        if not damped:
            raise InvalidTask("damping cannot vary in a model whose joints have none")
        joints = parts.select("damped joint", damped, self.which)
        return {f"damping.{joint}": (dof,) for joint, dof in joints.items()}


@dataclass(frozen=True)
class MotorStrength(Randomisation):
    """What share of its force each motor gives, uniform in [low, high]."""

    which: tuple[str, ...] = ("*",)
    low: float = 0.5
    high: float = 1.0
    summary = "motor strength"
    fields = ("actuator_gainprm", "actuator_biasprm")

    def parameters(self, model: mujoco.MjModel) -> tuple[TaskParameter, ...]:
        motors = parts.select("motor", parts.motors(model), self.which)
        return tuple(
            TaskParameter(f"strength.{m}", "1", self.low, self.high, least=0.0) for m in motors
        )

    def write(self, rows: Fields, tasks: Tasks, model: mujoco.MjModel) -> None:
        for motor, i in parts.select("motor", parts.motors(model), self.which).items():
            for field in self.fields:  # a servo's force has a part that its bias gives
                rows[field][:, i] *= tasks[f"strength.{motor}"][:, None]


@dataclass(frozen=True)
class WeakMotor(Randomisation):
    """One motor, another in each task, gives only a share of its force."""

    low: float = 0.0
    high: float = 0.5
    summary = "one weak motor"
    fields = ("actuator_gainprm", "actuator_biasprm")

    def parameters(self, model: mujoco.MjModel) -> tuple[TaskParameter, ...]:
        return (
            _one_of("weak_motor", model.nu),
            TaskParameter("weak_motor_strength", "1", self.low, self.high, least=0.0),
        )

    def write(self, rows: Fields, tasks: Tasks, model: mujoco.MjModel) -> None:
        chosen = tasks["weak_motor"].astype(np.intp)
        for field in self.fields:
            rows[field][np.arange(len(chosen)), chosen] *= tasks["weak_motor_strength"][:, None]


@dataclass(frozen=True)
class LockedJoint(Randomisation):
    """One of the motors' joints, another in each task, is held by dry friction; -1 is none."""

    summary = "one locked joint, or none"
    fields = ("dof_frictionloss", "dof_solimp")

    def parameters(self, model: mujoco.MjModel) -> tuple[TaskParameter, ...]:
        return (_one_of("locked_joint", len(self._dofs(model)), least=-1),)

    def write(self, rows: Fields, tasks: Tasks, model: mujoco.MjModel) -> None:
        chosen = tasks["locked_joint"].astype(np.intp)
        held = np.flatnonzero(chosen >= 0)
        dofs = self._dofs(model)[chosen[held]]
        rows["dof_frictionloss"][held, dofs] = LOCK
        rows["dof_solimp"][held, dofs, :2] = 0.9999  # nearly rigid: MuJoCo's friction creeps

    def _dofs(self, model: mujoco.MjModel) -> NDArray[np.intp]:
        joints = model.actuator_trnid[:, 0]
        return model.jnt_dofadr[joints[model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT]]


@dataclass(frozen=True)
class Payload(Randomisation):
    """A point mass at a body's centre of mass [kg], uniform in [low, high].

    Without a body it is on the model's first; without `high` up to half the robot's mass.
    """

    body: str | None = None
    low: float = 0.0
    high: float | None = None
    summary = "payload"
    unit = "kg"
    fields = ("body_mass",)

    def parameters(self, model: mujoco.MjModel) -> tuple[TaskParameter, ...]:
        self._carrier(model)
        half = float(f"{model.body_mass.sum() / 2:.3g}")
        high = half if self.high is None else self.high
        return (TaskParameter("payload", "kg", self.low, high, least=0.0),)

    def write(self, rows: Fields, tasks: Tasks, model: mujoco.MjModel) -> None:
        rows["body_mass"][:, self._carrier(model)] += tasks["payload"]

    def describe(self) -> str:
        most = "half the robot's mass" if self.high is None else f"{self.high:g} kg"
        return f"{self.summary} on the {self.body or 'first body'}, {self.low:g} to {most}"

    def _carrier(self, model: mujoco.MjModel) -> int:
        """The body that carries it."""
        bodies = parts.bodies(model, ("*",) if self.body is None else (self.body,))
        return next(iter(bodies.values()))


@dataclass(frozen=True)
class Gravity(Randomisation):
    """The size of gravity [m/s^2], uniform in [low, high]; its direction stays."""

    low: float = 5.0
    high: float = 15.0
    summary = "gravity"
    unit = "m/s^2"
    fields = ("opt.gravity",)

    def parameters(self, model: mujoco.MjModel) -> tuple[TaskParameter, ...]:
        if not np.linalg.norm(model.opt.gravity) > 0:
            raise InvalidTask("gravity cannot vary in a model that has none")
        return (TaskParameter("gravity", "m/s^2", self.low, self.high, least=0.0),)

    def write(self, rows: Fields, tasks: Tasks, model: mujoco.MjModel) -> None:
        direction = model.opt.gravity / np.linalg.norm(model.opt.gravity)
        rows["opt.gravity"][:] = direction * tasks["gravity"][:, None]


def rand_params(
    mass: float = 1.5, damping: float = 1.3, spread: float = 3.0
) -> tuple[_Factors, ...]:
    """The "rand-params" of the meta-RL literature (Rothfuss et al. 2019, Rakelly et al. 2019).

    Factors ``mass ** U[-spread, spread]`` on mass, inertia and friction, and
    ``damping ** U[-spread, spread]`` on damping, each element drawn by itself.
    """
    low, high = mass**-spread, mass**spread
    return (
        BodyMass(low=low, high=high),
        BodyInertia(low=low, high=high),
        Friction(low=low, high=high),
        Damping(low=damping**-spread, high=damping**spread),
    )


def _one_of(name: str, count: int, least: float = 0.0) -> TaskParameter:
    if count < 2:
        raise InvalidTask(f"{name}: one of several is drawn, this model has {count}")
    choices = tuple(float(i) for i in range(count))
    if least < 0:
        return TaskParameter(name, "index", least, count - 1.0, choices=(least, *choices))
    return TaskParameter(name, "index", 0.0, count - 1.0, choices=choices)
