"""The picture of all task families."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import sim
from runtime.errors import InvalidConfig, UnknownName
from sim import gallery
from sim.mujoco_family import MujocoFamily

PAIR = ("halfcheetah-vel", "ant-dir")


def tiles_or_skip(names):
    try:
        return gallery.tiles(names)
    except InvalidConfig as error:
        if "offscreen rendering does not work here" in str(error):
            pytest.skip(f"needs libegl1 and libgl1-mesa-dri: {error}")
        raise


def test_tiles_show_something_and_not_the_same():
    shown = tiles_or_skip(PAIR)
    assert [tile.names for tile in shown] == [["halfcheetah-vel"], ["ant-dir"]]
    for tile in shown:
        assert tile.image.shape == (gallery.HEIGHT, gallery.WIDTH, 3)
        # A sky, a floor and a body: the brightness of a blank or half-blank tile varies less.
        assert tile.image.std() > 20
        assert len(np.unique(tile.image.reshape(-1, 3), axis=0)) > 1000
    first, second = (tile.image.astype(int) for tile in shown)
    assert np.abs(first - second).mean() > 5


def test_families_that_look_alike_share_a_tile():
    shown = tiles_or_skip(("ant-dir", "halfcheetah-vel", "ant-goal", "halfcheetah-dir", "ant-vel"))
    assert [tile.names for tile in shown] == [
        ["ant-dir", "ant-vel"],
        ["halfcheetah-vel", "halfcheetah-dir"],
        ["ant-goal"],  # its goal is in the picture
    ]


def test_a_hidden_goal_is_in_the_picture():
    (tile,) = tiles_or_skip(("ant-goal",))
    red, green, blue = (tile.image[..., c].astype(int) for c in range(3))
    assert ((red > 150) & (green < 80) & (blue < 80)).sum() > 100  # nothing else is red


def test_the_grid_has_room_for_every_tile_and_name(tmp_path):
    picture = np.full((gallery.HEIGHT, gallery.WIDTH, 3), 90, np.uint8)
    many = [f"a-family-with-a-long-name-{k}" for k in range(4)]
    shown = [gallery.Tile(many if k == 2 else [f"family-{k}"], picture) for k in range(6)]
    grid = np.asarray(gallery.compose(shown))
    assert (grid == 90).all(axis=2).sum() >= 6 * gallery.HEIGHT * gallery.WIDTH
    assert (grid[0] == 255).all() and (grid[-1] == 255).all()


def test_the_program_writes_a_picture_or_says_what_is_missing(tmp_path):
    path = tmp_path / "gallery.png"
    command = [sys.executable, "-m", "sim.gallery", *PAIR, "--path", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if result.returncode == 2 and "offscreen rendering does not work here" in result.stderr:
        assert not path.exists()
        pytest.skip(f"needs libegl1 and libgl1-mesa-dri: {result.stderr}")
    assert result.returncode == 0, result.stderr
    with Image.open(path) as image:
        assert image.width >= 2 * gallery.WIDTH and image.height >= gallery.HEIGHT


def test_what_cannot_be_pictured_is_a_sentence(tmp_path):
    class Unseen(sim.registry.Bandit):
        def draw(self, world, index):
            return None

    sim.register("unseen", lambda: Unseen("unseen"))
    try:
        with pytest.raises(InvalidConfig, match="none of unseen can be pictured"):
            gallery.tiles(("unseen",))
    finally:
        del sim.registry._FAMILIES["unseen"]
    with pytest.raises(UnknownName, match="Did you mean 'ant-dir'"):
        gallery.tiles(("ant-dri",))


@pytest.mark.parametrize("name", sim.names())
def test_every_family_can_be_pictured(name):
    family = sim.family(name)
    if not isinstance(family, MujocoFamily) and not hasattr(family, "draw"):
        return
    (tile,) = tiles_or_skip((name,))
    assert tile.image.std() > 5
