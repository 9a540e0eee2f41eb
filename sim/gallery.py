"""One picture of all task families, a tile per body or scene: ``docs/gallery.png``.

    python -m sim.gallery [FAMILY ...] [--path docs/gallery.png]

Every tile shows one simulation after a second of random motion, and what `TaskFamily.markers`
adds to it. A family without physics is shown as its ``draw(world, index)`` paints it, an image
(H, W, 3) of bytes; one without that is left out.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import sim
from runtime.errors import AdaptdError, InvalidConfig
from sim.family import TaskFamily
from sim.mujoco_family import MujocoFamily
from sim.snapshot import snapshot
from sim.trials import TrialEnv

Picture = NDArray[np.uint8]
"""(height, width, 3)"""

WIDTH, HEIGHT = 320, 240  # of a tile, in pixels
SHARPNESS = 2
"""Pictures are rendered this much larger and then reduced, for smooth edges."""
COLUMNS, GAP, LINE = 5, 16, 18
SECONDS, HELD_S = 1.0, 0.1
"""Of random motion, and how long each random action is held: shorter ones only tremble."""
INK, PAPER = (40, 44, 52), (255, 255, 255)
FONT_SIZE = 14


class Tile(NamedTuple):
    """A picture and the families that look like it."""

    names: list[str]
    image: Picture


def main(
    families: tyro.conf.Positional[tuple[str, ...]] = (),
    path: Path = Path("docs/gallery.png"),
    seed: int = 6,
) -> None:
    """Picture the task families.

    Args:
        families: which; all if none is given.
        path: where to write the picture.
        seed: of the tasks and the motion.
    """
    compose(tiles(families or tuple(sim.names()), seed)).save(path, optimize=True)
    print(f"wrote {path}")


def tiles(names: tuple[str, ...], seed: int = 6) -> list[Tile]:
    """A tile for every body or scene of the families `names`.

    Raises:
        InvalidConfig: offscreen rendering does not work here, or there is nothing to see.
    """
    found: dict[object, Tile] = {}
    for name in names:
        env = sim.make(name, 1, seed=seed)
        env.reset(seed=seed)
        key = _looks(env)
        if key in found:
            found[key].names.append(name)
        elif key is not None:
            _move(env, seed)
            found[key] = Tile([name], _image(env))
    if not found:
        raise InvalidConfig(f"none of {', '.join(names)} can be pictured")
    return list(found.values())


def _looks(env: TrialEnv) -> object | None:
    """Equal for families that look alike; None for one that cannot be pictured."""
    family = env.family
    if not isinstance(family, MujocoFamily):
        return type(family) if family.draw(env.world, 0) is not None else None
    model = env.world.model
    saved = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, saved)
    return saved.tobytes(), bool(family.markers(env.world, 0))


def _move(env: TrialEnv, seed: int) -> None:
    """A second of random motion; where the episode ends before, half as long as it lasted."""
    lasted = _motion(env, seed, round(SECONDS * env.family.control_hz))
    if lasted:
        _motion(env, seed, lasted // 2)


def _motion(env: TrialEnv, seed: int, steps: int) -> int | None:
    """So many steps of random motion; after how many the episode ended, if it did."""
    env.reset(seed=seed)
    family, rng = env.family, np.random.default_rng(seed)
    held = max(1, round(HELD_S * family.control_hz))
    low, high = np.array([(c.low, c.high) for c in family.action]).T
    action = np.zeros(len(family.action))
    for step in range(steps):
        if step % held == 0:
            action = rng.uniform(low, high)
        _, _, terminated, truncated, _ = env.step(action[None])
        if terminated[0] or truncated[0]:
            return step + 1
    return None


def _image(env: TrialEnv) -> Picture:
    """A tile's picture, (HEIGHT, WIDTH, 3)."""
    family: TaskFamily = env.family
    if isinstance(family, MujocoFamily):
        size = (WIDTH * SHARPNESS, HEIGHT * SHARPNESS)
        markers = family.markers(env.world, 0)
        image = snapshot(env.world, 0, size, markers, repaint=family.gymnasium_body is not None)
    else:
        image = family.draw(env.world, 0)
        assert image is not None  # as `_looks` saw
    reduced = Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return np.asarray(reduced)


def compose(shown: list[Tile]) -> Image.Image:
    """A grid of tiles with their families' names below each."""
    font = ImageFont.load_default(FONT_SIZE)
    captions = [_lines(tile.names, font) for tile in shown]
    columns = min(COLUMNS, len(shown))
    starts = range(0, len(shown), columns)
    heights = [HEIGHT + LINE * max(map(len, captions[s : s + columns])) + GAP for s in starts]
    grid = Image.new("RGB", (columns * (WIDTH + GAP) + GAP, sum(heights) + GAP), PAPER)
    pen = ImageDraw.Draw(grid)
    for i, (tile, lines) in enumerate(zip(shown, captions, strict=True)):
        row, column = divmod(i, columns)
        x, y = GAP + column * (WIDTH + GAP), GAP + sum(heights[:row])
        grid.paste(Image.fromarray(tile.image), (x, y))
        for k, line in enumerate(lines):
            centre = (x + WIDTH / 2, y + HEIGHT + LINE * (k + 0.6))
            pen.text(centre, line, fill=INK, font=font, anchor="mm")
    return grid


def _lines(names: list[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Names in lines no wider than a tile."""
    lines = [""]
    for name in names:
        longer = f"{lines[-1]}, {name}" if lines[-1] else name
        if font.getlength(longer) <= WIDTH:
            lines[-1] = longer
        else:
            lines[-1] += ","
            lines.append(name)
    return lines


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except AdaptdError as error:
        print(f"gallery: {error}", file=sys.stderr)
        sys.exit(2)
