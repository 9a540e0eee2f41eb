"""PEARL as an exported graph: its carry is the streaming posterior (Rakelly et al. 2019).

Each step makes the observation before, the action and reward since, and perhaps the observation
now, into one Gaussian factor, and acts as if a z of the posterior over the last K were the task.

    previous  [O + 1]   the observation before, and 1; zeros where there is none to go on from
    z         [L + 1]   what was acted on, and 1; zeros before the first step
    factors   [2 L, K]  means above variances, the newest first (`training.posterior`)
    tally     [2]       factors there are, up to K; transitions dropped
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from runtime.errors import InvalidConfig
from runtime.spec import BeliefSpec, CarrySpec, OptionSpec
from sim.family import TaskFamily
from training.exported_step import ExportedStep, Named
from training.networks import Carry
from training.pearl_networks import ContextPolicy
from training.posterior import DOUBT_WINDOW, Posterior


class PosteriorStep(ExportedStep):
    """One step of a policy that infers its task as a posterior over z."""

    algorithm = "pearl"

    def __init__(
        self,
        policy: ContextPolicy,
        family: TaskFamily,
        context: int | None = None,
        usual_disagreement: float = math.inf,
        sample_z: bool = False,
    ):
        """
        Args:
            policy: trained.
            family: it was trained on.
            context: K, the transitions that its posterior remembers; None: as many as it was
                trained with.
            usual_disagreement: of factors that tell of one task (`training.pearl_doubt`); above
                it, the belief is widened.
            sample_z: whether a session acts on samples, unless its operator says otherwise.

        Raises:
            InvalidConfig: K is more than it was trained with, or none.
        """
        super().__init__(family)
        self.policy = policy
        self.noise_size = policy.latent
        self.context_window = remembered = _checked(context, policy.context)
        self.carry = _carry(policy, remembered)
        self.usual_disagreement = usual_disagreement
        self.options = _options(remembered, sample_z)
        shape = [policy.latent]
        self.belief = [
            BeliefSpec(name="z_mean", shape=shape, role="mean", of="latent"),
            BeliefSpec(name="z_variance", shape=shape, role="variance", of="latent"),
            BeliefSpec(name="z_doubt", shape=[1], role="doubt", of="latent"),
        ]

    def step(self, given: Named) -> Named:
        """One step; the belief is the posterior's mean and variance, (B, L) each, and the doubt.

        Where the newest transitions contradict the older ones, as after a change of the task, the
        product of all is narrow and wrong. So z is of the newest alone (`Posterior.believed`), and
        the deviation that is told is that of the posterior times the doubt, (B, 1), as long as it
        is not wider than the prior's.
        """
        count, dropped = given["carry.tally"].split(1, -1)
        before = Posterior(given["carry.factors"], count)
        posterior, drops = self._take_in(before, given)
        mean, variance, doubt = posterior.believed(
            self.usual_disagreement, given["option.window"], given["option.doubt_window"]
        )
        z_before, acted = given["carry.z"].split([self.policy.latent, 1], -1)
        choose = given["prev_done"] >= acted  # an episode starts, or the first of all
        sampled = torch.where(choose, mean + variance.sqrt() * given["noise"], z_before)
        z = torch.where(given["option.sample_z"] > 0.5, sampled, mean)
        action, _ = self.policy.act(given["obs"], z)
        return {
            "action": self.bounded(action.tanh()),
            "next.previous": _and_one(given["obs"]),
            "next.z": _and_one(z),
            "next.factors": posterior.factors,
            "next.tally": torch.cat((posterior.count, dropped + drops), -1),
            "belief.z_mean": mean,
            "belief.z_variance": (variance * doubt.square()).clamp(max=1.0).maximum(variance),
            "belief.z_doubt": doubt,
        }

    def _take_in(self, posterior: Posterior, given: Named) -> tuple[Posterior, Tensor]:
        """The posterior with the transition that ended here, and 1 (B, 1) where it was dropped.

        A transition with a number that is not finite is dropped, as is one whose factor is not.
        Where an episode has ended, what followed its last step was not observed: an encoder that
        reads the next observation has nothing to go on.
        """
        observed, known = given["carry.previous"].split([self.observation_size, 1], -1)
        if self.policy.next_observation:
            known = known * (1 - given["prev_done"])
        told = (observed, given["prev_action"], given["prev_reward"], given["obs"])
        mean, variance = self.policy.encoder(self.policy.transition(*told))
        valid = (known > 0) & _all_finite(torch.cat((*told, mean, variance), -1))
        return posterior.add(mean, variance, valid), known - valid.to(known)

    def some_carry(self, batch: int, generator: torch.Generator) -> Carry:
        tensors = {c.name: torch.randn(batch, *c.shape, generator=generator) for c in self.carry}
        for name in ("previous", "z"):
            tensors[name][:, -1] = 1
        variances = tensors["factors"][:, self.policy.latent :]
        variances.copy_(variances.exp())
        tensors["tally"] = torch.tensor([[self.context_window, 0.0]]).repeat(batch, 1)
        return tensors


def _all_finite(values: Tensor) -> Tensor:
    """(B, N) to (B, 1): zero times NaN or infinity is NaN, and compares as false."""
    return (values * 0.0).sum(-1, keepdim=True) == 0


def _and_one(values: Tensor) -> Tensor:
    """(B, N) to (B, N + 1): 1 tells that there are values."""
    return functional.pad(values, (0, 1), value=1.0)


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
    nothing = [[0.0]] * latent + [[1.0]] * latent  # N(0, 1), for each of the K
    return [
        CarrySpec(
            name="previous",
            shape=[policy.observation_size + 1],
            dtype="float32",
            init=0.0,
            transient=True,
        ),
        CarrySpec(name="z", shape=[latent + 1], dtype="float32", init=0.0),
        CarrySpec(name="factors", shape=[2 * latent, context], dtype="float32", init=nothing),
        CarrySpec(name="tally", shape=[2], dtype="float32", init=0.0),
    ]


def _options(context: int, sample_z: bool) -> list[OptionSpec]:
    return [
        OptionSpec(
            name="window",
            default=context,
            low=1,
            high=context,
            help="Transitions, the newest, that the belief is made of.",
        ),
        OptionSpec(
            name="doubt_window",
            default=min(DOUBT_WINDOW, context),
            low=1,
            high=context,
            help=(
                "Transitions, the newest, that the belief is made of while they contradict older "
                "ones, as after a change of the task; as many as `window`: older ones count on."
            ),
        ),
        OptionSpec(
            name="sample_z",
            default=int(sample_z),
            low=0,
            high=1,
            help=(
                "0: act on the posterior's mean at every step. 1: on a sample of it, drawn as an "
                "episode starts and kept until the next one (Thompson sampling)."
            ),
        ),
    ]
