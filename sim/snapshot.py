"""One picture of one simulation: a camera that sees what matters, light and colours."""

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.family import Marker
from sim.mujoco_family import MujocoWorld
from sim.render import open_renderer

SKY = ((237, 242, 247), (158, 189, 219))
FLOOR = ((61, 92, 107), (74, 107, 122))
"""Darkest and brightest colour of a repainted texture."""
AMBIENT, DIFFUSE = 0.35, 0.6
"""Light of a repainted scene, from everywhere and from its lamps."""
LAMP = np.array([0.8, 1.2, -4.0])
"""From the lamp of a repainted scene to what it shines on [m]."""
MARGIN = 0.9
"""How much further away a camera stands than it must to see everything."""


def snapshot(
    world: MujocoWorld,
    index: int,
    size: tuple[int, int],
    markers: Sequence[Marker] = (),
    repaint: bool = False,
) -> NDArray[np.uint8]:
    """One simulation as its camera sees it, (height, width, 3).

    Args:
        world: of the simulation.
        index: which simulation.
        size: width and height in pixels.
        markers: spheres to add.
        repaint: gymnasium's bodies stand on a glaring floor, and their cameras are low: give
            them another floor, sky and light, and a camera that also sees the markers. This
            changes the world's model.

    Raises:
        InvalidConfig: offscreen rendering does not work here; says what to do.
    """
    model, data = world.model, world.batch.get_data(index)
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, size[0])
    model.vis.global_.offheight = max(model.vis.global_.offheight, size[1])
    mujoco.mj_forward(model, data)  # where the bodies and cameras are
    camera = None if repaint else _own_camera(model)
    if camera is None:
        camera = _framing_camera(model, data, markers)
        if repaint:
            _repaint(model, data, camera.lookat)
    renderer = open_renderer(model, *size)
    try:
        renderer.update_scene(data, camera=camera)
        for marker in markers:
            _add_sphere(renderer.scene, marker)
        return renderer.render().copy()
    finally:
        renderer.close()


def _own_camera(model: mujoco.MjModel) -> str | None:
    """The model's camera that sees the whole scene: one that follows the robot may not."""
    names = [model.camera(c).name for c in range(model.ncam)]
    if "overview" in names and ("track" not in names or model.camera("track").mode[0]):
        return "overview"
    return "track" if "track" in names else None


def _framing_camera(
    model: mujoco.MjModel, data: mujoco.MjData, markers: Sequence[Marker]
) -> mujoco.MjvCamera:
    """A camera that sees everything that moves, and the markers, from the right and above."""
    moving = np.flatnonzero(model.body_weldid[model.geom_bodyid])
    spheres = [(data.geom_xpos[g], model.geom_rbound[g]) for g in moving]
    spheres += [(np.array(m.position), m.radius) for m in markers]
    low = np.min([centre - radius for centre, radius in spheres], axis=0)
    high = np.max([centre + radius for centre, radius in spheres], axis=0)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (low + high) / 2
    half_view = np.radians(model.vis.global_.fovy) / 2
    camera.distance = MARGIN * np.linalg.norm(high - low) / 2 / np.sin(half_view)
    camera.azimuth, camera.elevation = 115.0, -30.0 if markers else -18.0
    return camera


def _add_sphere(scene: mujoco.MjvScene, marker: Marker) -> None:
    mujoco.mjv_initGeom(
        scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_SPHERE,
        np.full(3, marker.radius), np.array(marker.position), np.eye(3).ravel(),
        np.array(marker.rgba, np.float32),
    )  # fmt: skip
    scene.ngeom += 1


def _repaint(model: mujoco.MjModel, data: mujoco.MjData, lookat: NDArray[np.float64]) -> None:
    """Softer colours of sky and floor, no mirror, and a lamp above what is looked at."""
    for t in range(model.ntex):
        kind = model.tex_type[t]
        if kind == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            _recolour(model, t, SKY)
        elif kind == mujoco.mjtTexture.mjTEXTURE_2D:
            _recolour(model, t, FLOOR)
    floors = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    model.geom_rgba[floors] = 1.0
    model.mat_rgba[model.geom_matid[floors]] = 1.0
    model.mat_reflectance[:] = 0.0
    model.vis.headlight.ambient[:] = AMBIENT
    model.light_diffuse[:] = DIFFUSE
    data.light_xdir[:] = LAMP / np.linalg.norm(LAMP)
    data.light_xpos[:] = lookat - LAMP


def _recolour(model: mujoco.MjModel, texture: int, colours: tuple) -> None:
    """Map a texture's brightness to the range between two colours."""
    start, channels = model.tex_adr[texture], model.tex_nchannel[texture]
    end = start + model.tex_height[texture] * model.tex_width[texture] * channels
    pixels = model.tex_data[start:end].reshape(-1, channels)  # a view
    grey = pixels[:, :3].mean(axis=1, keepdims=True)
    share = (grey - grey.min()) / max(1.0, float(np.ptp(grey)))
    darkest, brightest = map(np.array, colours)
    pixels[:, :3] = np.round(darkest + share * (brightest - darkest))
