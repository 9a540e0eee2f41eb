"""What a simulator says must be numbers."""

import numpy as np
from numpy.typing import NDArray

from sim.trials import TrialEnv

NAMED = 5
"""Simulations that an error names; of more it says how many."""


def check_simulated(env: TrialEnv, step: int, what: str, values: NDArray) -> None:
    """See whether all that was simulated is finite.

    Args:
        env: which said it.
        step: of the trial.
        what: it is.
        values: (B, ...).

    Raises:
        FloatingPointError: some are not; names the simulations and their tasks.
    """
    if np.isfinite(values.sum()):
        return
    finite = np.isfinite(values).reshape(len(values), -1).all(1)
    if finite.all():  # each is, and only their sum is beyond what a float holds
        return
    bad = np.flatnonzero(~finite)
    named = [f"{i}{_task_of(env, i)}" for i in bad[:NAMED]]
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    raise FloatingPointError(
        f"at step {step} of the trial, in simulation {', '.join(named)}{more}, "
        f"the simulator's {what}"
    )


def _task_of(env: TrialEnv, simulation: np.intp) -> str:
    values = [f"{name} {float(value[simulation]):.4g}" for name, value in env.tasks.items()]
    return f" ({', '.join(values)})" if values else ""
