"""Task families on MuJoCo, batched, and a simulated robot that talks to adaptd.

>>> import sim
>>> env = sim.make("halfcheetah-vel", num_envs=256, num_threads=2, seed=0)
"""

from collections.abc import Sequence

from sim.headless import choose_renderer

choose_renderer()  # before anything below imports mujoco

from sim.change import Change  # noqa: E402
from sim.registry import family, listing, names, register  # noqa: E402
from sim.trials import TrialEnv  # noqa: E402

__all__ = ["Change", "TrialEnv", "family", "listing", "make", "names", "register"]


def make(
    name: str,
    num_envs: int = 1,
    num_threads: int = 1,
    seed: int = 0,
    episodes: int | None = None,
    changes: Change | Sequence[Change] = (),
    testing: bool = False,
) -> TrialEnv:
    """A batched environment of the family `name`.

    Args:
        name: a registered family, see `names`.
        num_envs: simulations stepped together.
        num_threads: threads that step them, 0 for all cores; the result does not depend on it.
        seed: of tasks, start states and noise.
        episodes: episodes per trial; None takes the family's own.
        changes: of the task inside a trial.
        testing: pay the family's `test_reward` where it has one, as a robot would be, and let
            changes redraw held-out tasks.

    Raises:
        UnknownName: there is no such family.
        InvalidTask: a count below one, a family that cannot be trained on and evaluated, or
            a change that cannot happen.
    """
    return TrialEnv(family(name), num_envs, num_threads, seed, episodes, changes, testing)
