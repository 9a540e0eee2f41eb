"""RL2 as an exported graph: its carry is the hidden state, its belief is about the task."""

import torch
from torch import Tensor

from runtime.spec import BeliefSpec, CarrySpec
from sim.family import TaskFamily
from training.exported_step import ExportedStep, Named
from training.networks import Carry, RecurrentPolicy


class RecurrentStep(ExportedStep):
    """One step of a recurrent policy."""

    algorithm = "rl2"
    task_middle: Tensor
    task_scale: Tensor

    def __init__(self, policy: RecurrentPolicy, family: TaskFamily):
        super().__init__(family)
        self.policy = policy
        low = torch.tensor([p.low for p in family.task_parameters])
        high = torch.tensor([p.high for p in family.task_parameters])
        self.register_buffer("task_middle", (low + high) / 2)
        self.register_buffer("task_scale", (high - low) / 2)
        self.carry = [
            CarrySpec(name=name, shape=[policy.memory.size], dtype="float32", init=0.0)
            for name in policy.memory.names
        ]
        tasks = [len(family.task_parameters)]
        self.belief = [
            BeliefSpec(name="task_mean", shape=tasks, role="mean"),
            BeliefSpec(name="task_variance", shape=tasks, role="variance"),
        ]

    def step(self, given: Named) -> Named:
        """One step; the belief is in the units of the task."""
        state = {c.name: given[f"carry.{c.name}"] for c in self.carry}
        features, seen, after = self.policy.step(
            given["obs"], given["prev_action"], given["prev_reward"], given["prev_done"], state
        )
        belief, log_variance = self.policy.belief(features)
        return {
            "action": self.bounded(self.policy.action_mean(features, seen)),
            **{f"next.{name}": value for name, value in after.items()},
            "belief.task_mean": self.task_middle + belief * self.task_scale,
            "belief.task_variance": log_variance.exp() * self.task_scale**2,
        }

    def some_carry(self, batch: int, generator: torch.Generator) -> Carry:
        return {c.name: 0.1 * torch.randn(batch, *c.shape, generator=generator) for c in self.carry}
