"""How much the evidence of one task disagrees with itself, so that a change of task stands out.

Factors of one task scatter more than their variances say, as consecutive transitions are not
independent. So the chi-square of `Posterior.disagreement` is held against what it is where no task
changes: on training tasks, as the policy streams.
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor

import sim
from sim.family import TaskFamily
from training.pearl_networks import ContextPolicy
from training.pearl_play import Episode, Way, play
from training.posterior import Posterior
from training.replay_buffer import Layout

TASKS = 32
TASKS_STREAM = 0xD0B7
"""Key of the random stream that they are drawn from."""
QUANTILE = 0.99
"""One step in a hundred of an unchanged task may look a little doubtful."""


def calibrated(policy: ContextPolicy, family: TaskFamily, threads: int = 1) -> ContextPolicy:
    """The policy, on the CPU, knowing the usual disagreement of its evidence."""
    known = copy.copy(policy)
    known.usual_disagreement = usual_disagreement(policy, family, policy.context, threads)
    return known


def usual_disagreement(
    policy: ContextPolicy, family: TaskFamily, context: int, threads: int = 1, seed: int = 0
) -> float:
    """The 99 % quantile of the disagreement where no task changes, once K transitions are known.

    Fewer transitions, as at a start, differ more: a robot that stands still and then runs.

    Args:
        policy: trained, on the CPU.
        family: it was trained on.
        context: K, the transitions that are remembered.
        threads: of the simulator.
        seed: of tasks, start states and noise.

    Returns:
        At least 1, to three digits; infinity where episodes end so early that K transitions
        never came together.
    """
    rng = np.random.default_rng([seed, TASKS_STREAM])
    count = 1 + math.ceil(2 * context / family.horizon)
    ways: list[Way] = ["streaming"] * count
    env = sim.make(family.name, TASKS, threads, seed, count)
    env.np_random = rng
    noise = torch.Generator().manual_seed(seed)
    episodes = play(env, policy, family.sample(rng, TASKS), ways, noise)
    found = _disagreements(policy, episodes, context)
    if not len(found):  # episodes end so early that K transitions never come together
        return math.inf
    return max(1.0, float(f"{np.quantile(found.numpy(), QUANTILE):.3g}"))


def _disagreements(policy: ContextPolicy, episodes: list[Episode], context: int) -> Tensor:
    """Of each step after which K transitions are known, in one row."""
    posterior = Posterior.prior(TASKS, context, policy.latent)
    layout, found = Layout(policy.observation_size, policy.action_size), []
    for episode in episodes:
        for rows, made in zip(episode.rows, episode.made, strict=True):
            step = layout.split(rows)
            parts = (step.observation, step.action, step.seen_reward, step.next_observation)
            with torch.no_grad():
                factor = policy.encoder(policy.transition(*parts))
            posterior = posterior.add(factor[0], factor[1], made.unsqueeze(1))
            mean, _ = posterior.mean_and_variance()
            full = posterior.count.squeeze(1) == context
            found.append(posterior.disagreement(mean)[made & full])
    return torch.cat(found).squeeze(1)
