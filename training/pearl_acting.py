"""PEARL as a robot acts by it, from what the robot itself observes, in either of its two modes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.acting import Acting, Actions
from training.pearl_networks import ContextPolicy
from training.posterior import Posterior
from training.trials import MetaInput


@dataclass(frozen=True)
class _Belief:
    """What B robots remember."""

    posterior: Posterior
    z: Tensor  # (B, L), what they act on
    previous: Tensor | None = None  # (B, O), the observation before; None at the start


def streaming(policy: ContextPolicy, robots: int) -> Acting:
    """On the posterior's mean, which moves with every transition; see `Posterior.believed`."""

    def act(obs: Tensor, meta: MetaInput, belief: _Belief) -> tuple[Actions, _Belief]:
        posterior = _taken_in(policy, belief, obs, meta)
        belief = _Belief(posterior, posterior.believed(policy.usual_disagreement)[0], obs)
        return _actions(policy, obs, belief.z), belief

    return Acting(act, _unaware(policy, robots, torch.zeros(robots, policy.latent)))


def sampled(policy: ContextPolicy, robots: int, seed: int) -> Acting:
    """On a sample of the posterior, drawn where an episode begins (Rakelly et al. 2019).

    The first episode's is of the prior.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(robots, policy.latent, generator=generator)

    def act(obs: Tensor, meta: MetaInput, belief: _Belief) -> tuple[Actions, _Belief]:
        posterior, began = _taken_in(policy, belief, obs, meta), meta.inputs()[2].bool()
        z = belief.z
        if began.any():
            mean, variance, _ = posterior.believed(policy.usual_disagreement)
            z = torch.where(began, mean + variance.sqrt() * noise(), z)
        return _actions(policy, obs, z), _Belief(posterior, z, obs)

    return Acting(act, _unaware(policy, robots, noise()))


def _unaware(policy: ContextPolicy, robots: int, z: Tensor) -> _Belief:
    return _Belief(Posterior.prior(robots, policy.context, policy.latent), z)


def _taken_in(policy: ContextPolicy, belief: _Belief, obs: Tensor, meta: MetaInput) -> Posterior:
    """The posterior after the transition that led to `obs`, if there is one."""
    if belief.previous is None:
        return belief.posterior
    action, reward, done = meta.inputs()
    mean, variance = policy.encoder(policy.transition(belief.previous, action, reward, obs))
    # What followed the last step of an episode, the robot did not see.
    seen = ~done.bool() if policy.next_observation else torch.ones_like(done, dtype=torch.bool)
    return belief.posterior.add(mean, variance, seen)


def _actions(policy: ContextPolicy, obs: Tensor, z: Tensor) -> Actions:
    return policy.act(obs, z)[0].tanh().numpy()
