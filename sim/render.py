"""Looking at a simulated robot: MuJoCo's viewer, or a video where rendering works offscreen."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import mujoco

from runtime.errors import InvalidConfig
from sim.mujoco_family import MujocoWorld
from sim.robot import SimulatedRobot
from sim.scene import add_markers, framing_camera, own_camera

WIDTH, HEIGHT = 640, 368  # multiples of 16, as video codecs want


class Video:
    """Frames of one robot and its task's markers, written to an mp4 file when closed.

    Without a camera of the model's own (`own_camera`) one is placed that sees all that matters;
    it steps back where it must and never closer again, so that sizes seldom change.
    """

    def __init__(self, robot: SimulatedRobot, path: Path):
        """
        Raises:
            InvalidConfig: the family has no physics, offscreen rendering does not work
                here, or the video writer is not installed; each says what to do.
        """
        world = _mujoco_world(robot)
        try:
            import imageio.v2 as imageio

            self._writer = imageio.get_writer(path, fps=robot.env.family.control_hz)
        except (ImportError, ValueError, OSError) as error:
            raise InvalidConfig(
                f"no video can be written: {_line(error)} "
                f"(pip install 'adaptd[sim]' brings a writer)"
            ) from None
        try:
            self._renderer = open_renderer(world.model, WIDTH, HEIGHT)
        except InvalidConfig:
            self._writer.close()
            path.unlink(missing_ok=True)
            raise
        self._robot, self._world = robot, world
        self._distance = 0.0  # of a camera placed here, so far

    def frame(self) -> None:
        """Add a picture of the present moment."""
        model, data = self._world.model, self._world.batch.get_data(0)
        mujoco.mj_forward(model, data)  # where the bodies and cameras are
        markers = self._robot.env.family.markers(self._world, 0)
        camera = own_camera(model, markers)
        if camera is None:
            camera = framing_camera(model, data, markers, self._distance)
            self._distance = camera.distance
        self._renderer.update_scene(data, camera=camera)
        add_markers(self._renderer.scene, markers)
        self._writer.append_data(self._renderer.render())

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._renderer.close()


def open_renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """Renders offscreen pictures of `width` times `height` pixels.

    Raises:
        InvalidConfig: that does not work here; says what to do.
    """
    if mujoco.GLContext.__module__ == "mujoco.glfw" and not _screen():
        # It would crash the process.
        raise InvalidConfig(
            "offscreen rendering does not work here: mujoco was set to draw on a screen, and "
            "there is none (import sim before mujoco, or set MUJOCO_GL=egl)"
        )
    frame = model.vis.global_
    frame.offwidth, frame.offheight = max(frame.offwidth, width), max(frame.offheight, height)
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:  # each graphics library has its own
        raise InvalidConfig(
            f"offscreen rendering does not work here: {_line(error)} "
            f"(on Debian: apt install libegl1 libgl1-mesa-dri)"
        ) from None


def open_viewer(robot: SimulatedRobot) -> tuple[AbstractContextManager[Any], Callable[[], None]]:
    """MuJoCo's viewer on the robot: a context to run inside, and a function that updates it.

    It looks through the model's own camera (`own_camera`), else through MuJoCo's free one.

    Raises:
        InvalidConfig: the family has no physics, or there is no screen.
    """
    world = _mujoco_world(robot)
    if not _screen():
        raise InvalidConfig("there is no screen to open a viewer on; --video FILE needs none")
    import mujoco.viewer

    data = world.batch.get_data(0)
    viewer = mujoco.viewer.launch_passive(
        world.model, data, show_left_ui=False, show_right_ui=False
    )
    family = robot.env.family
    camera = own_camera(world.model, family.markers(world, 0))
    if camera is not None:
        with viewer.lock():
            viewer.cam.type = mujoco.mjtCamera.mjCAMERA_FIXED
            viewer.cam.fixedcamid = world.model.camera(camera).id

    def update() -> None:
        with viewer.lock():
            world.batch.get_data(0, data)
            mujoco.mj_forward(world.model, data)
            if (scene := viewer.user_scn) is not None:  # None once its window is closed
                scene.ngeom = 0
                add_markers(scene, family.markers(world, 0))
        viewer.sync()

    return viewer, update


def no_view() -> tuple[AbstractContextManager[Any], Callable[[], None]]:
    """As `open_viewer`, for nobody to look at."""
    return nullcontext(), lambda: None


def _screen() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _mujoco_world(robot: SimulatedRobot) -> MujocoWorld:
    world = robot.env.world
    if not isinstance(world, MujocoWorld):
        raise InvalidConfig(f"{robot.env.family.name} has no physics, so there is nothing to see")
    return world


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]
