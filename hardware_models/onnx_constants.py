"""The constants of an ONNX graph: described by shape, storage and scales, their values left unread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto

from kneepoint.hardware_models.operators import Weight, WeightFormat
from kneepoint.hardware_models.shape_inference import SMALL, Shape

SHAPE_SOURCES = frozenset({"Shape", "Size"})
"""Operators whose results do not depend on the values they read."""
_BITS: Mapping[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
}
_FORMATS: Mapping[int, WeightFormat] = {32: "fp32", 16: "fp16", 8: "int8", 4: "int8", 2: "int8"}
_BYTE = 8
_FLOAT = 32


@dataclass(frozen=True)
class Constant:
    """A value that does not depend on the network's inputs.

    Attributes:
        shape: Of the value.
        root: The initializer it comes from; empty for the result of a shape computation.
        stored_bits: Bits of an element of that initializer.
        format: What a kernel reads that is given this value.
        scales: How many it went through on its way from integers.
        zero_points: How many stand beside them.
    """

    shape: Shape
    root: str = ""
    stored_bits: int = 32
    format: WeightFormat = "fp32"
    scales: int = 0
    zero_points: int = 0

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def is_packed(self) -> bool:
        """Whether it is stored in fewer bits than a float."""
        return bool(self.root) and self.stored_bits < _FLOAT


@dataclass
class Constants:
    """Every constant seen so far, by name.

    Attributes:
        shapes: Of every value of the graph.
        stored: Initializers and the values of Constant nodes.
        found: What is known of each.
    """

    shapes: Mapping[str, Shape]
    stored: dict[str, TensorProto] = field(default_factory=dict)
    found: dict[str, Constant] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def store(self, name: str, tensor: TensorProto) -> None:
        """Add an initializer."""
        self.stored[name] = tensor
        bits = _BITS.get(tensor.data_type, 32)
        self.found[name] = Constant(tuple(tensor.dims), name, bits, _FORMATS[bits])

    def fold(self, node: onnx.NodeProto) -> bool:
        """Whether ``node`` computes a constant; if so, describes its outputs."""
        if node.op_type == "Constant":
            value = attribute(node, "value")
            self.store(node.output[0], value if isinstance(value, TensorProto) else _tensor(node))
            return True
        if node.op_type in SHAPE_SOURCES:
            self.found[node.output[0]] = Constant(self.shapes.get(node.output[0], ()))
            return True
        if not node.input or not all(name in self.found for name in node.input if name):
            return False
        folded = self._folded(node)
        for name in node.output:
            self.found[name] = replace(folded, shape=self.shapes.get(name, folded.shape))
        return True

    def operand(self, node: onnx.NodeProto, index: int) -> Constant | None:
        """The constant that ``node`` reads at ``index``, if it is one."""
        return self.found.get(node.input[index]) if len(node.input) > index else None

    def is_parameter(self, constant: Constant | None) -> bool:
        """Whether what is stored is large and real enough to be no axis, shape, mask or scale."""
        tensor = self.stored.get(constant.root) if constant else None
        return tensor is not None and tensor.data_type in _BITS and math.prod(tensor.dims) > 1

    def data_type(self, name: str) -> int | None:
        """The element type of an initializer."""
        return self.stored[name].data_type if name in self.stored else None

    def values(self, name: str) -> tuple[int, ...] | None:
        """The integers of a small constant, or None where they are not in the file."""
        tensor = self.stored.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) > SMALL:
            return None
        return tuple(int(value) for value in onnx.numpy_helper.to_array(tensor).ravel())

    def number(self, name: str) -> float | None:
        """A constant of one element, or None where it is not in the file."""
        tensor = self.stored.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) != 1:
            return None
        return float(onnx.numpy_helper.to_array(tensor).ravel()[0])

    def folded(self, constant: Constant) -> Weight:
        """What is stored of a constant that no layer reads."""
        shape = tuple(self.stored[constant.root].dims)
        return Weight(shape, constant.stored_bits, "fp32", shape[-1], constant.root, constant.scales)

    def _folded(self, node: onnx.NodeProto) -> Constant:
        """The first operand, with the scales that it goes through: DequantizeLinear, or Cast and Mul."""
        source = self.found[node.input[0]] if node.input[0] else Constant(())
        if node.op_type == "Cast" and attribute(node, "to") == TensorProto.FLOAT:
            return replace(source, format="fp32")
        if node.op_type not in ("DequantizeLinear", "Mul"):
            return source
        scale = self.operand(node, 1) or Constant(())
        if node.op_type == "Mul" and scale.stored_bits < source.stored_bits:
            source, scale = scale, source
        if node.op_type == "Mul" and source.stored_bits > _BYTE:
            return source
        zero_points = self.operand(node, 2) if node.op_type == "DequantizeLinear" else None
        scales = math.prod(self.stored[scale.root].dims) if scale.root else scale.elements
        return replace(source, scales=scales, zero_points=zero_points.elements if zero_points else 0)


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """The attribute ``name`` of a node."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """The integer attribute ``name`` of a node."""
    value = attribute(node, name, default)
    return value if isinstance(value, int) else default


def integers(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    """The attribute ``name`` of a node, a list of integers; empty where it is absent."""
    value = attribute(node, name, ())
    return tuple(int(item) for item in value) if isinstance(value, Sequence) else ()


def _tensor(node: onnx.NodeProto) -> TensorProto:
    """What a Constant node holds when it is not a tensor."""
    value = onnx.helper.get_attribute_value(node.attribute[0])
    array = np.asarray(value) if isinstance(value, int | float | Sequence) else np.zeros(())
    return onnx.numpy_helper.from_array(array)
