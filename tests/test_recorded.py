"""Steps that are recorded: without a GPU they are just made; with one they come out alike."""

import pytest
import torch

from training.pearl import PEARLTrainer
from training.pearl_config import ContextNetworkConfig, PEARLConfig, SACConfig
from training.ranks import Ranks
from training.recorded import Recorded


def test_without_a_gpu_it_only_calls():
    generator, made = torch.Generator().manual_seed(0), []

    def step():
        made.append(torch.rand(2, generator=generator))
        return made[-1]

    recorded = Recorded(step, generator)
    assert all(recorded() is made[-1] for _ in range(6)) and len(made) == 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_played_back_gradient_steps_are_those_that_are_made():
    def trained(play_back):
        network = ContextNetworkConfig(encoder_sizes=(16,), actor_sizes=(16,), critic_sizes=(16,))
        config = PEARLConfig(
            family="point-nav", device="cuda", threads=1, tasks=6, meta_batch=3, visits=4,
            gradient_steps=20, network=network, sac=SACConfig(batch=16),
        )  # fmt: skip
        trainer = PEARLTrainer(config, Ranks(device="cuda"))
        if not play_back:
            trainer.gradient_step = trainer._gradient_step
        for _ in range(3):
            trainer.iterate()
        return trainer.policy.state_dict()

    ours, theirs = trained(True), trained(False)
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-3, atol=1e-4, msg=name)
