"""Bodies, motors and joints of a model by name, and patterns that choose among them."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import mujoco
import numpy as np
from numpy.typing import NDArray

from runtime.errors import UnknownName


def names(model: mujoco.MjModel, kind: str, count: int) -> dict[str, int]:
    """Index by name; what has none is called after its kind and index."""
    return {getattr(model, kind)(i).name or f"{kind}{i}": i for i in range(count)}


def bodies(model: mujoco.MjModel, which: Sequence[str] | str) -> dict[str, int]:
    """Index by name of the bodies that have a mass and match a pattern."""
    found = names(model, "body", model.nbody).items()
    return select("body", {name: i for name, i in found if model.body_mass[i]}, which)


def colliding(model: mujoco.MjModel) -> dict[str, int]:
    """Index by name of the geoms that can touch others."""
    found = names(model, "geom", model.ngeom).items()
    return {name: i for name, i in found if model.geom_contype[i] or model.geom_conaffinity[i]}


def friction_kinds(model: mujoco.MjModel) -> tuple[str, ...]:
    """Which kinds of friction any of the model's contacts has, as in `geom_friction`."""
    most = int(model.geom_condim.max(initial=1))  # a contact has the larger of its two geoms'
    return ("slide", "spin", "roll")[: {1: 0, 3: 1, 4: 2, 6: 3}[most]]


def motors(model: mujoco.MjModel) -> dict[str, int]:
    """Index by name, or by that of the joint a nameless motor drives where no other does."""
    joint_motors = model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT
    found: dict[str, int] = {}
    for i in range(model.nu):
        joint = model.joint(model.actuator_trnid[i, 0]).name if joint_motors[i] else ""
        name = model.actuator(i).name or joint
        found[name if name and name not in found else f"motor{i}"] = i
    return found


def dofs(model: mujoco.MjModel, mask: NDArray[np.bool_]) -> dict[str, int]:
    """Degrees of freedom in `mask`, by their joint's name, numbered where a joint has several."""
    found = {}
    for dof in np.flatnonzero(mask):
        joint = model.dof_jntid[dof]
        place = dof - model.jnt_dofadr[joint]
        name = model.joint(joint).name or f"joint{joint}"
        found[f"{name}.{place}" if place else name] = int(dof)
    return found


def select(kind: str, known: dict[str, int], which: Sequence[str] | str) -> dict[str, int]:
    """The entries of `known` that match a pattern each, in their order; a text is one pattern.

    Raises:
        UnknownName: a pattern matches nothing.
    """
    which = (which,) if isinstance(which, str) else which
    for pattern in which:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UnknownName(kind, pattern, known)
    return {n: i for n, i in known.items() if any(fnmatchcase(n, pattern) for pattern in which)}
