"""Videos and the viewer show the robot and its hidden goal, and the goal moves with the task."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import imageio.v2 as imageio
import mujoco.viewer
import numpy as np
import pytest

from runtime.errors import InvalidConfig
from sim import render
from sim.change import Change
from sim.robot import SimulatedRobot
from sim.scene import own_camera
from tests.test_your_robot import blocks

CAMERA_LINE = '<camera name="track"'
GOALS = (0.9, -0.9)  # m, to the right and to the left of the cart
CHANGE = Change((10, 10), {"goal": GOALS[1]})


@pytest.fixture(params=["with", "without"])
def slider(tmp_path, monkeypatch, request):
    """The page's robot, with its camera or without, whose goal changes before step 10."""
    for kind in ("xml", "python"):
        for name, text in blocks(kind):
            lines = text.splitlines()
            kept = [x for x in lines if request.param == "with" or CAMERA_LINE not in x]
            (tmp_path / name).write_text("\n".join(kept))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield SimulatedRobot("my_robot:Slider", 0, {"goal": GOALS[0]}, [CHANGE])
    for module in ("my_robot", "heavy_robot"):
        sys.modules.pop(module, None)


def push(robot):
    """A control step without a daemon."""
    robot.env.step(np.zeros((1, len(robot.env.family.action)), np.float32))


def film(robot, path, steps):
    """The frames of a video of so many steps, (steps, height, width, 3)."""
    try:
        video = render.Video(robot, path)
    except InvalidConfig as error:
        if "offscreen rendering does not work here" not in str(error):
            raise
        pytest.skip(f"needs libegl1 and libgl1-mesa-dri: {error}")
    for _ in range(steps):
        push(robot)
        video.frame()
    video.close()
    with imageio.get_reader(path) as reader:
        return np.stack([f for f in reader])  # noqa: C416  (its length is infinite)


def columns(frame, channel):
    """Mean column of the pixels in which one colour prevails, and their number."""
    others = np.delete(frame.astype(int), channel, axis=2).max(axis=2)
    prevails = frame[..., channel].astype(int) - others > 20
    return np.nonzero(prevails)[1].mean(), prevails.sum()


def test_a_video_shows_the_goal_move_past_the_robot(slider, tmp_path):
    frames = film(slider, tmp_path / "slider.mp4", 20)
    for frame, goal in ((frames[5], GOALS[0]), (frames[15], GOALS[1])):
        (ball, size), (cart, body) = columns(frame, 0), columns(frame, 2)
        assert size > 100 and body > 100
        assert (ball - cart) * goal > 50


class Window(SimpleNamespace):
    """What `open_viewer` uses of MuJoCo's passive viewer."""

    def lock(self):
        return nullcontext()

    def sync(self):
        if self.user_scn is not None:
            shown = range(self.user_scn.ngeom)
            self.drawn = [self.user_scn.geoms[k].pos.copy() for k in shown]


def test_the_viewer_shows_the_goal_through_the_camera_there_is(slider, monkeypatch):
    def launch(model, data, **_):
        return Window(cam=mujoco.MjvCamera(), user_scn=mujoco.MjvScene(model, 10))

    monkeypatch.setattr(mujoco.viewer, "launch_passive", launch)
    monkeypatch.setattr(render, "_screen", lambda: True)
    window, update = render.open_viewer(slider)
    model = slider.env.world.model
    free = mujoco.mjtCamera.mjCAMERA_FREE
    assert (window.cam.type == free) == (model.ncam == 0)
    for goal in GOALS:
        update()
        assert np.allclose(window.drawn, [[goal, 0, 0.1]])
        for _ in range(10):
            push(slider)
    window.user_scn = None  # somebody closed the window
    update()


@pytest.mark.parametrize(
    ("family", "camera"),
    [
        ("halfcheetah-vel", "track"),
        ("block-push", "track"),  # stands still, sees everything
        ("wheeled", "overview"),  # the other one follows the robot
        ("ant-goal", None),  # gymnasium's camera would leave the goal behind
    ],
)
def test_a_camera_is_chosen_that_keeps_the_goal_in_view(family, camera):
    robot = SimulatedRobot(family)
    world = robot.env.world
    assert own_camera(world.model, robot.env.family.markers(world, 0)) == camera
