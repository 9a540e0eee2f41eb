"""PEARL's settings per task family: `fast`, our best, and `paper`, the published ones."""

import sim
from training.pearl_config import ContextNetworkConfig, PEARLConfig, SACConfig

_SMALL = ContextNetworkConfig(
    next_observation=True,
    encoder_sizes=(128, 128),
    actor_sizes=(256, 256),
    critic_sizes=(256, 256),
)

FEW_TASKS = {"halfcheetah-dir", "ant-dir", "ant-dir-1rad"}
"""Families of two tasks, which the published settings learn in smaller meta-batches."""

_TINY = ContextNetworkConfig(
    context=200,
    next_observation=True,
    encoder_sizes=(64, 64),
    actor_sizes=(64, 64),
    critic_sizes=(128, 128),
)

DYNAMICS = ("-rand-params", "+")
"""In the names of families whose bodies differ: what followed a step is evidence, too."""


def pearl_preset(family: str) -> PEARLConfig:
    """Smaller networks and batches than the published, and what simulation knows.

    An environment step costs a fraction of a gradient step here. So 1000 environment steps come
    with 200 gradient steps, where the published settings take 400 of four times the size; and
    the critics, which no robot needs, and the encoder's loss are told the task.
    """
    if sim.family(family).sparse_at_test:
        return _sparse(family)
    few = family in FEW_TASKS
    return PEARLConfig(
        family=family,
        meta_batch=4 if few else 16,
        visits=10,
        prior_episodes=1,
        posterior_episodes=1,
        gradient_steps=_gradient_steps(family),
        recent_steps=20_000 if few else 2000,
        privileged_critic=True,
        task_coef=1.0,
        kl_coef=0.02 if few else 0.005,
        network=_SMALL,
        # At full rate to the end, HalfCheetah-Dir was lost again after 660,000 steps.
        sac=SACConfig(
            batch=256 if few else 64, learning_rate=1e-3, final_learning_rate=0.1 if few else 1.0
        ),
    )


def _sparse(family: str) -> PEARLConfig:
    """Of a family whose robot is paid near the goal only: it must search, by samples of z.

    The mean of a belief that knows nothing yet is one place, and never found in another.
    """
    point = family.startswith("point")
    return PEARLConfig(
        family=family,
        env_steps=400_000 if point else 1_000_000,
        acting="sampled",
        visits=10,
        prior_episodes=2,
        posterior_episodes=4,
        gradient_steps=2 * _gradient_steps(family),
        recent_steps=2000,
        task_encoder=True,
        privileged_critic=True,
        task_coef=1.0,
        kl_coef=0.02,
        network=_TINY if point else _SMALL.model_copy(update={"context": 200}),
        sac=SACConfig(batch=64, learning_rate=1e-3),
    )


def _gradient_steps(family: str) -> int:
    """A fifth of the environment steps of 10 visits of two episodes."""
    return max(1, 2 * 10 * sim.family(family).horizon // 5)


def pearl_paper(family: str) -> PEARLConfig:
    """As published (Rakelly et al. 2019, and their released configurations).

    Families without published settings get those of HalfCheetah-Vel. It differs from theirs in
    that the critics' targets are slow critics instead of a slow state value, as in the later
    soft actor critic, in weights that begin orthogonal, and in that episodes that end early count
    as whole ones.
    """
    few = family in FEW_TASKS
    horizon = sim.family(family).horizon
    return PEARLConfig(
        family=family,
        env_steps=5_000_000 if few else 2_500_000,
        meta_batch=4 if few else 16,
        gradient_steps=1000 if few else 2000,
        visits=5,
        prior_episodes=max(1, round((1000 if few else 400) / horizon)),
        posterior_episodes=max(1, round(600 / horizon)),
        acting="sampled",
        initial_episodes=max(1, round(2000 / horizon)),
        replay_steps=5_000_000 if few else 2_500_000,
        recent_steps=1000 if few else 400,
        recent_posterior=False,
        varied_context=False,
        kl_coef=0.1,
        network=ContextNetworkConfig(
            context=256 if few else 100,
            next_observation=any(part in family for part in DYNAMICS),
            normalise=False,
        ),
        sac=SACConfig(batch=256, temperature=1.0),
    )
