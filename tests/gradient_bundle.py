"""A policy that learns by gradient steps, exported the way a trained one would be.

    policy   action = obs W, of a carry W (2, 2) that the steps leave as it is
    adapt    W' = W + RATE * d/dW sum_t reward_t * log N(action_t; obs_t W, 1)

The gradient is taken by torch and becomes part of the graph; by hand it is
sum_t reward_t * obs_t^T (action_t - obs_t W).
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch.fx.experimental.proxy_tensor import make_fx

from tests.bundles import write_bundle
from tests.odd_bundles import constant

RATE = 0.125


def by_hand(w: np.ndarray, obs: Any, action: Any, reward: Any) -> np.ndarray:
    """W' (2, 2) of float64 numpy.

    Args:
        w: (2, 2).
        obs: (T, 2).
        action: (T, 2), as applied.
        reward: (T, 1).
    """
    obs, action, reward = (np.asarray(value, np.float64) for value in (obs, action, reward))
    return w + RATE * obs.T @ (reward * (action - obs @ w))


def adapt_graph() -> bytes:
    """The content of adapt.onnx."""

    def step(
        obs: torch.Tensor, action: torch.Tensor, reward: torch.Tensor, carry: torch.Tensor
    ) -> torch.Tensor:
        def log_likelihood(w: torch.Tensor) -> torch.Tensor:
            return -0.5 * (reward * (action - obs @ w) ** 2).sum()

        return carry + RATE * torch.func.grad(log_likelihood)(carry[0])[None]

    example = torch.randn(5, 2), torch.randn(5, 2), torch.randn(5, 1), torch.randn(1, 2, 2)
    traced = make_fx(step, tracing_mode="symbolic")(*example).eval()
    steps = torch.export.Dim("T", min=2)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making
        path = Path(folder) / "adapt.onnx"
        torch.onnx.export(
            traced, example, str(path), dynamo=True, external_data=False, verbose=False,
            dynamic_shapes=({0: steps}, {0: steps}, {0: steps}, None),
            input_names=["episode.obs", "episode.action", "episode.reward", "carry.w"],
            output_names=["next.w"],
        )  # fmt: skip
        return path.read_bytes()


def policy_graph() -> bytes:
    """The content of policy.onnx."""

    def floats(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    nodes = [
        helper.make_node("Unsqueeze", ["obs", "one"], ["row"]),
        helper.make_node("MatMul", ["row", "carry.w"], ["product"]),
        helper.make_node("Squeeze", ["product", "one"], ["action"]),
        helper.make_node("Identity", ["carry.w"], ["next.w"]),
    ]
    inputs = [floats("obs", 2), floats("carry.w", 2, 2)]
    outputs = [floats("action", 2), floats("next.w", 2, 2)]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, [constant("one", [1], np.int64)])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def slowed(adapt: bytes, rounds: int) -> bytes:
    """The same graph, after it has counted to `rounds`, which takes a while."""
    proto = onnx.load_from_string(adapt)
    boolean = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]),
         helper.make_node("Add", ["count", "tiny"], ["counted"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), boolean,
         helper.make_tensor_value_info("count", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("counted", TensorProto.FLOAT, [1])],
        [constant("tiny", [0.0])],
    )  # fmt: skip
    for node in proto.graph.node:
        node.output[:] = ["soon" if name == "next.w" else name for name in node.output]
    proto.graph.initializer.extend(
        [
            constant("rounds", rounds, np.int64),
            constant("yes", True, np.bool_),
            constant("zero", [0.0]),
        ]
    )
    proto.graph.node.extend(
        [helper.make_node("Loop", ["rounds", "yes", "zero"], ["nothing"], body=body),
         helper.make_node("Add", ["soon", "nothing"], ["next.w"])]
    )  # fmt: skip
    return proto.SerializeToString()


def write_linear(models: Path, name: str, adapt: bytes, **changes: Any) -> Path:
    """The bundle described in the module."""
    facts = {
        "inputs": ["obs", "carry.w"],
        "carry": [{"name": "w", "shape": [2, 2], "dtype": "float32", "init": 0.0}],
        "belief": [],
    } | changes
    return write_bundle(models, name, model=policy_graph(), adapt=adapt, **facts)
