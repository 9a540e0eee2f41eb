"""How wide a belief is, from its outputs as the tap has them."""

import math

import numpy as np

from runtime.spec import Manifest


def width(manifest: Manifest, belief: np.ndarray) -> float:
    """The mean standard deviation over a belief's variances, in the units of the task.

    `runtime.adaptation` takes the same measure, as a fraction of its value at the prior.

    Args:
        manifest: of the policy.
        belief: all belief outputs in the manifest's order, flattened.

    Returns:
        nan where the policy has no variance, or no step was made.
    """
    deviations, at = [], 0
    for output in manifest.belief:
        size = math.prod(output.shape)
        if output.role == "variance":
            deviations.append(np.sqrt(np.maximum(belief[at : at + size], 0)))
        at += size
    if len(belief) != at or not deviations:
        return math.nan
    return float(np.concatenate(deviations).mean())
