"""What a method is to `training.train`: iterations that advance it, and all of its state."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from runtime.errors import TrainingDiverged
from training.config import RunConfig
from training.ranks import Ranks, check_parts


class MetaTrainer(ABC):
    """Training state of one run; `iterate` advances it, `tensors` and `facts` are all of it."""

    method: ClassVar[str]
    """The method's name on the command line."""

    def __init__(self, config: RunConfig, ranks: Ranks | None = None):
        """
        Args:
            config: of the run.
            ranks: this process among those that train; alone, and on the CPU, if not given.

        Raises:
            InvalidConfig: the simulations cannot be divided over that many ranks.
        """
        self.ranks = ranks = ranks or Ranks()
        check_parts(config, ranks.count)
        torch.set_num_threads(config.threads)
        # On the CPU this picks faster kernels; those with AMX round products to bfloat16.
        torch.set_float32_matmul_precision("medium")
        torch.manual_seed(config.seed)
        self.config = config
        self.iteration = 0
        self.env_steps = 0

    @property
    def finished(self) -> bool:
        """Whether the configured number of steps is reached."""
        return self.env_steps >= self.config.env_steps

    @abstractmethod
    def iterate(self) -> dict[str, float]:
        """Collect and learn once; what happened, by name.

        Raises:
            TrainingDiverged: a reward, observation, loss or gradient is not finite.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes in training and is an array; the same on all ranks."""

    def facts(self) -> dict[str, Any]:
        """Everything else: configuration and counters. Random streams follow from them."""
        return {
            "method": self.method,
            "config": self.config.model_dump(mode="json"),
            "iteration": self.iteration,
            "env_steps": self.env_steps,
        }

    def load(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on exactly where a checkpoint was taken, by however many ranks."""
        self.load_tensors(tensors)
        self.iteration, self.env_steps = facts["iteration"], facts["env_steps"]

    @abstractmethod
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""

    def check_parameters(self, policy: nn.Module) -> None:
        """
        Raises:
            TrainingDiverged: one of the policy's is not finite; names it.
        """
        for name, values in policy.named_parameters():
            if not torch.isfinite(values).all():
                raise self.diverged(f"the policy's {name}")

    def check_finite(self, found: Mapping[str, float]) -> None:
        """
        Raises:
            TrainingDiverged: one of these losses, or the `gradient`, is not finite; names it.
        """
        for name, value in found.items():
            if not math.isfinite(value):
                what = "the gradient's norm" if name == "gradient" else f"the {name} loss"
                raise self.diverged(what)

    def diverged(self, what: str) -> TrainingDiverged:
        """The error of something that is not finite."""
        return TrainingDiverged(
            f"{what} is not finite at iteration {self.iteration}, "
            f"{self.env_steps} environment steps in"
        )


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
