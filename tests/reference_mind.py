"""The reference's memory: a policy, its carry and what it has seen, as plain values.

Nothing here is changed in place, so that a copy of a session is a copy of references.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from runtime.messages import Adaptation
from runtime.noise import step_noise
from runtime.policy import Arrays, Policy

TASK, EPISODE, GAP, FROZEN = 1, 2, 4, 8


class Entry(NamedTuple):
    """One step's inputs and what lay before it."""

    seq: int
    boundary: int
    inputs: Arrays  # (1, ...) each


class Stepped(NamedTuple):
    """What a step gives, and the carry it began with."""

    action: np.ndarray  # (A,)
    carry: Arrays
    belief: Arrays
    began_with: Arrays
    fresh: bool
    finite: bool


@dataclass(frozen=True)
class Mind:
    """A policy with what it remembers of one session."""

    policy: Policy
    carry: Arrays
    history: tuple[Entry, ...] = ()
    """The ring: oldest first, no more than it holds."""
    previous: str = ""
    """The policy before this one."""
    good: Arrays | None = None

    @property
    def label(self) -> str:
        return self.policy.label

    def since_task(self) -> tuple[Entry, ...]:
        """The history from the last task boundary on."""
        starts = [i for i, entry in enumerate(self.history) if entry.boundary & TASK]
        return self.history[starts[-1] if starts else 0 :]

    def seeing(self, entry: Entry, ring: int) -> "Mind":
        """With one more entry in a ring of a size."""
        return replace(self, history=(*self.history, entry)[-ring:])

    def step(self, session: int, entry: Entry) -> Stepped:
        """One step, by the policy's own rules of boundaries."""
        manifest, rules = self.policy.manifest, self.policy.manifest.boundaries
        fresh = bool(
            entry.boundary & TASK
            or (entry.boundary & EPISODE and rules.episode == "prior")
            or (entry.boundary & GAP and rules.gap == "prior")
        )
        carry = self.policy.initial_carry() if fresh else self.carry
        inputs = dict(entry.inputs)
        if manifest.noise_size:
            inputs["noise"] = step_noise(session, entry.seq, manifest.noise_size)
        with np.errstate(all="ignore"):
            step = self.policy.step(inputs, carry)
        results = [step.action, *step.carry.values()]
        finite = all(np.isfinite(each).all() for each in results)
        return Stepped(step.action[0], step.carry, step.belief, carry, fresh, finite)

    def after(self, stepped: Stepped, frozen: bool) -> "Mind":
        """With the carry that a step leaves."""
        keeps = frozen or not stepped.finite
        return replace(self, carry=stepped.began_with if keeps else stepped.carry)


def replayed(policy: Policy, session: int, history: tuple[Entry, ...]) -> Mind:
    """A policy that has lived through a history from the prior on."""
    mind = Mind(policy, policy.initial_carry())
    for entry in history:
        mind = mind.after(mind.step(session, entry), bool(entry.boundary & FROZEN))
    return replace(mind, history=history)


class Mood(NamedTuple):
    """How adapted a session says it is."""

    status: int = Adaptation.UNADAPTED
    steps: int = 0

    def after(self, policy: Policy, stepped: Stepped) -> "Mood":
        """After a step of a policy whose belief has one variance."""
        if not stepped.finite:
            return self._replace(status=Adaptation.INVALID)
        assert policy.prior_belief is not None
        (name,) = (b.name for b in policy.manifest.belief)
        width = math.sqrt(stepped.belief[name].item())
        fraction = width / math.sqrt(policy.prior_belief[name].item())
        if fraction < 0.35 or (fraction < 0.5 and self.status == Adaptation.ADAPTED):
            status = Adaptation.ADAPTED
        else:
            status = Adaptation.ADAPTING if fraction < 0.8 else Adaptation.UNADAPTED
        return Mood(status, self.steps + 1)
