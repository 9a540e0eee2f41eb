"""What pictures, videos and the viewer share: which camera looks, and the task's markers."""

from collections.abc import Sequence

import mujoco
import numpy as np

from sim.family import Marker

CAMERA, WHOLE_SCENE = "track", "overview"
"""Names of the cameras that a model may bring: of the robot, and of all that matters."""
MARGIN = 0.9
"""How much further away a camera stands than it must to see everything."""


def own_camera(model: mujoco.MjModel, markers: Sequence[Marker] = ()) -> str | None:
    """The model's camera that sees the robot and the markers; None if it has none.

    One that follows the robot may leave the markers behind, so one of the whole scene comes
    before it, and with markers it does not serve.
    """
    names = [model.camera(c).name for c in range(model.ncam)]
    if CAMERA in names and model.camera(CAMERA).mode[0] == mujoco.mjtCamLight.mjCAMLIGHT_FIXED:
        return CAMERA
    if WHOLE_SCENE in names:
        return WHOLE_SCENE
    return CAMERA if CAMERA in names and not markers else None


def framing_camera(
    model: mujoco.MjModel, data: mujoco.MjData, markers: Sequence[Marker], nearest: float = 0.0
) -> mujoco.MjvCamera:
    """A camera that sees everything that moves, and the markers, from the right and above.

    Args:
        model: what is looked at.
        data: its state, with the places of its geoms up to date.
        markers: what is to be seen besides.
        nearest: stand no closer than this [m].
    """
    moving = np.flatnonzero(model.body_weldid[model.geom_bodyid])
    spheres = [(data.geom_xpos[g], model.geom_rbound[g]) for g in moving]
    spheres += [(np.array(m.position), m.radius) for m in markers]
    spheres = spheres or [(model.stat.center, model.stat.extent)]
    low = np.min([centre - radius for centre, radius in spheres], axis=0)
    high = np.max([centre + radius for centre, radius in spheres], axis=0)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (low + high) / 2
    half_view = np.radians(model.vis.global_.fovy) / 2
    enough = MARGIN * np.linalg.norm(high - low) / 2 / np.sin(half_view)
    camera.distance = max(nearest, float(enough))
    camera.azimuth, camera.elevation = 115.0, -30.0 if markers else -18.0
    return camera


def add_markers(scene: mujoco.MjvScene, markers: Sequence[Marker]) -> None:
    """Add a sphere per marker to what is drawn."""
    for marker in markers:
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_SPHERE,
            np.full(3, marker.radius), np.array(marker.position, float), np.eye(3).ravel(),
            np.array(marker.rgba, np.float32),
        )  # fmt: skip
        scene.ngeom += 1
