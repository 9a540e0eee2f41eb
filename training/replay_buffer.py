"""Replay: the transitions of every training task in one piece of memory.

Shapes: ``M`` tasks asked for, ``N`` transitions of each, ``W`` numbers of a transition, ``O``
observation, ``A`` action.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where a transition's parts lie in its row."""

    observation: int
    action: int

    @property
    def width(self) -> int:
        """Numbers of a transition, W."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (self.observation, self.action, 1, 1, 1, self.observation)

    def split(self, rows: Tensor) -> "Transitions":
        """Views of rows (..., W)."""
        return Transitions(*rows.split(self._sizes, dim=-1))


@dataclass(frozen=True)
class Transitions:
    """Steps that were made, (..., size) each."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    """To learn from."""
    seen_reward: Tensor
    """What a robot would be paid (`TaskFamily.test_reward`): evidence of the task."""
    terminated: Tensor
    """1 where a terminal state was reached; running out of time is none."""
    next_observation: Tensor

    def rows(self) -> Tensor:
        """All parts side by side, (..., W)."""
        parts = (
            self.observation, self.action, self.reward, self.seen_reward, self.terminated,
            self.next_observation,
        )  # fmt: skip
        return torch.cat(parts, dim=-1)


class Replay:
    """A ring of the newest transitions of each task."""

    def __init__(self, tasks: int, capacity: int, width: int, device: str = "cpu"):
        """
        Args:
            tasks: how many have a ring.
            capacity: transitions per task.
            width: W.
            device: where the rows lie.
        """
        self.capacity = capacity
        self.rows = torch.zeros(tasks, capacity, width, device=device)
        self.added = torch.zeros(tasks, dtype=torch.int64, device=device)
        """Transitions added to each task, ever."""

    @property
    def filled(self) -> Tensor:
        """Transitions held of each task."""
        return self.added.clamp(max=self.capacity)

    def add(self, tasks: Tensor, rows: Tensor) -> None:
        """Take in rows (n, W) of the tasks (n,), those of one task in the order they were made."""
        order = torch.argsort(tasks, stable=True)
        tasks, rows = tasks[order], rows[order]
        counts = torch.bincount(tasks, minlength=len(self.added))
        first = counts.cumsum(0) - counts
        within = torch.arange(len(tasks), device=tasks.device) - first[tasks]
        kept = within >= counts[tasks] - self.capacity  # each slot is written once
        tasks, within = tasks[kept], within[kept]
        self.rows[tasks, (self.added[tasks] + within) % self.capacity] = rows[kept]
        self.added += counts

    def sample(self, tasks: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """N = `count` transitions of each of the tasks (M,), uniformly and with replacement.

        Returns:
            (M, N, W).
        """
        uniform = torch.rand(len(tasks), count, generator=generator, device=self.rows.device)
        return self._at(tasks, (uniform * self.filled[tasks].unsqueeze(1)).long())

    def stretches(self, tasks: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """`length` consecutive transitions of each of the tasks (M,), in the order they were made.

        Of a task that holds fewer, the newest is followed by the oldest.

        Returns:
            (M, length, W).
        """
        filled = self.filled[tasks].unsqueeze(1)
        room = (filled - length + 1).clamp(min=1)
        uniform = torch.rand(len(tasks), 1, generator=generator, device=self.rows.device)
        oldest = (self.added[tasks].unsqueeze(1) - filled) % self.capacity
        steps = (uniform * room).long() + torch.arange(length, device=self.rows.device)
        return self._at(tasks, (oldest + steps % filled) % self.capacity)

    def _at(self, tasks: Tensor, slots: Tensor) -> Tensor:
        """The rows in slots (M, N) of the tasks (M,)."""
        flat = (tasks.unsqueeze(1) * self.capacity + slots).flatten()
        chosen = self.rows.flatten(0, 1).index_select(0, flat)
        return chosen.view(*slots.shape, -1)

    def tensors(self) -> dict[str, Tensor]:
        """All that it holds; slots that were never written are left out."""
        return {"rows": self.rows[:, : max(1, int(self.filled.max()))], "added": self.added}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.rows[:, : tensors["rows"].shape[1]] = tensors["rows"]
        self.added.copy_(tensors["added"])
