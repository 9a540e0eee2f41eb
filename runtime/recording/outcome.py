"""How a replay compared with its recording."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Difference(NamedTuple):
    """A tick that came out otherwise."""

    seq: int
    what: str
    by: float
    """Largest difference of an element of the action; nan where it is something else."""


@dataclass
class RerunReport:
    """How a replay compared."""

    session: int
    recorded: int
    """Ticks in the recording."""
    first_seq: int = 0
    """Of the first tick that was compared."""
    exact: int = 0
    """Ticks whose action, request, limits, policy generation and belief are the same bits."""
    differences: list[Difference] = field(default_factory=list)
    unchecked: list[tuple[int, int, str]] = field(default_factory=list)
    """First and last seq that could not be compared, and why."""
    filled: int = 0
    """Ticks that the recorder missed and a checkpoint knew."""
    checkpoints: int = 0
    """Checkpoints on the way whose carry was the replay's, to the bit ..."""
    checkpoints_differ: int = 0
    """... and those whose carry was not."""
    policies: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Ticks that were compared."""
        return self.exact + len(self.differences)

    @property
    def is_exact(self) -> bool:
        """Whether all that could be compared is the same, and that is something."""
        return self.exact > 0 and not self.differences and not self.checkpoints_differ
