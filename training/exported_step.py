"""The graph that is exported: one step of a policy with its carry as input and output."""

import logging
import math
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from runtime.spec import POLICY, BeliefSpec, Boundaries, CarrySpec, OptionSpec
from sim.family import Channel, TaskFamily
from training.networks import Carry

Named = dict[str, Tensor]
"""Tensors by the names of docs/bundle.md: ``obs``, ``carry.h``, ``next.h``, ``belief.z_mean``."""


class ExportedStep(nn.Module, ABC):
    """One step of a policy of any method: named tensors in and out, and what a manifest says."""

    algorithm: str
    carry: Sequence[CarrySpec]
    belief: Sequence[BeliefSpec]
    options: Sequence[OptionSpec] = ()
    noise_size = 0
    context_window: int | None = None
    boundaries = Boundaries(episode="keep", task="prior", gap="keep")

    action_low: Tensor
    action_high: Tensor

    def __init__(self, family: TaskFamily):
        super().__init__()
        self.family = family
        self.observation_size, self.action_size = len(family.observation), len(family.action)
        self.register_buffer("action_low", torch.tensor([c.low for c in family.action]))
        self.register_buffer("action_high", torch.tensor([c.high for c in family.action]))

    @abstractmethod
    def step(self, given: Named) -> Named:
        """All inputs, (B, ...) each, to all outputs."""

    @abstractmethod
    def some_carry(self, batch: int, generator: torch.Generator) -> Carry:
        """A carry as it might be in the middle of a task, by name without prefix."""

    @property
    def input_shapes(self) -> dict[str, list[int]]:
        """The inputs in the order of the graph, and their shapes without the batch."""
        shapes = {"obs": [self.observation_size], "prev_action": [self.action_size]}
        shapes |= {"prev_reward": [1], "prev_done": [1]}
        shapes |= {"noise": [self.noise_size]} if self.noise_size else {}
        shapes |= {f"option.{o.name}": [1] for o in self.options}
        return shapes | {f"carry.{c.name}": c.shape for c in self.carry}

    @property
    def outputs(self) -> list[str]:
        """The outputs in the order of the graph."""
        after = [f"next.{c.name}" for c in self.carry]
        return ["action", *after, *(f"belief.{b.name}" for b in self.belief)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As `step`, in the order of `input_shapes` and `outputs`."""
        found = self.step(dict(zip(self.input_shapes, inputs, strict=True)))
        return tuple(found[name] for name in self.outputs)

    def bounded(self, action: Tensor) -> Tensor:
        """Actions (B, A) within the family's bounds."""
        return torch.minimum(torch.maximum(action, self.action_low), self.action_high)

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the family, the method and the graph."""
        family = self.family
        return {
            "family": family.name,
            "task_ranges": {
                p.name: {"unit": p.unit, "low": p.low, "high": p.high}
                for p in family.task_parameters
            },
            "control_hz": family.control_hz,
            "observation": [_element(c) for c in family.observation],
            "action": [_element(c) | {"max_rate": None} for c in family.action],
            "fallback_action": [min(max(0.0, c.low), c.high) for c in family.action],
            "algorithm": self.algorithm,
            "inputs": list(self.input_shapes),
            "needs_reward": True,
            "carry": [c.model_dump(exclude_defaults=True) for c in self.carry],
            "options": [o.model_dump() for o in self.options],
            "noise_size": self.noise_size,
            "boundaries": self.boundaries.model_dump(exclude={"adapt"}),
            "belief": [b.model_dump(exclude_defaults=True) for b in self.belief],
            "context_window": self.context_window,
        }


def _element(channel: Channel) -> dict[str, Any]:
    low, high = (x if math.isfinite(x) else None for x in (channel.low, channel.high))
    return {"name": channel.name, "unit": channel.unit, "low": low, "high": high}


def to_onnx(step: ExportedStep) -> bytes:
    """The step as an ONNX model with a dynamic batch, weights inside."""
    batch = 2  # never 1: a batch of one would be taken for a constant
    shapes = step.input_shapes
    example = tuple(torch.zeros(batch, *shape) for shape in shapes.values())
    dynamic = torch.export.Dim("batch")
    with _quiet_exporter():
        program = torch.onnx.export(
            step,
            example,
            input_names=list(shapes),
            output_names=step.outputs,
            dynamic_shapes=(tuple({0: dynamic} for _ in example),),
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
