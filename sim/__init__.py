"""Task families on MuJoCo, batched, and a simulated robot that talks to adaptd.

>>> import sim
>>> env = sim.make("halfcheetah-vel", num_envs=256, num_threads=2, seed=0)
"""

from collections.abc import Callable

from runtime.errors import UnknownName
from sim.headless import choose_renderer

choose_renderer()  # before anything below imports mujoco

from sim.bandit import Bandit  # noqa: E402
from sim.family import TaskFamily  # noqa: E402
from sim.halfcheetah import HalfCheetahDir, HalfCheetahVel  # noqa: E402
from sim.trials import TrialEnv  # noqa: E402

_FAMILIES: dict[str, Callable[[], TaskFamily]] = {
    "halfcheetah-vel": HalfCheetahVel,
    "halfcheetah-vel-0to2": lambda: HalfCheetahVel("halfcheetah-vel-0to2", high=2.0),
    "halfcheetah-dir": HalfCheetahDir,
    "bandit": Bandit,
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
    """
    if name not in _FAMILIES:
        raise UnknownName("task family", name, names())
    return _FAMILIES[name]()


def make(
    name: str,
    num_envs: int = 1,
    num_threads: int = 1,
    seed: int = 0,
    episodes: int | None = None,
) -> TrialEnv:
    """A batched environment of the family `name`.

    Args:
        name: a registered family, see `names`.
        num_envs: simulations stepped together.
        num_threads: threads that step them, 0 for all cores; the result does not depend on it.
        seed: of tasks, start states and noise.
        episodes: episodes per trial; None takes the family's own.

    Raises:
        UnknownName: there is no such family.
        InvalidTask: a count below one.
    """
    return TrialEnv(family(name), num_envs, num_threads, seed, episodes)
