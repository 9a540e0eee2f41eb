"""torch's GRU, faster to train on a CPU.

torch adds every step's share of the weights' gradient by a product of its own. Here the steps
only pass on the gradient of the state, and one product over all steps gives that of the weights;
and the tangent is made from a sigmoid (`training.networks.Tanh`).

Shapes: ``T`` steps, ``N`` sequences, ``I`` input, ``H`` state. Gates come in torch's order:
reset, update, new. With the gates' input side a = W_i x + b_i and state side c = W_h h + b_h:
r = sigmoid(a_r + c_r), z = sigmoid(a_z + c_z), n = tanh(a_n + r c_n), h' = (1 - z) n + z h
(Cho et al. 2014, as cuDNN has it).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GRU(nn.GRU):
    """One layer of `torch.nn.GRU`, with its parameters and, to rounding, its results.

    Elsewhere than on a CPU, and in what is exported, it is torch's own. On a CPU it can be
    differentiated once.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch calls them input, hx)
        self, x: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (T, N, I) and state (1, N, H), to the states after each step and after the last."""
        if not x.is_cpu or torch.compiler.is_exporting():
            return super().forward(x, state)
        weights = self.all_weights[0]
        if len(x) == 1 and not torch.is_grad_enabled():
            only = torch.gru_cell(x[0], state[0], *weights).unsqueeze(0)
            return only, only
        states, last = _Unrolled.apply(x, state[0], *weights)
        return states, last.unsqueeze(0)


class _Unrolled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor, w_i: Tensor, w_h: Tensor, b_i: Tensor, b_h: Tensor
    ) -> tuple[Tensor, Tensor]:
        (steps, n, _), size = x.shape, state.shape[1]
        bias = torch.cat((b_i[: 2 * size] + b_h[: 2 * size], b_i[2 * size :]))
        gates = torch.addmm(bias, x.flatten(0, 1), w_i.t()).view(steps, n, 3 * size)
        states = x.new_empty(steps + 1, n, size)
        states[0] = state
        sides = x.new_empty(steps, n, size)  # c_n
        b_n, w_h_t = b_h[2 * size :], w_h.t()
        rows = (gates[..., : 2 * size], gates[..., 2 * size :], sides, states, states[1:])
        for rz, new, side, before, after in zip(*(x.unbind(0) for x in rows), strict=False):
            c = torch.mm(before, w_h_t)
            rz.add_(c[:, : 2 * size]).sigmoid_()
            torch.add(c[:, 2 * size :], b_n, out=side)
            new.addcmul_(rz[:, :size], side).mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
            torch.lerp(new, before, rz[:, size:], out=after)
        ctx.save_for_backward(x, w_i, w_h, gates, sides, states)
        return states[1:], states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator's doing)
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, w_i, w_h, gates, sides, states = ctx.saved_tensors
        (steps, n, size), x = sides.shape, x.flatten(0, 1)
        # Gradients of a_n, then c_r (which is a_r's too), c_z (likewise) and c_n.
        found = x.new_empty(steps, n, 4 * size)
        before_first = _through_time(grads, w_h, gates, sides, states, found)
        found = found.view(steps * n, 4 * size)
        of_c, of_a = found[:, size:], found[:, : 3 * size]  # of_a: new, reset, update
        sums = found.sum(0)
        d_w_i = (of_a.t() @ x).roll(-size, 0)
        d_w_h = of_c.t() @ states[:-1].flatten(0, 1)
        d_b_i, d_b_h = sums[: 3 * size].roll(-size), sums[size:]
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (of_a @ w_i.roll(size, 0)).view(steps, n, -1)
        return d_x, before_first, d_w_i, d_w_h, d_b_i, d_b_h


def _through_time(
    grads: tuple[Tensor, ...],
    w_h: Tensor,
    gates: Tensor,
    sides: Tensor,
    states: Tensor,
    found: Tensor,
) -> Tensor:
    """Fill `found`, last step first; returns the gradient (N, H) of the state before the first."""
    size = sides.shape[2]
    through_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
    through_tanh = torch.ops.aten.tanh_backward.grad_input
    rows = [*gates.split(size, 2), sides, states[:-1], grads[0], *found.split(size, 2)]
    rows.append(found[..., size:])
    arriving, d, part = grads[1], torch.empty_like(grads[1]), torch.empty_like(grads[1])
    for r, z, new, side, before, arrived, d_new, d_r, d_z, d_side, d_c in reversed(
        list(zip(*(x.unbind(0) for x in rows), strict=True))
    ):
        torch.add(arriving, arrived, out=d)
        arriving = d * z
        through_sigmoid(torch.sub(before, new, out=part).mul_(d), z, grad_input=d_z)
        through_tanh(d.sub_(arriving), new, grad_input=d_new)
        through_sigmoid(torch.mul(d_new, side, out=part), r, grad_input=d_r)
        torch.mul(d_new, r, out=d_side)
        arriving.addmm_(d_c, w_h)
    return arriving
