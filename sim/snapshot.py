"""One picture of one simulation, with better light and colours where it needs them."""

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.family import Marker
from sim.mujoco_family import MujocoWorld
from sim.render import open_renderer
from sim.scene import add_markers, framing_camera, own_camera

SKY = ((237, 242, 247), (158, 189, 219))
FLOOR = ((61, 92, 107), (74, 107, 122))
"""Darkest and brightest colour of a repainted texture."""
AMBIENT, DIFFUSE = 0.35, 0.6
"""Light of a repainted scene, from everywhere and from its lamps."""
LAMP = np.array([0.8, 1.2, -4.0])
"""From the lamp of a repainted scene to what it shines on [m]."""


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
    mujoco.mj_forward(model, data)  # where the bodies and cameras are
    camera = None if repaint else own_camera(model, markers)
    if camera is None:
        camera = framing_camera(model, data, markers)
        if repaint:
            _repaint(model, data, camera.lookat)
    renderer = open_renderer(model, *size)
    try:
        renderer.update_scene(data, camera=camera)
        add_markers(renderer.scene, markers)
        return renderer.render().copy()
    finally:
        renderer.close()


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
