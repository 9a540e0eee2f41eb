"""Bundles like those of tests/bundles.py, each with one thing that is special about it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.bundles import make_graph, write_bundle

OPTION = {"name": "boost", "default": 0.0, "low": -1.0, "high": 5.0, "help": "added to actions"}
FRAGILE_FROM = 100.0
"""The size of obs[1] from which on `fragile` fails."""


def constant(name: str, values: Any, kind: type = np.float32) -> onnx.TensorProto:
    """An initializer."""
    return onnx.numpy_helper.from_array(np.asarray(values, kind), name)


def edited(
    model: bytes,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    initializers: Sequence[onnx.TensorProto] = (),
) -> bytes:
    """A graph whose action is called `usual` from now on; `nodes` make another of it."""
    proto = onnx.load_from_string(model)
    for node in proto.graph.node:
        node.output[:] = ["usual" if name == "action" else name for name in node.output]
    proto.graph.node.extend(nodes)
    proto.graph.input.extend(inputs)
    proto.graph.initializer.extend(initializers)
    return proto.SerializeToString()


def write_boosted(models: Path, name: str = "boosted", version: int = 1, **changes: Any) -> Path:
    """action = usual + option.boost, which is 0 unless set."""
    boost = helper.make_tensor_value_info("option.boost", TensorProto.FLOAT, ["batch", 1])
    nodes = [helper.make_node("Add", ["usual", "option.boost"], ["action"])]
    inputs = ["obs", "prev_action", "prev_reward", "prev_done", "carry.h", "option.boost"]
    facts = {"inputs": inputs, "options": [OPTION]} | changes
    return write_bundle(models, name, version, model=edited(make_graph(), nodes, [boost]), **facts)


def write_crowded(models: Path, name: str = "crowded") -> Path:
    """action = usual + its mean over the batch: a row depends on who else is stepped."""
    nodes = [
        helper.make_node("ReduceMean", ["usual"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["usual", "mean"], ["action"]),
    ]
    return write_bundle(models, name, model=edited(make_graph(), nodes))


def write_fragile(models: Path, name: str = "fragile", gain: float = 1.0) -> Path:
    """Its run fails where obs[1] is `FRAGILE_FROM` or more, by an index out of range."""
    nodes = [
        helper.make_node("Slice", ["obs", "one", "two", "axis"], ["obs_1"]),
        helper.make_node("Div", ["obs_1", "large"], ["fraction"]),
        helper.make_node("Cast", ["fraction"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["zeros"], axis=0),
        helper.make_node("Add", ["usual", "zeros"], ["action"]),
    ]
    initializers = [
        constant("two", [2], np.int64),
        constant("large", FRAGILE_FROM),
        constant("table", [0.0]),
    ]
    model = edited(make_graph(gain), nodes, initializers=initializers)
    return write_bundle(models, name, model=model)


def write_endless(models: Path, name: str = "endless") -> Path:
    """Its run takes a minute where obs[1] is `FRAGILE_FROM` or more.

    By products of large matrices, as `policy.onnx` may hold no loops.
    """
    products = [
        helper.make_node("MatMul", [f"product_{k}", "matrix"], [f"product_{k + 1}"])
        for k in range(40)
    ]
    nodes = [
        helper.make_node("Slice", ["obs", "one", "two", "axis"], ["obs_1"]),
        helper.make_node("ReduceMax", ["obs_1"], ["largest"], keepdims=0),
        helper.make_node("Div", ["largest", "large"], ["fraction"]),
        helper.make_node("Clip", ["fraction", "least", "most"], ["at_most_one"]),
        helper.make_node("Cast", ["at_most_one"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Mul", ["whole", "very_many"], ["rows_but_one"]),
        helper.make_node("Add", ["rows_but_one", "one"], ["rows"]),
        helper.make_node("Concat", ["rows", "rows"], ["shape"], axis=0),
        helper.make_node("Expand", ["nought", "shape"], ["matrix"]),
        helper.make_node("Identity", ["matrix"], ["product_0"]),
        *products,
        helper.make_node("ReduceMax", ["product_40"], ["nothing_more"], keepdims=0),
        helper.make_node("Add", ["usual", "nothing_more"], ["action"]),
    ]
    initializers = [
        constant("two", [2], np.int64),
        constant("large", FRAGILE_FROM),
        constant("least", 0.0),
        constant("most", 1.0),
        constant("very_many", 5000, np.int64),
        constant("nought", [[0.0]]),
    ]
    model = edited(make_graph(), nodes, initializers=initializers)
    return write_bundle(models, name, model=model)
