"""The networks' own tangent and GRU, against torch's."""

import pytest
import torch
from torch import nn

from training.gru import GRU
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


@pytest.mark.parametrize(("steps", "sequences"), [(1, 3), (7, 5), (50, 1)])
def test_the_gru_is_torchs_and_so_are_its_gradients(steps, sequences):
    torch.manual_seed(0)
    theirs = nn.GRU(4, 6).double()
    ours = GRU(4, 6).double()
    ours.load_state_dict(theirs.state_dict())
    x, state = torch.randn(steps, sequences, 4), torch.randn(1, sequences, 6)
    weights = torch.randn(steps, sequences, 6).double(), torch.randn(1, sequences, 6).double()
    found = []
    for gru in (ours, theirs):
        inputs = [v.double().requires_grad_() for v in (x, state)]
        results = gru(*inputs)
        total = sum((w * y).sum() for w, y in zip(weights, results, strict=True))
        found.append([*results, *torch.autograd.grad(total, [*inputs, *gru.parameters()])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)
    with torch.no_grad():
        results = ours(x.double(), state.double())
    torch.testing.assert_close(results, tuple(found[0][:2]), atol=1e-12, rtol=1e-10)


def test_what_follows_the_last_state_alone_reaches_the_gru():
    """And no gradient is asked of an input that is data."""
    torch.manual_seed(0)
    gru, x = GRU(2, 3), torch.randn(5, 4, 2)
    _, last = gru(x, torch.zeros(1, 4, 3))
    slope = torch.autograd.grad(last.sum(), gru.weight_ih_l0)[0]
    _, theirs = nn.GRU.forward(gru, x, torch.zeros(1, 4, 3))
    expected = torch.autograd.grad(theirs.sum(), gru.weight_ih_l0)[0]
    torch.testing.assert_close(slope, expected)


@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights")  # torch's own
def test_the_gru_is_exported_as_one_operation():
    program = torch.export.export(GRU(2, 3), (torch.zeros(2, 2, 2), torch.zeros(1, 2, 3)))
    operations = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.aten.gru.input in operations
