"""The networks' own tangent, against torch's."""

import pytest
import torch

from training.networks import Tanh


@pytest.fixture
def x():
    everywhere = torch.cat((torch.linspace(-12, 12, 2001), torch.tensor([-1e30, -0.0, 1e30])))
    return everywhere.requires_grad_()


def test_the_tangent_is_torchs_and_so_are_its_derivatives(x):
    ours, theirs = Tanh()(x), torch.tanh(x)
    torch.testing.assert_close(ours, theirs, atol=3e-7, rtol=0)
    with torch.no_grad():
        assert torch.equal(Tanh()(x), ours)
    weights = torch.linspace(1, 2, len(x))
    slopes = [
        torch.autograd.grad((y * weights).sum(), x, create_graph=True)[0] for y in (ours, theirs)
    ]
    torch.testing.assert_close(*slopes, atol=1e-6, rtol=0)
    curvatures = [torch.autograd.grad(slope.sum(), x)[0] for slope in slopes]
    torch.testing.assert_close(*curvatures, atol=3e-6, rtol=0)


def test_the_tangent_can_be_differentiated_per_sample(x):
    x = x.detach()
    slopes = torch.func.vmap(torch.func.grad(Tanh()))(x)
    torch.testing.assert_close(slopes, 1 - torch.tanh(x) ** 2, atol=1e-6, rtol=0)


def test_the_tangent_is_exported_as_one_operation():
    program = torch.export.export(Tanh(), (torch.zeros(2, 3),))
    operations = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert operations == [torch.ops.aten.tanh.default]
