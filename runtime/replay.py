"""A policy's memory rebuilt by stepping it through recent transitions."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.companion import carry_before
from runtime.guard import all_finite
from runtime.history import Boundary, History
from runtime.memory import Bytes
from runtime.noise import step_noise
from runtime.policy import Policy, Step

BURST, PAUSE_S = 16, 0.0002
"""Steps between pauses, and their length: where cores are few, a tick need not wait for
a long replay. A tick's own few steps are below a burst."""


def is_finite(step: Step) -> bool:
    """Whether a step's action may be considered and its carry remembered."""
    return all_finite(step.action) and all(map(all_finite, step.carry.values()))


@np.errstate(invalid="ignore", over="ignore")
def replay(
    policy: Policy, session: int, history: History, carry: Sequence[Bytes], options: bytes
) -> list[bytes]:
    """The carry that a policy has after transitions, by the rules of the tick.

    Args:
        policy: may be in use by other threads.
        session: for the noise.
        history: oldest first.
        carry: bytes of each tensor before them, in the manifest's order.
        options: float32 values.
    """
    manifest = policy.manifest
    names = [c.name for c in manifest.carry]
    prior, state = list(policy.initial_carry().values()), _arrays(policy, carry)
    options_by_name = [o.name for o in manifest.options]
    values = dict(zip(options_by_name, np.frombuffer(options, np.float32).tolist(), strict=True))
    for i, (seq, boundary, inputs) in enumerate(history.inputs()):
        if i % BURST == BURST - 1:
            time.sleep(PAUSE_S)
        state = carry_before(manifest.boundaries, boundary, state, prior, manifest.transient)
        if boundary & Boundary.FROZEN:
            continue
        if manifest.noise_size:
            inputs["noise"] = step_noise(session, seq, manifest.noise_size)
        step = policy.step(inputs, dict(zip(names, state, strict=True)), values)
        if is_finite(step):
            state = list(step.carry.values())
    return [value.tobytes() for value in state]


def _arrays(policy: Policy, carry: Sequence[Bytes]) -> Sequence[NDArray[Any]]:
    return [
        np.frombuffer(bytes(value), c.dtype).reshape(1, *c.shape)
        for c, value in zip(policy.manifest.carry, carry, strict=True)
    ]
