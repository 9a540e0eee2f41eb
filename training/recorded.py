"""A step that is made many times: on a GPU it is recorded once, and played back from then on.

A gradient step on a GPU is hundreds of small kernels, each started by Python. A CUDA graph starts
all of them at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

EAGER_STEPS = 3
"""Made as they are before one is recorded, so that libraries and optimisers are set up."""


class Recorded:
    """Calls a step; on a GPU, after `EAGER_STEPS` calls, as a CUDA graph.

    What the step reads and changes must stay where it is in memory, and it must not wait for the
    GPU. Elsewhere than on a GPU this only calls it.
    """

    def __init__(self, step: Callable[[], Tensor], generator: torch.Generator):
        """
        Args:
            step: makes it; its result is overwritten by the next one.
            generator: the only one that it draws from; says which device this is about.
        """
        self.step, self.generator = step, generator
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> Tensor:
        """Make the step; its result."""
        if self.generator.device.type != "cuda":
            return self.step()
        self.calls += 1
        if self.calls <= EAGER_STEPS:
            return self._aside()
        if self.graph is None:
            self.graph = self._record()
        self.graph.replay()
        return self.result

    def _aside(self) -> Tensor:
        """On a stream of its own, as recording asks of the steps before it."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            result = self.step()
        here.wait_stream(aside)
        return result

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph):
            self.result = self.step()
        return graph
