"""The graph that is exported: one step of a policy with its carry as input and output."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from runtime.spec import POLICY
from sim.family import Channel, TaskFamily
from training.networks import RecurrentPolicy


class ExportedStep(nn.Module):
    """A recurrent policy as the graph that is exported: one step, named in and out."""

    action_low: Tensor
    action_high: Tensor
    task_middle: Tensor
    task_scale: Tensor

    def __init__(self, policy: RecurrentPolicy, family: TaskFamily):
        super().__init__()
        self.policy = policy
        self.carry_names = policy.memory.names
        low, high = _limits(family.action)
        self.register_buffer("action_low", low)
        self.register_buffer("action_high", high)
        task_low = torch.tensor([p.low for p in family.task_parameters])
        task_high = torch.tensor([p.high for p in family.task_parameters])
        self.register_buffer("task_middle", (task_low + task_high) / 2)
        self.register_buffer("task_scale", (task_high - task_low) / 2)

    def forward(
        self,
        obs: Tensor,
        prev_action: Tensor,
        prev_reward: Tensor,
        prev_done: Tensor,
        *carry: Tensor,
    ) -> tuple[Tensor, ...]:
        """(B, ...) each, to action, next carry, belief mean and variance in task units."""
        state = dict(zip(self.carry_names, carry, strict=True))
        features, seen, after = self.policy.step(obs, prev_action, prev_reward, prev_done, state)
        mean = self.policy.action_mean(features, seen)
        action = torch.minimum(torch.maximum(mean, self.action_low), self.action_high)
        belief, log_variance = self.policy.belief(features)
        return (
            action,
            *(after[name] for name in self.carry_names),
            self.task_middle + belief * self.task_scale,
            log_variance.exp() * self.task_scale**2,
        )


def _limits(channels: tuple[Channel, ...]) -> tuple[Tensor, Tensor]:
    return torch.tensor([c.low for c in channels]), torch.tensor([c.high for c in channels])


def to_onnx(step: ExportedStep) -> bytes:
    """The step as an ONNX model with a dynamic batch, weights inside."""
    batch = 2  # never 1: a batch of one would be taken for a constant
    family_sizes = (step.policy.obs_normaliser.mean.numel(), step.action_low.numel(), 1, 1)
    example = [torch.zeros(batch, size) for size in family_sizes]
    carry = step.policy.memory.initial(batch)
    example += [carry[name] for name in step.carry_names]
    names = ["obs", "prev_action", "prev_reward", "prev_done"]
    dynamic = torch.export.Dim("batch")
    axes = [{0: dynamic}] * len(example)
    with _quiet_exporter():
        program = torch.onnx.export(
            step,
            tuple(example),
            input_names=names + [f"carry.{n}" for n in step.carry_names],
            output_names=[
                "action",
                *(f"next.{n}" for n in step.carry_names),
                "belief.task_mean",
                "belief.task_variance",
            ],
            dynamic_shapes=(*axes[:4], tuple(axes[4:])),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / POLICY
        program.save(path, external_data=False)
        return _without_traces(onnx.load(path)).SerializeToString()


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's stack traces, which name files of this machine."""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        for part in (graph, *graph.node):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
    model.ClearField("metadata_props")
    return model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's remarks on its own internals; errors still come through."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
