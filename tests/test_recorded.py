"""Steps that are recorded: without a GPU they are just made (with one: benchmarks.gpu_pearl)."""

import pytest
import torch

from benchmarks.gpu_pearl import main
from training.recorded import Recorded


def test_without_a_gpu_it_only_calls():
    generator, made = torch.Generator().manual_seed(0), []

    def step():
        made.append(torch.rand(2, generator=generator))
        return made[-1]

    recorded = Recorded(step, generator)
    assert all(recorded() is made[-1] for _ in range(6)) and len(made) == 6


@pytest.mark.long
def test_the_comparison_of_both_ways_runs(capsys):
    main("point-nav", steps=2, repeats=1, device="cpu")
    assert "parameters agree: they differ by up to 0.0e+00" in capsys.readouterr().out
