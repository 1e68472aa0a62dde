"""Small ONNX graphs, written the way this package writes its artifacts, so that they run the same kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

Precision = Literal["fp32", "w8a8", "dynamic", "packed4", "packed8"]
"""What a layer computes with: floats, calibrated bytes, bytes with the range of every batch, or (linear layers) floats
with a weight that its kernel unpacks."""

_OPSET = 21
_CONTRIBUTED = "com.microsoft"
_SCALE, _ZERO_POINT = 0.05, 128
_POSITIVE_SCALE = 6 / 255
"""Of what a relu or a clip to 6 wrote: covers what they let through, so that the runtime takes them for its clamp."""
_GROUP = 32
_MOST_DRAWN = 1 << 18
_CLAMPS = ("Relu", "Clip")


@dataclass(frozen=True)
class Value:
    """An activation: its name in the graph, and its shape with the batch as a number."""

    name: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """The size of axis 1."""
        return self.shape[1]


@dataclass
class GraphBuilder:
    """Writes one graph, node by node; every method returns what the node computes.

    The batch is free in the graph, as in an artifact: ONNX Runtime fuses more where every size is known.

    Attributes:
        random: Draws the constants.
        nodes: Written so far.
        constants: Written so far.
        inputs: Asked for so far.
        bytes_of: Values that were quantized, and what stands for them behind it, by name.
        scale_of: The scales of what stands for them.
    """

    random: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    bytes_of: dict[str, Value] = field(default_factory=dict)
    scale_of: dict[str, float] = field(default_factory=dict)

    def input(self, *shape: int) -> Value:
        """A new input of the graph."""
        value = Value(f"input{len(self.inputs)}", shape)
        self.inputs.append(value)
        return value

    def model(self, outputs: Sequence[Value]) -> ModelProto:
        """The graph that computes ``outputs``."""
        given, made = ([_declared(value) for value in values] for values in (self.inputs, outputs))
        graph = helper.make_graph(self.nodes, "micro", given, made, initializer=self.constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIBUTED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    # --- layers ----------------------------------------------------------------------------------------------------

    def conv(
        self, x: Value, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, precision: Precision = "fp32"
    ) -> Value:
        """A convolution with a bias, padded to keep the size at stride 1."""
        shape = (channels, x.channels // groups, kernel, kernel)
        padding = kernel // 2
        sizes = [(size + 2 * padding - kernel) // stride + 1 for size in x.shape[2:]]
        if precision == "w8a8":
            x, weight = self.quantized(x), self._bytes(shape, axis=0)
            bias = self._integer_bias(x, shape)
        else:
            weight, bias = self._floats(shape), self._floats((channels,))
        options = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4, "group": groups}
        return self.node("Conv", [x, weight, bias], (x.shape[0], channels, *sizes), **options)

    def linear(self, x: Value, features: int, precision: Precision = "fp32", bias: bool = True) -> Value:
        """A linear layer on the last axis: Gemm on two axes, a product and an addition on more."""
        width, shape = x.shape[-1], (*x.shape[:-1], features)
        if precision == "dynamic":
            product = self._dynamic_product(x, features)
        elif precision in ("packed4", "packed8"):
            product = self._packed_product(x, features, int(precision[-1]))
        elif len(shape) == 2 and bias:  # a matrix
            return self._gemm(x, features, precision)
        elif precision == "w8a8":
            product = self.node("MatMul", [self.quantized(x), self._bytes((width, features), axis=1)], shape)
        else:
            product = self.node("MatMul", [x, self._floats((width, features))], shape)
        return self.node("Add", [product, self._floats((features,))], shape) if bias else product

    def _gemm(self, x: Value, features: int, precision: Precision) -> Value:
        shape = (features, x.shape[1])
        if precision == "w8a8":
            x, weight = self.quantized(x), self._bytes(shape, axis=0)
            bias = self._integer_bias(x, shape)
        else:
            weight, bias = self._floats(shape), self._floats((features,))
        return self.node("Gemm", [x, weight, bias], (x.shape[0], features), transB=1)

    def _dynamic_product(self, x: Value, features: int) -> Value:
        width, shape = x.shape[-1], (*x.shape[:-1], features)
        weight = self.constant(self.random.integers(-127, 128, (width, features), np.int8))
        scales = self.constant(self.random.uniform(1e-3, 2e-3, features).astype(np.float32))
        outputs = [f"dynamic{len(self.nodes)}_{part}" for part in ("bytes", "scale", "zero")]
        self.nodes.append(helper.make_node("DynamicQuantizeLinear", [x.name], outputs))
        quantized, scale, zero = (Value(name, ()) for name in outputs)
        integers = self.node("MatMulInteger", [quantized, weight, zero], shape)
        floats = self.node("Cast", [integers], shape, to=TensorProto.FLOAT)
        return self.node("Mul", [floats, self.node("Mul", [scale, scales], (features,))], shape)

    def _packed_product(self, x: Value, features: int, bits: int) -> Value:
        groups = math.ceil(x.shape[-1] / _GROUP)
        packed = self.random.integers(0, 256, (features, groups, _GROUP * bits // 8), np.uint8)
        scales = self.random.uniform(1e-3, 2e-3, features * groups).astype(np.float32)
        return self.node(
            "MatMulNBits",
            [x, self.constant(packed), self.constant(scales)],
            (*x.shape[:-1], features),
            domain=_CONTRIBUTED,
            N=features,
            K=x.shape[-1],
            bits=bits,
            block_size=_GROUP,
            accuracy_level=0,
        )

    def embedding(self, rows: int, width: int, tokens: Value, precision: Precision = "fp32") -> Value:
        """Rows of a table, looked up by ``tokens``, which are rounded to whole numbers.

        A table of bytes is looked up, cast and multiplied by the scales of its rows, which are looked up, too.
        """
        indices = self.node("Cast", [tokens], tokens.shape, to=TensorProto.INT64)
        shape = (*tokens.shape, width)
        if precision == "fp32":
            return self.node("Gather", [self._floats((rows, width)), indices], shape)
        table = self.constant(self.random.integers(-127, 128, (rows, width), np.int8))
        floats = self.node("Cast", [self.node("Gather", [table, indices], shape)], shape, to=TensorProto.FLOAT)
        return self.binary("Mul", floats, self.node("Gather", [self._floats((rows, 1)), indices], (*tokens.shape, 1)))

    # --- everything else -------------------------------------------------------------------------------------------

    def quantized(self, x: Value) -> Value:
        """``x`` through a pair of QuantizeLinear and DequantizeLinear, which all its readers share."""
        if x.name in self.bytes_of:
            return self.bytes_of[x.name]
        positive = x.name.startswith(_CLAMPS)
        scale = self.constant(np.float32(_POSITIVE_SCALE if positive else _SCALE))
        zero_point = self.constant(np.uint8(0 if positive else _ZERO_POINT))
        integers = self.node("QuantizeLinear", [x, scale, zero_point], x.shape)
        result = self.node("DequantizeLinear", [integers, scale, zero_point], x.shape)
        self.bytes_of.update({x.name: result, result.name: result})
        self.scale_of[result.name] = _POSITIVE_SCALE if positive else _SCALE
        return result

    def unary(self, kind: str, x: Value, **attributes: Any) -> Value:
        """An operator of one input, which keeps the shape."""
        return self.node(kind, [x], x.shape, **attributes)

    def binary(self, kind: str, x: Value, y: Value) -> Value:
        """An operator of two inputs, the second of which is broadcast."""
        return self.node(kind, [x, y], x.shape)

    def hardswish(self, x: Value) -> Value:
        """The product of ``x`` and hardsigmoid(x), in the two nodes that torch's exporter makes of it."""
        return self.binary("Mul", x, self.unary("HardSigmoid", x, alpha=1 / 6, beta=0.5))

    def silu(self, x: Value) -> Value:
        """The product of ``x`` and sigmoid(x)."""
        return self.binary("Mul", x, self.unary("Sigmoid", x))

    def layer_norm(self, x: Value) -> Value:
        """Over the last axis."""
        width = x.shape[-1]
        return self.node("LayerNormalization", [x, self._floats((width,)), self._floats((width,))], x.shape, axis=-1)

    def reduce_mean(self, x: Value, axes: Sequence[int], *, keep: bool) -> Value:
        """The mean over ``axes``."""
        kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        shape = kept if keep else [size for axis, size in enumerate(x.shape) if axis not in axes]
        indices = self.constant(np.array(axes, np.int64))
        return self.node("ReduceMean", [x, indices], tuple(shape), keepdims=int(keep))

    def pool(self, kind: str, x: Value, kernel: int, stride: int) -> Value:
        """MaxPool or AveragePool."""
        padding = kernel // 2
        sizes = [(size + 2 * padding - kernel) // stride + 1 for size in x.shape[2:]]
        options = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
        return self.node(kind, [x], (*x.shape[:2], *sizes), **options)

    def whole_average(self, x: Value) -> Value:
        """AveragePool over the whole image."""
        return self.node("AveragePool", [x], (*x.shape[:2], 1, 1), kernel_shape=list(x.shape[2:]))

    def transpose(self, x: Value, *axes: int) -> Value:
        """The axes in another order."""
        return self.node("Transpose", [x], tuple(x.shape[axis] for axis in axes), perm=list(axes))

    def reshape(self, x: Value, *shape: int) -> Value:
        """The same elements under another shape of the same batch."""
        return self.node("Reshape", [x, self.constant(np.array([0, *shape[1:]], np.int64))], shape)

    def matmul(self, x: Value, y: Value) -> Value:
        """A product of two activations."""
        return self.node("MatMul", [x, y], (*x.shape[:-1], y.shape[-1]))

    def scaled(self, x: Value, factor: float) -> Value:
        """Multiplied by one constant."""
        return self.binary("Mul", x, self.constant(np.float32(factor)))

    def channel_vector(self, x: Value) -> Value:
        """A constant of one number a channel of the last axis."""
        return self._floats((x.shape[-1],))

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Values behind one another."""
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return self.node("Concat", values, tuple(shape), axis=axis)

    def slice(self, x: Value, axis: int, start: int, stop: int) -> Value:
        """Part of an axis."""
        bounds = [self.constant(np.array([bound], np.int64)) for bound in (start, stop, axis)]
        shape = tuple(stop - start if index == axis else size for index, size in enumerate(x.shape))
        return self.node("Slice", [x, *bounds], shape)

    def pick(self, x: Value, axis: int, index: int) -> Value:
        """One entry of an axis, which goes away."""
        shape = tuple(size for place, size in enumerate(x.shape) if place != axis)
        return self.node("Gather", [x, self.constant(np.int64(index))], shape, axis=axis)

    def pad(self, x: Value, bottom: int, right: int) -> Value:
        """Rows and columns of zeros behind an image."""
        sizes = self.constant(np.array([0, 0, 0, 0, 0, 0, bottom, right], np.int64))
        shape = (*x.shape[:2], x.shape[2] + bottom, x.shape[3] + right)
        return self.node("Pad", [x, sizes], shape)

    def node(self, kind: str, inputs: Sequence[Value], shape: tuple[int, ...], **attributes: Any) -> Value:
        """One node of one output."""
        output = Value(f"{kind}{len(self.nodes)}", shape)
        names = [value.name for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [output.name], name=output.name, **attributes))
        return output

    def constant(self, value: npt.NDArray[Any] | np.generic) -> Value:
        """A constant of the graph."""
        made = Value(f"constant{len(self.constants)}", value.shape)
        self.constants.append(numpy_helper.from_array(np.asarray(value), made.name))
        return made

    @staticmethod
    def _drawn(shape: tuple[int, ...]) -> int:
        """How many numbers are drawn for a constant; larger ones repeat them, for drawing takes longer than timing."""
        return min(math.prod(shape), _MOST_DRAWN)

    def _floats(self, shape: tuple[int, ...]) -> Value:
        spread = 1 / math.sqrt(max(1, math.prod(shape[1:])))
        return self.constant(np.resize(spread * self.random.standard_normal(self._drawn(shape), np.float32), shape))

    def _bytes(self, shape: tuple[int, ...], axis: int) -> Value:
        """An int8 weight with a scale for every channel of ``axis``, dequantized."""
        weight = self.constant(np.resize(self.random.integers(-127, 128, self._drawn(shape), np.int8), shape))
        scales = self.constant(np.full(shape[axis], _weight_scale(shape, axis), np.float32))
        zero_points = self.constant(np.zeros(shape[axis], np.int8))
        return self.node("DequantizeLinear", [weight, scales, zero_points], shape, axis=axis)

    def _integer_bias(self, x: Value, shape: tuple[int, ...]) -> Value:
        """The bias of a layer that reads ``x`` with a weight of ``shape``, in steps of the products it is added to."""
        bias = self.constant(self.random.integers(-1000, 1000, shape[0], np.int32))
        scales = self.constant(
            np.full(shape[0], np.float32(self.scale_of[x.name]) * _weight_scale(shape, 0), np.float32)
        )
        return self.node("DequantizeLinear", [bias, scales], shape[:1], axis=0)


def _weight_scale(shape: tuple[int, ...], axis: int) -> np.float32:
    """Keeps the spread of what a layer writes near that of what it reads."""
    return np.float32(0.014 / math.sqrt(math.prod(shape) / shape[axis]))


def _declared(value: Value) -> ValueInfoProto:
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["batch", *value.shape[1:]])
