"""The shapes of an ONNX graph, those included that ONNX's own inference leaves open."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator

from kneepoint.tasks.errors import DeviceError

_BYTE = 8
SMALL = 1024
"""Constants of more elements than this are never read as values."""
_KEEP_SHAPE = frozenset({"GroupNormalization"})
"""Operators defined by a function, through which ONNX infers no shape, with an output like their first input."""
_PACKED_PRODUCT, _PACKED_ROWS = "MatMulNBits", "GatherBlockQuantized"
"""ONNX Runtime's own operators, of which ONNX knows nothing: a MatMul with a packed weight of (N, K), and a Gather."""
_ARITHMETIC = frozenset({
    "Add", "Cast", "Concat", "Div", "Gather", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze",
})  # fmt: skip
"""What exporters compute shapes with, behind recurrent layers above all. None of them makes much out of little."""

Shape = tuple[int, ...]
_Values = dict[str, npt.NDArray[Any]]


def infer_shapes(model: ModelProto) -> ModelProto:
    """The model with every shape that can be inferred, and with the nodes it came with.

    Args:
        model: Its inputs have concrete shapes; local functions are inlined.

    Raises:
        DeviceError: If shapes contradict each other.
    """
    twin = ModelProto()
    twin.CopyFrom(model)
    for node in twin.graph.node:
        if node.op_type in _KEEP_SHAPE:
            node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output))
        elif node.op_type == _PACKED_PRODUCT:
            _as_matmul(twin, node)
        elif node.op_type == _PACKED_ROWS:
            _as_gather(twin, node)
    twin = _inferred(twin)
    known = -1
    while known < len(found := concrete_shapes(twin.graph)) < len(_written(twin)):
        known = len(found)
        _compute(twin, found)
        twin = _inferred(twin)
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    result.graph.value_info.extend(twin.graph.value_info)
    del result.graph.output[:]
    result.graph.output.extend(twin.graph.output)
    return result


def _as_matmul(model: ModelProto, node: NodeProto) -> None:
    """Put a MatMul with a weight of the same shape, but without data, in the place of ``node``."""
    sizes = {entry.name: entry.i for entry in node.attribute}
    name = f"{node.output[0]}: weight"
    weight = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=(sizes.get("K", 0), sizes.get("N", 0)))
    model.graph.initializer.append(weight)
    node.CopyFrom(onnx.helper.make_node("MatMul", [node.input[0], name], node.output))


def _as_gather(model: ModelProto, node: NodeProto) -> None:
    """Put a Gather from a table of as many columns, but without data, in the place of ``node``."""
    sizes = {entry.name: entry.i for entry in node.attribute}
    dims = {entry.name: tuple(entry.dims) for entry in model.graph.initializer}
    rows, groups = dims.get(node.input[2], (0, 0))
    packed = dims.get(node.input[0], ())  # of a tied table, what is looked up is a view of what is stored
    whole = groups * sizes.get("block_size", 0)
    columns = packed[-1] * _BYTE // sizes.get("bits", 4) if packed else whole
    name = f"{node.output[0]}: table"
    model.graph.initializer.append(TensorProto(name=name, data_type=TensorProto.FLOAT, dims=(rows, columns)))
    node.CopyFrom(onnx.helper.make_node("Gather", [name, node.input[1]], node.output))


def concrete_shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Every tensor with a known, concrete shape."""
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if not value.type.tensor_type.HasField("shape"):
            continue
        dimensions = value.type.tensor_type.shape.dim
        if all(dimension.HasField("dim_value") and dimension.dim_value >= 0 for dimension in dimensions):
            found[value.name] = tuple(dimension.dim_value for dimension in dimensions)
    return found


def _inferred(model: ModelProto) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise DeviceError(f"the shapes of the ONNX model cannot be inferred: {error}; export it again") from error


def _written(model: ModelProto) -> set[str]:
    """Names of all inputs and of what nodes write."""
    inputs = {value.name for value in model.graph.input}
    return inputs.union(name for node in model.graph.node for name in node.output if name)


def _compute(model: ModelProto, shapes: dict[str, Shape]) -> None:
    """Put the results of arithmetic on known shapes in its place, in the order of the nodes, in place."""
    values: _Values = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if _is_small(tensor)
    }
    kept = []
    for node in model.graph.node:
        result = _value(node, shapes, values)
        if result is None or result.size > SMALL:
            kept.append(node)
            continue
        values[node.output[0]] = result
        model.graph.initializer.append(onnx.numpy_helper.from_array(result, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _value(node: NodeProto, shapes: dict[str, Shape], values: _Values) -> npt.NDArray[Any] | None:
    if node.op_type == "Shape" and node.input[0] in shapes:
        bounds = {str(entry.name): int(entry.i) for entry in node.attribute}
        known: Shape = shapes[node.input[0]]
        sizes = known[bounds.get("start", 0) : bounds.get("end")]
        return np.array(sizes, dtype=np.int64)
    read = [str(name) for name in node.input if name]
    if node.op_type not in _ARITHMETIC or node.domain or not all(name in values for name in read):
        return None
    try:
        results: Any = ReferenceEvaluator(node).run(None, {name: values[name] for name in read})
    except Exception:  # whatever the evaluator makes of a malformed node, its shape stays unknown
        return None
    return np.asarray(results[0])


def _is_small(tensor: TensorProto) -> bool:
    integers = tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
    inside = tensor.data_location != TensorProto.EXTERNAL
    return integers and inside and math.prod(tensor.dims) <= SMALL
