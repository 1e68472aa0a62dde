"""Models of one operator, that take microseconds."""

from __future__ import annotations

from itertools import pairwise

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

Shape = list[str | int | None]


def doubler(shape: Shape, kind: int = TensorProto.FLOAT, op: str = "Add", repeat: int = 1) -> bytes:
    """Adds its input to itself, ``repeat`` times over."""
    names = ["x", *(f"h{i}" for i in range(repeat - 1)), "y"]
    nodes = [helper.make_node(op, [a, a], [b]) for a, b in pairwise(names)]
    return serialized(nodes, [helper.make_tensor_value_info(name, kind, shape) for name in "xy"])


def stubborn() -> bytes:
    """Loads, and does not run but on a batch of three."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [3, 7])
    values = [helper.make_tensor_value_info(*entry) for entry in (("x", 1, ["batch", 7, 1]), ("y", 1, [3, 7]))]
    return serialized([helper.make_node("Reshape", ["x", "shape"], ["y"])], values, shape)


def texts() -> bytes:
    """Takes text."""
    values = [helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in "xy"]
    return serialized([helper.make_node("Identity", ["x"], ["y"])], values)


def serialized(nodes: list[NodeProto], values: list[ValueInfoProto], *initializers: TensorProto) -> bytes:
    """A model of the input and the output ``values``."""
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(initializers))
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())
