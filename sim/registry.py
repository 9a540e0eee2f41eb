"""The names under which task families are found."""

from collections.abc import Callable

from runtime.errors import UnknownName
from sim.families.bandit import Bandit
from sim.families.grid_nav import GridNav
from sim.families.halfcheetah import HalfCheetahDir, HalfCheetahVel
from sim.families.maze2d import Maze2D
from sim.families.point import PointNav, PointSparse
from sim.family import TaskFamily

_FAMILIES: dict[str, Callable[[], TaskFamily]] = {
    "halfcheetah-vel": HalfCheetahVel,
    "halfcheetah-vel-0to2": lambda: HalfCheetahVel("halfcheetah-vel-0to2", high=2.0),
    "halfcheetah-dir": HalfCheetahDir,
    "bandit": Bandit,
    "bandit-5": lambda: Bandit("bandit-5", arms=5, horizon=100),
    "bandit-10": lambda: Bandit("bandit-10", arms=10, horizon=100),
    "grid-nav": GridNav,
    "maze2d": Maze2D,
    "point-nav": PointNav,
    "point-sparse": PointSparse,
}


def register(name: str, build: Callable[[], TaskFamily]) -> None:
    """Add a family under a name; `build` makes it."""
    _FAMILIES[name] = build


def names() -> list[str]:
    """The names of all registered families."""
    return sorted(_FAMILIES)


def family(name: str) -> TaskFamily:
    """The task family of that name.

    Raises:
        UnknownName: with the families that exist and the nearest name.
        InvalidTask: the family cannot be trained on and evaluated.
    """
    if name not in _FAMILIES:
        raise UnknownName("task family", name, names())
    return _FAMILIES[name]()
