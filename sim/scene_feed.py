"""Showing a simulated robot to `adaptd view`: where its geoms are, step by step."""

import mujoco
import numpy as np

from runtime.errors import InvalidConfig
from runtime.view.scene_link import Part, Scene, ScenePublisher
from sim.family import Marker
from sim.mujoco_family import MujocoWorld
from sim.robot import SimulatedRobot

_GEOM = mujoco.mjtGeom
SHAPES = {
    _GEOM.mjGEOM_BOX: "box",
    _GEOM.mjGEOM_SPHERE: "sphere",
    _GEOM.mjGEOM_CYLINDER: "cylinder",
    _GEOM.mjGEOM_CAPSULE: "capsule",
    _GEOM.mjGEOM_ELLIPSOID: "ellipsoid",
}
"""Geoms that are shown; a plane is the viewer's own grid, a mesh is shown by its box."""
VISIBLE_GROUPS = 3
"""MuJoCo's habit: geoms of higher groups are for collisions."""


class SceneFeed:
    """Publishes a robot's scene, where somebody looks."""

    def __init__(self, robot: SimulatedRobot, endpoint: str, session: int):
        """
        Args:
            robot: of a family with physics.
            endpoint: of the daemon that serves it.
            session: its session.

        Raises:
            InvalidConfig: the family has no physics, or the scene cannot be published there.
        """
        world = robot.env.world
        if not isinstance(world, MujocoWorld):
            raise InvalidConfig(f"{robot.env.family.name} has no physics, so there is no scene")
        self._robot, self._world = robot, world
        self._data = mujoco.MjData(world.model)
        self._publisher = ScenePublisher(endpoint, session)

    def update(self) -> None:
        """Show the present moment."""
        if not self._publisher.watched:
            return
        model, data = self._world.model, self._data
        self._world.batch.get_data(0, data)
        mujoco.mj_forward(model, data)
        markers = self._robot.env.family.markers(self._world, 0)
        self._publisher.send(scene_of(model, data, markers))

    def close(self) -> None:
        """Show no more."""
        self._publisher.close()


def scene_of(
    model: mujoco.MjModel, data: mujoco.MjData, markers: list[Marker] | None = None
) -> Scene:
    """The geoms of a state, whose places are up to date, and a task's markers."""
    shown = [
        g
        for g in range(model.ngeom)
        if model.geom_group[g] < VISIBLE_GROUPS and model.geom_type[g] != _GEOM.mjGEOM_PLANE
    ]
    parts = [_part(model, data, geom) for geom in shown]
    for marker in markers or ():
        size = _three([marker.radius] * 3)
        parts.append(
            Part("sphere", size, _four(marker.rgba), _three(marker.position), (1, 0, 0, 0))
        )
    moving = np.flatnonzero(model.body_weldid)
    centre = data.xpos[moving[0]] if len(moving) else model.stat.center
    return Scene(tuple(parts), _three(centre))


def _part(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> Part:
    shape = SHAPES.get(_GEOM(int(model.geom_type[geom])))
    rotation = np.zeros(4)
    mujoco.mju_mat2Quat(rotation, data.geom_xmat[geom])
    a, b, c = model.geom_size[geom]
    size = {"sphere": (a, a, a), "cylinder": (a, a, b), "capsule": (a, a, b)}.get(
        shape or "", (a, b, c)
    )
    if shape is None:  # a mesh, by its bounding box
        shape, size = "box", model.geom_aabb[geom, 3:]
    return Part(
        shape,
        _three(size),
        _four(_rgba(model, geom)),
        _three(data.geom_xpos[geom]),
        _four(rotation),
    )


def _rgba(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """The colour of a geom: its material's, if it has one and none of its own."""
    material = int(model.geom_matid[geom])
    own = model.geom_rgba[geom]
    if material >= 0 and np.allclose(own, 0.5 + 0.5 * (np.arange(4) == 3)):  # MuJoCo's default
        return model.mat_rgba[material]
    return own


def _three(values: object) -> tuple[float, float, float]:
    x, y, z = map(float, values)  # type: ignore[call-overload]
    return x, y, z


def _four(values: object) -> tuple[float, float, float, float]:
    a, b, c, d = map(float, values)  # type: ignore[call-overload]
    return a, b, c, d
