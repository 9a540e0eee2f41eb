"""Hand-made bundles whose every output can be worked out on paper.

The policy has a carry `h` of `carry_size` numbers, and two observations and actions:

    next.h   = h + obs[0] + prev_reward, in each of its numbers
    action   = gain * (next.h[0], prev_action[0] + prev_done), not limited by the graph
    belief.spread = 1 / (1 + next.h[0]^2)
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save

from runtime.policy import Policy, step_outputs
from runtime.spec import ADAPT, GOLDEN, MANIFEST, POLICY, STEP_INPUTS, Manifest, file_record

STEPS = 5


def make_graph(gain: float = 1.0, carry_size: int = 2, noisy: bool = False) -> bytes:
    """The ONNX model described in the module."""

    def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    def constant(name: str, values: Any, kind: type = np.float32) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.asarray(values, kind), name)

    nodes = [
        helper.make_node("Slice", ["obs", "zero", "one", "axis"], ["obs_0"]),
        helper.make_node("Add", ["obs_0", "prev_reward"], ["added"]),
        helper.make_node("Add", ["carry.h", "added"], ["next.h"]),
        helper.make_node("Slice", ["next.h", "zero", "one", "axis"], ["next_0"]),
        helper.make_node("Slice", ["prev_action", "zero", "one", "axis"], ["prev_0"]),
        helper.make_node("Add", ["prev_0", "prev_done"], ["second"]),
        helper.make_node("Concat", ["next_0", "second"], ["pair"], axis=1),
        helper.make_node("Mul", ["pair", "gain"], ["plain"]),
        helper.make_node("Mul", ["next_0", "next_0"], ["square"]),
        helper.make_node("Add", ["square", "unit"], ["wide"]),
        helper.make_node("Reciprocal", ["wide"], ["belief.spread"]),
    ]
    last = "noise" if noisy else "nothing"
    nodes.append(helper.make_node("Add", ["plain", last], ["action"]))
    inputs = [
        floats("obs", 2),
        floats("prev_action", 2),
        floats("prev_reward", 1),
        floats("prev_done", 1),
        *([floats("noise", 2)] if noisy else []),
        floats("carry.h", carry_size),
    ]
    outputs = [floats("action", 2), floats("next.h", carry_size), floats("belief.spread", 1)]
    initializers = [
        constant("zero", [0], np.int64),
        constant("one", [1], np.int64),
        constant("axis", [1], np.int64),
        constant("gain", gain),
        constant("unit", 1.0),
        constant("nothing", 0.0),
    ]
    graph = helper.make_graph(nodes, "policy", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def make_manifest(name: str, version: int, carry_size: int, noisy: bool, **changes: Any) -> dict:
    """A manifest for `make_graph`, without its files."""
    stat = {"mean": 0.0, "ci95": 0.0}
    return {
        "schema_version": 1,
        "name": name,
        "version": version,
        "algorithm": "hand-made",
        "family": "none",
        "task_ranges": {"target": {"unit": "m/s", "low": 0.0, "high": 1.0}},
        "control_hz": 10.0,
        "observation": [
            {"name": "x", "unit": "m", "low": None, "high": None},
            {"name": "y", "unit": "m", "low": None, "high": None},
        ],
        "action": [
            {"name": "push", "unit": "N", "low": -10.0, "high": 10.0, "max_rate": None},
            {"name": "turn", "unit": "rad", "low": -1.0, "high": 1.0, "max_rate": None},
        ],
        "fallback_action": [0.0, 0.5],
        "inputs": ["obs", "prev_action", "prev_reward", "prev_done"]
        + ["noise"] * noisy
        + ["carry.h"],
        "needs_reward": True,
        "carry": [{"name": "h", "shape": [carry_size], "dtype": "float32", "init": 0.0}],
        "options": [],
        "noise_size": 2 if noisy else 0,
        "boundaries": {"episode": "keep", "task": "prior", "gap": "keep"},
        "belief": [{"name": "spread", "shape": [1], "role": "variance"}],
        "context_window": None,
        "golden": {"steps": STEPS, "atol": 1e-6},
        "evaluation": {
            "episodes": [stat],
            "cleared_memory": [stat],
            "random": [stat],
            "task_told": [],
            "tasks": 1,
            "seeds": [0],
            "env_steps": 0,
        },
        "provenance": {},
    } | changes


def write_bundle(
    models: Path,
    name: str,
    version: int = 1,
    gain: float = 1.0,
    carry_size: int = 2,
    noisy: bool = False,
    model: bytes | None = None,
    adapt: bytes | None = None,
    **changes: Any,
) -> Path:
    """Write a whole, sound bundle and give its folder.

    Args:
        models: where to.
        name, version: of the bundle.
        gain, carry_size, noisy: as `make_graph`.
        model: a graph instead of that one.
        adapt: the content of adapt.onnx, if it has one.
        changes: to the manifest.
    """
    model = model or make_graph(gain, carry_size, noisy)
    facts = make_manifest(name, version, carry_size, noisy, **changes)
    files = {POLICY: file_record(model).model_dump(), GOLDEN: file_record(b"").model_dump()}
    if adapt is not None:
        files[ADAPT] = file_record(adapt).model_dump()
        facts["boundaries"] = facts["boundaries"] | {"adapt": "episode"}
    golden = save(_trace(Policy(Manifest.model_validate(facts | {"files": files}), model)))
    files[GOLDEN] = file_record(golden).model_dump()
    folder = models / name / str(version)
    folder.mkdir(parents=True)
    (folder / POLICY).write_bytes(model)
    (folder / GOLDEN).write_bytes(golden)
    if adapt is not None:
        (folder / ADAPT).write_bytes(adapt)
    (folder / MANIFEST).write_text(json.dumps(facts | {"files": files}))
    return folder


def _trace(policy: Policy) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    carry = policy.initial_carry()
    trace: dict[str, list] = {}
    for _ in range(STEPS):
        inputs = {
            name: rng.standard_normal((1, *shape)).astype(np.float32)
            for name, shape in policy.manifest.input_shapes().items()
            if name in STEP_INPUTS
        }
        step = policy.step(inputs, carry)
        carry = step.carry
        for name, value in inputs.items():
            trace.setdefault(f"input.{name}", []).append(value[0])
        for name, value in step_outputs(step).items():
            trace.setdefault(f"output.{name}", []).append(value[0])
    initial = {f"initial.{n}": v[0] for n, v in policy.initial_carry().items()}
    return initial | {name: np.stack(rows) for name, rows in trace.items()}
