"""Noise that replays: standard normal numbers that depend on (session, seq) alone."""

import numpy as np
from numpy.typing import NDArray


def step_noise(session: int, seq: int, size: int) -> NDArray[np.float32]:
    """The noise of one step, (1, size).

    A Philox generator (Salmon et al. 2011) keyed by the session, its counter set by the
    sequence number, so that a recording replayed gives the same actions.
    """
    bits = np.random.Philox(key=session, counter=[0, seq, 0, 0])
    return np.random.Generator(bits).standard_normal((1, size), np.float32)
