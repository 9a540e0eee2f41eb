"""Small pictures of families without physics, painted with numpy alone."""

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 240
Colour = tuple[int, int, int]
Pair = tuple[float, float] | NDArray[np.floating]

PAPER: Colour = (246, 244, 239)
FLOOR: Colour = (226, 223, 214)
INK: Colour = (122, 122, 128)
GOAL: Colour = (226, 120, 48)
ROBOT: Colour = (38, 92, 153)


class Canvas:
    """The rectangle from `low` to `high` of the plane, y upwards, as large as fits in `image`."""

    def __init__(self, low: Pair, high: Pair):
        low, high = np.asarray(low, float), np.asarray(high, float)
        self.pixel = float(max((high - low) / (WIDTH, HEIGHT)))
        """Side of a pixel in units of the plane."""
        centre = (low + high) / 2
        self._x = centre[0] + self.pixel * (np.arange(WIDTH) + 0.5 - WIDTH / 2)[None, :]
        self._y = centre[1] - self.pixel * (np.arange(HEIGHT) + 0.5 - HEIGHT / 2)[:, None]
        self._rgb = np.full((HEIGHT, WIDTH, 3), PAPER, dtype=float)

    @property
    def image(self) -> NDArray[np.uint8]:
        """What has been painted, (240, 320, 3)."""
        return self._rgb.round().astype(np.uint8)

    def rectangle(self, low: Pair, high: Pair, colour: Colour) -> None:
        """Fill the rectangle between two corners."""
        x = np.maximum(low[0] - self._x, self._x - high[0])
        y = np.maximum(low[1] - self._y, self._y - high[1])
        self._fill(np.maximum(x, y), colour)

    def disc(self, centre: Pair, radius: float, colour: Colour) -> None:
        """Fill a disc."""
        self._fill(np.hypot(self._x - centre[0], self._y - centre[1]) - radius, colour)

    def ring(self, centre: Pair, radius: float, colour: Colour) -> None:
        """Draw a circle, two pixels wide."""
        distance = np.hypot(self._x - centre[0], self._y - centre[1])
        self._fill(np.abs(distance - radius) - self.pixel, colour)

    def _fill(self, distance: NDArray[np.float64], colour: Colour) -> None:
        """Paint where the signed distance to a shape's edge is negative, smooth at the edge."""
        cover = np.clip(0.5 - distance / self.pixel, 0, 1)[:, :, None]
        self._rgb += cover * (np.asarray(colour) - self._rgb)
