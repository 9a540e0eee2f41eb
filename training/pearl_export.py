"""PEARL as an exported graph: its carry is the streaming posterior (Rakelly et al. 2019).

Each step makes the observation before, the action and reward since, and perhaps the observation
now, into one Gaussian factor, and acts as if a z of the posterior over the last K were the task.

    previous  [O + 1]   the observation before, and 1; zeros where there is none to go on from
    z         [L]       acted on
    factors   [K, 2 L]  means, then variances, the newest first (`training.posterior`)
    tally     [3]       factors there are, up to K; transitions dropped; 1 once z was chosen
"""

import torch
from torch import Tensor

from runtime.errors import InvalidConfig
from runtime.spec import BeliefSpec, CarrySpec, OptionSpec
from sim.family import TaskFamily
from training.exported_step import ExportedStep, Named
from training.networks import Carry
from training.pearl_networks import ContextPolicy
from training.posterior import Posterior


class PosteriorStep(ExportedStep):
    """One step of a policy that infers its task as a posterior over z."""

    algorithm = "pearl"

    def __init__(self, policy: ContextPolicy, family: TaskFamily, context: int | None = None):
        """
        Args:
            policy: trained.
            family: it was trained on.
            context: K, the transitions that its posterior remembers; None: as many as it was
                trained with.

        Raises:
            InvalidConfig: K is more than it was trained with, or none.
        """
        super().__init__(family)
        self.policy = policy
        self.noise_size = policy.latent
        self.context_window = _checked(context, policy.context)
        self.carry = _carry(policy, self.context_window)
        self.options = _options(self.context_window)
        shape = [policy.latent]
        self.belief = [
            BeliefSpec(name="z_mean", shape=shape, role="mean", of="latent"),
            BeliefSpec(name="z_variance", shape=shape, role="variance", of="latent"),
        ]

    def step(self, given: Named) -> Named:
        """One step; the belief is the posterior's mean and variance, (B, L) each."""
        obs, tally = given["obs"], given["carry.tally"]
        before = Posterior(given["carry.factors"], tally[:, :1])
        posterior, dropped = self._take_in(before, given)
        mean, variance = posterior.mean_and_variance(given["option.window"])
        sample = mean + variance.sqrt() * given["noise"]
        choose = (given["prev_done"] > 0) | (tally[:, 2:] == 0)
        sampled = torch.where(choose, sample, given["carry.z"])
        z = torch.where(given["option.sample_z"] > 0.5, sampled, mean)
        action, _ = self.policy.act(obs, z)
        one = torch.ones_like(dropped)
        return {
            "action": self.bounded(action.tanh()),
            "next.previous": torch.cat((obs, one), -1),
            "next.z": z,
            "next.factors": posterior.factors,
            "next.tally": torch.cat((posterior.count, tally[:, 1:2] + dropped, one), -1),
            "belief.z_mean": mean,
            "belief.z_variance": variance,
        }

    def _take_in(self, posterior: Posterior, given: Named) -> tuple[Posterior, Tensor]:
        """The posterior with the transition that ended here, and 1 (B, 1) where it was dropped.

        A transition with a number that is not finite is dropped, as is one whose factor is not.
        Where an episode has ended, what followed its last step was not observed: an encoder that
        reads the next observation has nothing to go on.
        """
        previous = given["carry.previous"]
        observed, known = previous[:, :-1], previous[:, -1:] > 0
        if self.policy.next_observation:
            known = known & (given["prev_done"] == 0)
        told = (observed, given["prev_action"], given["prev_reward"], given["obs"])
        mean, variance = self.policy.encoder(self.policy.transition(*told))
        finite = _all_finite(torch.cat((*told, mean, variance), -1))
        dropped = (known & ~finite).to(mean.dtype)
        return posterior.add(mean, variance, known & finite), dropped

    def some_carry(self, batch: int, generator: torch.Generator) -> Carry:
        tensors = {c.name: torch.randn(batch, *c.shape, generator=generator) for c in self.carry}
        tensors["previous"][:, -1] = 1
        latent, context = self.policy.latent, self.context_window
        assert context is not None
        tensors["factors"][..., latent:] = tensors["factors"][..., latent:].exp()
        count = torch.randint(context + 1, (batch, 1), generator=generator)
        tensors["tally"] = torch.cat((count, torch.zeros_like(count), torch.ones_like(count)), -1)
        tensors["tally"] = tensors["tally"].float()
        return tensors


def _all_finite(values: Tensor) -> Tensor:
    """(B, N) to (B, 1): zero times NaN or infinity is NaN, and compares as false."""
    return (values * 0.0).sum(-1, keepdim=True) == 0


def _checked(context: int | None, trained: int) -> int:
    """K, within what a policy was trained with."""
    if context is None:
        return trained
    if not 1 <= context <= trained:
        raise InvalidConfig(
            f"a context of {context} transitions: the policy was trained with {trained}, and a "
            f"posterior of more would be surer than it has learnt to be; expected 1 to {trained}"
        )
    return context


def _carry(policy: ContextPolicy, context: int) -> list[CarrySpec]:
    latent = policy.latent
    nothing = [[0.0] * latent + [1.0] * latent] * context
    return [
        CarrySpec(
            name="previous",
            shape=[policy.observation_size + 1],
            dtype="float32",
            init=0.0,
            transient=True,
        ),
        CarrySpec(name="z", shape=[latent], dtype="float32", init=0.0),
        CarrySpec(name="factors", shape=[context, 2 * latent], dtype="float32", init=nothing),
        CarrySpec(name="tally", shape=[3], dtype="float32", init=0.0),
    ]


def _options(context: int) -> list[OptionSpec]:
    return [
        OptionSpec(
            name="window",
            default=context,
            low=1,
            high=context,
            help="Transitions, the newest, that the belief is made of.",
        ),
        OptionSpec(
            name="sample_z",
            default=0,
            low=0,
            high=1,
            help=(
                "0: act on the posterior's mean at every step. 1: on a sample of it, drawn as an "
                "episode starts and kept until the next one (Thompson sampling)."
            ),
        ),
    ]
