"""Memoryless references: one policy that is told the task, one that is not.

The task-conditioned policy is what the literature calls the oracle or multi-task policy
(Zintgraf et al. 2020; Humplik et al. 2019): no adaptation is needed where the task is known,
so its return is what a method that adapts aims at. The same network, not told, is the best
behaviour that ignores the task. Both are trained together by PPO: a share of the trials is
told, the others see zeros, and a flag says which. How far they lie apart says how much a
family needs adaptation.
"""

import torch
from torch import Tensor, nn

import sim
from training.config import MultitaskConfig
from training.networks import Carry, RunningNormaliser, TrialPolicy, mlp
from training.trainer import TrialTrainer


class TaskConditionedPolicy(TrialPolicy):
    """Gaussian policy on the observation and on what its carry says of the task.

    The carry never changes: ``task`` (B, D + 1) holds the task's features and a one, or
    nothing but zeros. Shapes as in `training.networks`.
    """

    def __init__(self, config: MultitaskConfig, obs_size: int, action_size: int, task_size: int):
        super().__init__()
        self.told_share = config.told_share
        self.feature_size = task_size + 1
        self.obs_normaliser = RunningNormaliser(obs_size)
        self.reward_normaliser = RunningNormaliser(1)
        sizes = config.hidden_sizes
        self.action_head = mlp((self.feature_size + obs_size, *sizes, action_size), 0.01)
        self.value_head = mlp((2 * task_size + 1 + obs_size, *sizes, 1), output_gain=1.0)
        self.log_std = nn.Parameter(torch.full((action_size,), config.initial_log_std))

    def initial(self, task: Tensor) -> Carry:
        told = torch.zeros(len(task), 1, device=self.log_std.device)
        told[: round(self.told_share * len(task))] = 1.0
        return self.told(task, told)

    def told(self, task: Tensor, told: Tensor) -> Carry:
        """The carry of B robots with the task features (B, D), of which `told` (B, 1) know them."""
        return {"task": torch.cat((task * told, told), dim=1)}

    def remember(
        self, obs: Tensor, prev_action: Tensor, prev_reward: Tensor, prev_done: Tensor, carry: Carry
    ) -> tuple[Tensor, Tensor, Carry]:
        return carry["task"].expand(len(obs), -1, -1), self.obs_normaliser(obs), carry

    def action_mean(self, features: Tensor, seen: Tensor) -> Tensor:
        return self.action_head(torch.cat((features, seen), dim=-1))

    def value(self, features: Tensor, seen: Tensor, task: Tensor) -> Tensor:
        return self.value_head(torch.cat((features, seen, task), dim=-1)).squeeze(-1)


class MultitaskTrainer(TrialTrainer):
    """Training state of one run of the two references."""

    method = "multitask"
    config: MultitaskConfig
    policy: TaskConditionedPolicy

    def build_policy(self) -> TaskConditionedPolicy:
        family = sim.family(self.config.family)
        return TaskConditionedPolicy(
            self.config,
            obs_size=len(family.observation),
            action_size=len(family.action),
            task_size=len(family.task_parameters),
        )
