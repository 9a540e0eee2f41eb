"""What an ONNX file may hold: looked at before ONNX Runtime, which would do as it says.

Every message is walked over by the numbers of its fields (onnx.proto of ONNX 1.23), and a
field that is not known to be harmless is refused, also where it is unknown. Protobuf joins
the parts of a message that comes in several; since each part has to be harmless, so is the
whole.
"""

from collections.abc import Callable, Mapping

from runtime.errors import UnsafeBundle
from runtime.vetting.operators import CONTROL_FLOW, DOMAINS, STRAIGHT
from runtime.vetting.wire_format import Value, fields

MOST_NODES = 20_000
"""Of a whole file: a policy that acts many times a second has a few hundred."""
DEEPEST = 4
"""Graphs inside of graphs."""
STRING = 8
"""TensorProto.DataType of texts."""

Reader = Callable[[memoryview], None]
Readers = Mapping[int, Reader | None]
"""What to do with a field, by its number; None: it is harmless."""

REFUSED = {
    ("model", 20): "training information",
    ("model", 25): "functions of its own",
    ("model", 26): "configurations of devices",
    ("graph", 15): "sparse initializers",
    ("node", 8): "overloads",
    ("node", 10): "configurations of devices",
    ("attribute", 14): "types as attributes",
    ("attribute", 15): "types as attributes",
    ("attribute", 21): "references to attributes of a function",
    ("attribute", 22): "sparse tensors",
    ("attribute", 23): "sparse tensors",
    ("tensor", 3): "tensors in segments",
    ("tensor", 6): "texts in tensors",
    ("tensor", 13): "external data",
}
"""What the fields are that are known and not let in, for the sentence."""


def check_model(model: bytes, control_flow: bool = False) -> None:
    """See that an ONNX file holds nothing but a plain graph of allowed operators.

    Args:
        model: the content of the file.
        control_flow: whether `CONTROL_FLOW` is allowed.

    Raises:
        UnsafeBundle: with the first thing that is not; the sentence goes on from "it has".
    """
    _Model(control_flow).model(memoryview(model))


class _Model:
    """A walk over one file, and what it has counted on the way."""

    def __init__(self, control_flow: bool):
        self._operators = STRAIGHT | CONTROL_FLOW if control_flow else STRAIGHT
        self._nodes = 0
        self._depth = 0
        self._parts: dict[str, Readers] = {
            "model": {1: None, 2: None, 3: None, 4: None, 5: None, 6: None,
                      7: self.graph, 8: self.opset, 14: self.fact},
            "graph": {1: self.node, 2: None, 5: self.tensor, 10: None, 11: None, 12: None,
                      13: None, 14: None, 16: self.fact},
            "node": {1: None, 2: None, 3: None, 4: self.operator, 5: self.attribute, 6: None,
                     7: self.domain, 9: self.fact},
            "attribute": {1: None, 2: None, 3: None, 4: None, 5: self.tensor, 6: self.graph,
                          7: None, 8: None, 9: None, 10: self.tensor, 11: self.graph, 13: None,
                          20: None},
            "tensor": {1: None, 2: None, 4: None, 5: None, 7: None, 8: None, 9: None, 10: None,
                       11: None, 12: None, 14: None, 16: self.fact},
            "opset": {1: self.domain, 2: None},
            "fact": {1: self.key, 2: None},
        }  # fmt: skip

    def _walk(self, part: str, message: memoryview) -> dict[int, Value]:
        """Go over one message's fields; the last value of each."""
        readers, found = self._parts[part], {}
        for number, value in fields(message):
            if number not in readers:
                what = REFUSED.get((part, number), f"a field {number} in a {part}, which is none")
                raise UnsafeBundle(what)
            read = readers[number]
            if read is not None:
                if isinstance(value, int):
                    raise UnsafeBundle(f"a number for field {number} of a {part}, which is none")
                read(value)
            found[number] = value
        return found

    def model(self, message: memoryview) -> None:
        if 7 not in self._walk("model", message):
            raise UnsafeBundle("no graph")

    def graph(self, message: memoryview) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise UnsafeBundle(f"graphs inside of graphs, more than {DEEPEST} deep")
        self._walk("graph", message)
        self._depth -= 1

    def node(self, message: memoryview) -> None:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise UnsafeBundle(f"more than {MOST_NODES} operators")
        if 4 not in self._walk("node", message):
            raise UnsafeBundle("a node without an operator")

    def operator(self, name: memoryview) -> None:
        text = _text(name)
        if text in self._operators:
            return
        if text in CONTROL_FLOW:
            why = "which may run without end and is for adapt.onnx alone"
        else:
            why = "which is not among those allowed (docs/signing.md lists them)"
        raise UnsafeBundle(f"the operator {text!r}, {why}")

    def domain(self, name: memoryview) -> None:
        text = _text(name)
        if text not in DOMAINS:
            raise UnsafeBundle(f"operators of the domain {text!r}, allowed are the standard ones")

    def attribute(self, message: memoryview) -> None:
        self._walk("attribute", message)

    def tensor(self, message: memoryview) -> None:
        found = self._walk("tensor", message)
        if found.get(14, 0) != 0:
            raise UnsafeBundle(REFUSED["tensor", 13])
        if found.get(2) == STRING:
            raise UnsafeBundle(REFUSED["tensor", 6])

    def opset(self, message: memoryview) -> None:
        self._walk("opset", message)

    def fact(self, message: memoryview) -> None:
        self._walk("fact", message)

    def key(self, name: memoryview) -> None:
        if _text(name) == "ort_config":
            raise UnsafeBundle("settings for ONNX Runtime")


def _text(value: memoryview) -> str:
    """A name as far as it can be told, which is enough to see that it is not a known one."""
    return bytes(value[:100]).decode(errors="backslashreplace")
