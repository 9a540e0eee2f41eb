"""Graphs that a daemon must not let in, each sound but for one thing."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.bundles import make_graph
from tests.odd_bundles import constant, edited

Change = Callable[[onnx.ModelProto], object]


def changed(change: Change) -> bytes:
    """The usual graph, after a change to it."""
    proto = onnx.load_from_string(make_graph())
    change(proto)
    return proto.SerializeToString()


def with_external_data(location: str) -> Change:
    """The graph's `gain` is read from a file, from its 8th byte on."""

    def change(proto: onnx.ModelProto) -> None:
        (gain,) = (t for t in proto.graph.initializer if t.name == "gain")
        gain.ClearField("raw_data")
        gain.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "8", "length": "4"}.items():
            gain.external_data.add(key=key, value=value)

    return change


def with_external_attribute(proto: onnx.ModelProto) -> None:
    """A constant that hides in a node is read from a file."""
    value = constant("value", 1.0)
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="/etc/hostname")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=value))


def with_function(proto: onnx.ModelProto) -> None:
    """It brings an operator of its own."""
    body = [helper.make_node("Add", ["x", "x"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("own", "Twice", ["x"], ["y"], body, opsets))


def with_domain(proto: onnx.ModelProto) -> None:
    """An operator that stock ONNX Runtime has beside the standard ones."""
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.graph.node.insert(0, helper.make_node("Gelu", ["obs"], ["idle"], domain="com.microsoft"))


def with_random_numbers(proto: onnx.ModelProto) -> None:
    """It draws numbers of its own, so that no replay would be exact."""
    proto.graph.node.insert(0, helper.make_node("RandomNormalLike", ["obs"], ["drawn"]))


def with_sparse_initializer(proto: onnx.ModelProto) -> None:
    """A kind of tensor that no policy needs."""
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.name = "sparse"


def with_training(proto: onnx.ModelProto) -> None:
    """It says how to train it."""
    proto.training_info.add()


def with_settings(proto: onnx.ModelProto) -> None:
    """It says how ONNX Runtime is to be set up."""
    proto.metadata_props.add(key="ort_config", value="{}")


def with_texts(proto: onnx.ModelProto) -> None:
    """A tensor of texts."""
    proto.graph.initializer.append(helper.make_tensor("texts", TensorProto.STRING, [1], [b"x"]))


def with_many_nodes(proto: onnx.ModelProto) -> None:
    """More operators than a policy has."""
    node = helper.make_node("Identity", ["obs"], ["same"])
    proto.graph.node.extend([node] * 20_001)


def counting_loop(rounds: int, depth: int = 1) -> list[onnx.NodeProto]:
    """Nodes that add 0 to `zero` so often, giving `nothing`; as loops in loops if deep."""
    if depth > 1:
        inner = [*counting_loop(rounds, depth - 1)]
        inner.append(helper.make_node("Add", ["count", "nothing"], ["counted"]))
    else:
        inner = [helper.make_node("Add", ["count", "zero"], ["counted"])]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), *inner],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("counted", TensorProto.FLOAT, [1]),
        ],
    )
    return [helper.make_node("Loop", ["rounds", "yes", "zero"], ["nothing"], body=body)]


def _loop_constants(rounds: int) -> list[onnx.TensorProto]:
    return [
        constant("rounds", rounds, np.int64),
        constant("yes", True, np.bool_),
        constant("zero", [0.0]),
    ]


def looping_policy(rounds: int) -> bytes:
    """A step that counts first."""
    nodes = [*counting_loop(rounds), helper.make_node("Add", ["usual", "nothing"], ["action"])]
    return changed_action(nodes, [t for t in _loop_constants(rounds) if t.name != "zero"])


def changed_action(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> bytes:
    """The usual graph, with another action made of the usual one."""
    return edited(make_graph(), nodes, initializers=initializers)


def looping_adapt(rounds: int, depth: int = 1) -> bytes:
    """An adapt.onnx that counts, and leaves the carry as it is."""
    floats = [1, 2]
    graph = helper.make_graph(
        [
            *counting_loop(rounds, depth),
            helper.make_node("Add", ["carry.h", "nothing"], ["next.h"]),
        ],
        "adapt",
        [helper.make_tensor_value_info("carry.h", TensorProto.FLOAT, floats)],
        [helper.make_tensor_value_info("next.h", TensorProto.FLOAT, floats)],
        _loop_constants(rounds),
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def hungry_policy(gibibytes: int) -> bytes:
    """A step that fills so much memory with a number that depends on the observation."""
    nodes = [
        helper.make_node("ReduceSum", ["obs"], ["seed"], keepdims=0),
        helper.make_node("Expand", ["seed", "large"], ["field"]),
        helper.make_node("ReduceMax", ["field"], ["most"], keepdims=0),
        helper.make_node("Sub", ["most", "seed"], ["little"]),
        helper.make_node("Add", ["usual", "little"], ["action"]),
    ]
    return changed_action(nodes, [constant("large", [gibibytes, 1 << 28], np.int64)])


def posing_as_ort() -> bytes:
    """ONNX that has, by the name of its maker, the mark of ONNX Runtime's own format."""
    rest = changed(lambda proto: proto.ClearField("ir_version"))
    producer = b"ORTM" + b"\0" * 16
    head = b"\x08\x0a" + b"\x12" + bytes([len(producer)]) + producer
    return head + rest
