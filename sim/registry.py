"""The names under which task families and dynamics variations are found.

A family's name may be followed by variations of its dynamics, each behind a plus:
``halfcheetah-vel+payload+delay`` is the half cheetah with a hidden target velocity, a payload
and a delay, all drawn with the task. A family of one's own that is not registered is
``MODULE:CLASS``, as in ``my_robot:Slider`` for the class in the file my_robot.py.
"""

import importlib
import os
import sys
from collections.abc import Callable

from runtime.errors import InvalidTask, UnknownName
from sim import dynamics, signals
from sim.dynamics import Randomisation
from sim.families.ant import AntDir, AntGoal, AntGoalRing, AntVel
from sim.families.bandit import Bandit
from sim.families.block_push import BlockPush
from sim.families.grid_nav import GridNav
from sim.families.halfcheetah import HalfCheetahDir, HalfCheetahRun, HalfCheetahVel
from sim.families.hopper import HopperRun
from sim.families.humanoid import HumanoidDir
from sim.families.maze2d import Maze2D
from sim.families.point import PointNav, PointSparse
from sim.families.walker import WalkerRun
from sim.families.wheeled import Wheeled
from sim.family import TaskFamily
from sim.mujoco_family import MujocoFamily
from sim.randomised import Randomised
from sim.signals import Signal

_FAMILIES: dict[str, Callable[[], TaskFamily]] = {
    "halfcheetah-vel": HalfCheetahVel,
    "halfcheetah-vel-0to2": lambda: HalfCheetahVel("halfcheetah-vel-0to2", high=2.0),
    "halfcheetah-dir": HalfCheetahDir,
    "ant-dir": AntDir,
    "ant-dir-1rad": lambda: AntDir("ant-dir-1rad", headings=(-1.0, 1.0)),
    "ant-vel": AntVel,
    "ant-goal": AntGoal,
    "ant-goal-ring": AntGoalRing,
    "humanoid-dir": HumanoidDir,
    "halfcheetah-rand-params": lambda: _rand_params("halfcheetah"),
    "hopper-rand-params": lambda: _rand_params("hopper"),
    "walker-rand-params": lambda: _rand_params("walker"),
    "bandit": Bandit,
    "wheeled": Wheeled,
    "block-push": BlockPush,
    "bandit-5": lambda: Bandit("bandit-5", arms=5, horizon=100),
    "bandit-10": lambda: Bandit("bandit-10", arms=10, horizon=100),
    "grid-nav": GridNav,
    "maze2d": Maze2D,
    "point-nav": PointNav,
    "point-sparse": PointSparse,
}

_RUNNERS: dict[str, Callable[[], MujocoFamily]] = {
    "halfcheetah-run": HalfCheetahRun,
    "hopper-run": HopperRun,
    "walker-run": WalkerRun,
}
"""Bodies that are paid for running forward: tasks only with variations of their dynamics."""


def _rand_params(body: str) -> Randomised:
    runner = _RUNNERS[f"{body}-run"]()
    summary = f"{runner.summary}; mass, inertia, friction and damping vary"
    return Randomised(runner, dynamics.rand_params(), f"{body}-rand-params", summary)


VARIATIONS: dict[str, tuple[Randomisation | Signal, ...]] = {
    "rand-params": dynamics.rand_params(),
    "mass": (dynamics.BodyMass(),),
    "inertia": (dynamics.BodyInertia(),),
    "friction": (dynamics.Friction(),),
    "damping": (dynamics.Damping(),),
    "motors": (dynamics.MotorStrength(),),
    "weak-motor": (dynamics.WeakMotor(),),
    "locked-joint": (dynamics.LockedJoint(),),
    "payload": (dynamics.Payload(),),
    "gravity": (dynamics.Gravity(),),
    "delay": (signals.ActuatorDelay(),),
    "noise": (signals.SensorNoise(),),
    "bias": (signals.SensorBias(),),
}
"""Dynamics variations by name, each with its default range."""


def register(name: str, build: Callable[[], TaskFamily]) -> None:
    """Add a family under a name; `build` makes it.

    Raises:
        InvalidTask: the name is taken, or has a plus or a colon, which mean something else.
    """
    if "+" in name or ":" in name:
        raise InvalidTask(
            f"a family's name has no plus, which is for variations, and no colon: {name!r}"
        )
    if name in _FAMILIES or name in _RUNNERS:
        raise InvalidTask(f"there is a family {name!r} already")
    _FAMILIES[name] = build


def names() -> list[str]:
    """The names of all registered families."""
    return sorted(_FAMILIES)


def listing() -> list[tuple[str, str, str]]:
    """Everything here in one line each: family or dynamics, name, what it is."""
    families = [("family", name, family(name).summary) for name in names()]
    dynamics = [
        ("dynamics", f"...+{name}", "; ".join(v.describe() for v in variations))
        for name, variations in VARIATIONS.items()
    ]
    return families + dynamics


def family(name: str) -> TaskFamily:
    """The task family of that name, with variations if the name asks for them.

    Raises:
        UnknownName: with the families, or variations, that exist and the nearest name.
        InvalidTask: the family has no physics to vary, or `MODULE:CLASS` is none.
    """
    base, *varied = name.split("+")
    known = {**_FAMILIES, **_RUNNERS}
    if base not in known and ":" not in base:
        raise UnknownName("task family", base, names())
    found = known[base]() if base in known else _of_ones_own(base)
    if not varied:
        return found
    for variation in varied:
        if variation not in VARIATIONS:
            raise UnknownName("dynamics variation", variation, VARIATIONS)
    if not isinstance(found, MujocoFamily):
        raise InvalidTask(f"{base} has no physics, so its dynamics cannot vary: {name!r}")
    return Randomised(found, [v for key in varied for v in VARIATIONS[key]], name)


def _of_ones_own(name: str) -> TaskFamily:
    """The family ``MODULE:CLASS``, of a module in the working directory or an installed one."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InvalidTask(f"{name!r}: expected MODULE:CLASS, as in my_robot:Slider")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # console programs do not look there by themselves
    try:
        build = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise InvalidTask(f"{name!r}: there is no module {module!r} here, nor installed") from None
    except AttributeError:
        raise InvalidTask(f"{name!r}: the module {module} has no {attribute!r}") from None
    try:
        found = build()
    except TypeError as error:
        raise InvalidTask(f"{name!r} cannot be made without arguments: {error}") from None
    if not isinstance(found, TaskFamily):
        raise InvalidTask(f"{name!r} makes a {type(found).__name__}, expected a TaskFamily")
    found.name = name  # under which runs and bundles find it again
    return found
