"""Who acts when, where several groups of simulations wait for one policy.

A GPU that infers leaves the CPU idle, and physics on the CPU leaves the GPU idle. With two groups
both work: while the policy infers for one, the other is simulated (double buffering, as in
Petrenko et al. 2020, Sample Factory).
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol


class Group(Protocol):
    """Simulations that step together; `infer` and `simulate` are called in turn, first `infer`."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        ...

    def infer(self) -> None:
        """Choose the next actions. May leave work under way on a GPU."""

    def simulate(self) -> None:
        """Make the step with the actions chosen last; waits for them."""


def one_after_the_other(groups: Sequence[Group]) -> None:
    """Finish each group before the next begins."""
    for group in groups:
        while not group.finished:
            group.infer()
            group.simulate()


def alternate(groups: Sequence[Group]) -> None:
    """Finish all groups, one of which is simulated while this thread infers for the others.

    One thread simulates, so that groups never fight for cores; it is gone when this returns.

    Raises:
        Exception: whatever `simulate` raises, as itself; the other groups stay where they then are.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="simulate")
    try:
        waiting = deque(group for group in groups if not group.finished)
        under_way = deque()
        while waiting or under_way:
            if waiting:
                group = waiting.popleft()
                group.infer()
                under_way.append((group, pool.submit(group.simulate)))
            else:
                group, step = under_way.popleft()
                step.result()
                if not group.finished:
                    waiting.append(group)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
