"""A policy's memory rebuilt by stepping it through recent transitions."""

import time
from collections.abc import Sequence

import numpy as np

from runtime.companion import carry_before
from runtime.guard import all_finite
from runtime.history import Boundary, History
from runtime.memory import Bytes
from runtime.noise import step_noise
from runtime.policy import Arrays, Policy, Step

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
    prior, state = policy.initial_carry(), _arrays(policy, carry)
    names = [o.name for o in manifest.options]
    values = dict(zip(names, np.frombuffer(options, np.float32).tolist(), strict=True))
    for i, (seq, boundary, inputs) in enumerate(history.inputs()):
        if i % BURST == BURST - 1:
            time.sleep(PAUSE_S)
        (state,) = carry_before(manifest.boundaries, boundary, [state], [prior])
        if boundary & Boundary.FROZEN:
            continue
        if manifest.noise_size:
            inputs["noise"] = step_noise(session, seq, manifest.noise_size)
        step = policy.step(inputs, state, values)
        if is_finite(step):
            state = step.carry
    return [state[c.name].tobytes() for c in manifest.carry]


def _arrays(policy: Policy, carry: Sequence[Bytes]) -> Arrays:
    return {
        c.name: np.frombuffer(bytes(value), c.dtype).reshape(1, *c.shape)
        for c, value in zip(policy.manifest.carry, carry, strict=True)
    }
