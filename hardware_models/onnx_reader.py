"""ONNX in, operator table out.

Only shapes, types and a few small constants (axes) are read: weights are never unpacked, and external data is never
opened, because a model file is untrusted input.

A quantize-dequantize pair becomes the format of the tensor it stands on; a chain of Cast and DequantizeLinear on an
initializer becomes the description of a weight. See ``kneepoint.hardware_models.operators``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from kneepoint.hardware_models.onnx_loading import SMALL, Shape, concrete_shapes, load_with_shapes
from kneepoint.hardware_models.operators import Operator, OperatorTable, Tensor, Weight, WeightFormat
from kneepoint.tasks.errors import DeviceError

# fmt: off
ACTIVATIONS = frozenset({
    "Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish",
    "Neg", "Pow", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish",
    "Tanh", "ThresholdedRelu",
})
# fmt: on
VIEWS = frozenset({"Reshape", "Flatten", "Identity", "Dropout", "Squeeze", "Unsqueeze"})
SHAPE_SOURCES = frozenset({"Shape", "Size"})
BITS: dict[int, int] = {
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
BYTE_TYPES = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True)
class _Constant:
    """A value that does not depend on the network's inputs.

    ``root`` names the initializer it comes from; it is empty for the result of a shape computation.
    """

    shape: Shape
    root: str = ""
    stored_bits: int = 32
    format: WeightFormat = "fp32"

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_onnx(source: str | Path | onnx.ModelProto, batch: int = 1) -> OperatorTable:
    """Lowers an ONNX model into the operator table.

    Args:
        source: The path of a model, or a model (which is left as it is).
        batch: What a symbolic or unknown first dimension of the inputs stands for.

    Returns:
        The operators in the model's own order, activations with concrete shapes.

    Raises:
        DeviceError: If the file is missing or is not ONNX, or if a shape cannot be inferred.
    """
    model = load_with_shapes(source, batch)
    try:
        return _Lowering(model.graph).table()
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DeviceError(
            f"the ONNX model is malformed ({type(error).__name__}: {error}); onnx.checker.check_model says where"
        ) from error


def _attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    value = _attribute(node, name, default)
    return value if isinstance(value, int) else default


def _integers(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    value = _attribute(node, name, ())
    return tuple(int(item) for item in value) if isinstance(value, Sequence) else ()


@dataclass
class _Lowering:
    """The walk over one graph; ``table`` is its result."""

    graph: onnx.GraphProto
    shapes: dict[str, Shape] = field(init=False)
    types: dict[str, int] = field(init=False)
    reads: Counter[str] = field(init=False)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    stored: dict[str, TensorProto] = field(default_factory=dict)
    constants: dict[str, _Constant] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    writer: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes = concrete_shapes(self.graph)
        self.types = {value.name: value.type.tensor_type.elem_type for value in self.graph.input}
        self.reads = Counter(value.name for value in self.graph.output)
        for node in self.graph.node:
            self.reads.update(name for name in node.input if name)
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        for tensor in self.graph.initializer:
            self._store(tensor.name, tensor)

    def table(self) -> OperatorTable:
        """Lowers every node, and collects what they read and wrote."""
        inputs = tuple(value.name for value in self.graph.input if value.name not in self.constants)
        for name in inputs:
            self._declare(name, "the network's input")
        for node in self.graph.node:
            self._lower(node)
        outputs = tuple(self._name(value.name) for value in self.graph.output if value.name not in self.constants)
        if missing := [name for name in outputs if name not in self.tensors]:
            raise KeyError(f"nothing writes the output {missing[0]!r}")
        return OperatorTable(tuple(self.operators), self.tensors, inputs, outputs, sum(self.counted.values()))

    # --- constants ---------------------------------------------------------------------------------------------

    def _store(self, name: str, tensor: TensorProto) -> None:
        self.stored[name] = tensor
        bits = BITS.get(tensor.data_type, 32)
        self.constants[name] = _Constant(tuple(tensor.dims), name, bits)

    def _fold(self, node: onnx.NodeProto) -> bool:
        """Whether ``node`` computes a constant; if so, describes its outputs."""
        if node.op_type == "Constant":
            value = _attribute(node, "value")
            tensor = value if isinstance(value, TensorProto) else onnx.numpy_helper.from_array(_constant_value(node))
            self._store(node.output[0], tensor)
            return True
        if node.op_type in SHAPE_SOURCES:
            self.constants[node.output[0]] = _Constant(self.shapes.get(node.output[0], ()))
            return True
        if not node.input or not all(name in self.constants for name in node.input if name):
            return False
        source = self.constants[node.input[0]] if node.input[0] else _Constant(())
        for name in node.output:
            shape = self.shapes.get(name, source.shape)
            self.constants[name] = replace(source, shape=shape, format=_constant_format(node, source))
        return True

    def _values(self, name: str) -> tuple[int, ...] | None:
        """The integers of a small constant, or None where they are not in the file."""
        tensor = self.stored.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) > SMALL:
            return None
        return tuple(int(value) for value in onnx.numpy_helper.to_array(tensor).ravel())

    def _constant(self, node: onnx.NodeProto, index: int) -> _Constant | None:
        return self.constants.get(node.input[index]) if len(node.input) > index else None

    def _count(self, *constants: _Constant | None) -> None:
        """Counts parameters once per initializer, however many layers share it."""
        for constant in constants:
            if constant is not None and constant.root:
                self.counted.setdefault(constant.root, constant.elements)

    # --- tensors and operators ---------------------------------------------------------------------------------

    def _name(self, name: str) -> str:
        """The tensor that ``name`` stands for, once pairs and folded nodes are gone."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def _declare(self, name: str, what: str) -> None:
        if name not in self.shapes:
            raise DeviceError(
                f"the shape of tensor {name!r} ({what}) cannot be inferred; only the batch may be symbolic: "
                "export the model with every other dimension fixed"
            )
        self.tensors[name] = Tensor(name, self.shapes[name])

    def _inputs(self, node: onnx.NodeProto) -> tuple[str, ...]:
        return tuple(self._name(name) for name in node.input if name and name not in self.constants)

    def _input(self, node: onnx.NodeProto) -> Tensor:
        return self.tensors[self._inputs(node)[0]]

    def _emit(
        self,
        node: onnx.NodeProto,
        kind: str,
        *,
        macs: int = 0,
        weight: Weight | None = None,
        function: str = "",
        kernel: Shape = (),
        inputs: tuple[str, ...] | None = None,
        layer: str = "",
    ) -> None:
        """Appends one operator an output of ``node``."""
        for output in (name for name in node.output if self.reads[name]):
            self._declare(output, f"written by {node.op_type} {node.name!r}")
            self.writer[output] = len(self.operators)
            name = self._unique(layer or node.name or output)
            reads = self._inputs(node) if inputs is None else inputs
            self.operators.append(Operator(name, kind, reads, output, macs, weight, function, kernel))

    def _unique(self, name: str) -> str:
        """``name``, numbered where an operator has it already: exporters may repeat node names, and layers share."""
        while name in self.names:
            self.names[name] += 1
            name = f"{name}:{self.names[name]}"
        self.names[name] = 1
        return name

    def _producer(self, name: str) -> Operator | None:
        """The operator that wrote ``name``, if nothing but the caller reads it."""
        name = self._name(name)
        return self.operators[self.writer[name]] if name in self.writer and self.reads[name] == 1 else None

    def _absorb(self, node: onnx.NodeProto, into: Operator, weight: Weight, layer: str = "") -> None:
        """Gives layer ``into`` a bias and makes the output of ``node`` its output."""
        index = self.writer[into.output]
        name = self._unique(layer) if layer else into.name
        self.operators[index] = replace(into, name=name, weight=replace(weight, bias=True))
        self.alias[node.output[0]] = into.output
        self.reads[into.output] = self.reads[node.output[0]]

    # --- one rule per family of nodes --------------------------------------------------------------------------

    def _lower(self, node: onnx.NodeProto) -> None:
        if self._fold(node):
            return
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is not None:
            rule(self, node)
        elif node.op_type in ACTIVATIONS and node.domain in ("", "ai.onnx"):
            function = {"Swish": "silu"}.get(node.op_type, node.op_type.lower())
            self._count(*(self._constant(node, 1) if node.op_type == "PRelu" else None,))
            self._emit(node, "activation", function=function, inputs=self._inputs(node)[:1])
        else:
            self._other(node)

    def _other(self, node: onnx.NodeProto) -> None:
        self._count(*(self._constant(node, i) for i in range(len(node.input)) if self._is_weight(node, i)))
        self._emit(node, "other", function=node.op_type)

    def _is_weight(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether an operand is large and real enough to be a parameter rather than an axis, a shape or a scale."""
        constant = self._constant(node, index)
        tensor = self.stored.get(constant.root) if constant else None
        return tensor is not None and tensor.data_type in BITS and math.prod(tensor.dims) > 1

    def _layer(self, node: onnx.NodeProto, weight: _Constant) -> str:
        """The layer's name in PyTorch, which exporters keep as the name of its weight."""
        layer, found, _ = weight.root.partition(".weight")
        return layer if found else node.name

    def _conv(self, node: onnx.NodeProto) -> None:
        weight = self._constant(node, 1)
        if weight is None or not self._inputs(node):
            return self._other(node)
        out, depth, *kernel = weight.shape
        groups = _integer(node, "group", 1)
        kind = "conv" if groups == 1 else "depthwise_conv" if depth == 1 else "grouped_conv"
        macs = math.prod(self.shapes.get(node.output[0], ())) * depth * math.prod(kernel)
        return self._emit_layer(node, kind, weight, weight.shape, out, macs, tuple(kernel))

    def _conv_transpose(self, node: onnx.NodeProto) -> None:
        weight = self._constant(node, 1)
        if weight is None or not self._inputs(node):
            return self._other(node)
        _, depth, *kernel = weight.shape
        macs = self._input(node).elements * depth * math.prod(kernel)
        channels = depth * _integer(node, "group", 1)
        return self._emit_layer(node, "conv_transpose", weight, weight.shape, channels, macs, tuple(kernel))

    def _gemm(self, node: onnx.NodeProto) -> None:
        weight = self._constant(node, 1)
        if weight is None or not self._inputs(node):
            return self._emit_matmul(node)
        shape = weight.shape if _integer(node, "transB", 0) else weight.shape[::-1]
        macs = self.shapes[node.output[0]][0] * weight.elements
        return self._emit_layer(node, "linear", weight, shape, shape[0], macs)

    def _matmul(self, node: onnx.NodeProto) -> None:
        left, right = self._constant(node, 0), self._constant(node, 1)
        weight = right or left
        if weight is None:
            return self._emit_matmul(node)
        inner = weight.shape[-2] if right and len(weight.shape) > 1 else weight.shape[-1]
        shape = (*weight.shape[:-2], *weight.shape[-2:][::-1]) if right else weight.shape
        channels = weight.shape[-1] if right and len(weight.shape) > 1 else shape[-2] if len(shape) > 1 else 1
        macs = math.prod(self.shapes.get(node.output[0], ())) * inner
        return self._emit_layer(node, "linear", weight, shape, channels, macs)

    def _emit_layer(
        self,
        node: onnx.NodeProto,
        kind: str,
        constant: _Constant,
        shape: Shape,
        channels: int,
        macs: int,
        kernel: Shape = (),
    ) -> None:
        bias = self._constant(node, 2)
        self._count(constant, bias)
        weight = Weight(shape, constant.stored_bits, constant.format, channels, bias is not None, constant.root)
        inputs, layer = self._inputs(node)[:1], self._layer(node, constant)
        self._emit(node, kind, macs=macs, weight=weight, kernel=kernel, inputs=inputs, layer=layer)

    def _emit_matmul(self, node: onnx.NodeProto) -> None:
        inner = self._input(node).shape[0 if _integer(node, "transA", 0) else -1]
        self._emit(node, "matmul", macs=math.prod(self.shapes.get(node.output[0], ())) * inner)

    def _gather(self, node: onnx.NodeProto) -> None:
        table = self._constant(node, 0)
        if table is None or not table.root or len(table.shape) != 2 or _integer(node, "axis", 0) != 0:
            return self._other(node)
        self._count(table)
        weight = Weight(table.shape, table.stored_bits, table.format, table.shape[1], name=table.root)
        return self._emit(node, "embedding", weight=weight, layer=self._layer(node, table))

    def _batch_norm(self, node: onnx.NodeProto) -> None:
        before = self._producer(node.input[0])
        channels = self._input(node).shape[1]
        if before and before.kind in ("conv", "depthwise_conv", "grouped_conv", "conv_transpose") and before.weight:
            if not before.weight.bias:
                self.counted[f"{before.name}: bias"] = channels
            return self._absorb(node, before, before.weight)
        self._count(self._constant(node, 1), self._constant(node, 2))
        return self._emit(node, "batch_norm")

    def _norm(self, node: onnx.NodeProto) -> None:
        kind = "layer_norm" if node.op_type == "LayerNormalization" else "group_norm"
        self._count(self._constant(node, 1), self._constant(node, 2))
        self._emit(node, kind, inputs=self._inputs(node)[:1])

    def _add(self, node: onnx.NodeProto) -> None:
        constant = self._constant(node, 0) or self._constant(node, 1)
        if constant is None:
            return self._emit(node, "add", function=_elementwise_function(node))
        before = self._producer(next(name for name in node.input if name not in self.constants))
        if before and before.weight and node.op_type == "Add" and _is_bias_of(before, before.weight, constant):
            self._count(constant)
            # Exporters transpose the weight of such a layer under a new name, but keep its bias.
            layer, found, _ = constant.root.partition(".bias")
            return self._absorb(node, before, before.weight, layer if found else "")
        return self._with_constant(node, "add", constant)

    def _mul(self, node: onnx.NodeProto) -> None:
        constant = self._constant(node, 0) or self._constant(node, 1)
        if constant is not None:
            return self._with_constant(node, "mul", constant)
        if node.op_type == "Mul" and self._is_silu(node):
            return None
        return self._emit(node, "mul", function=_elementwise_function(node))

    def _with_constant(self, node: onnx.NodeProto, kind: str, constant: _Constant) -> None:
        if constant.elements > 1:
            self._count(constant)
        self._emit(node, kind, function=_elementwise_function(node))

    def _is_silu(self, node: onnx.NodeProto) -> bool:
        """Whether ``node`` is x * sigmoid(x), which is then one activation in place of two operators."""
        for value, gate in (node.input, tuple(node.input)[::-1]):
            sigmoid = self._producer(gate)
            if sigmoid and sigmoid.function == "sigmoid" and sigmoid.inputs == (self._name(value),):
                break
        else:
            return False
        if self.writer[sigmoid.output] != len(self.operators) - 1 or self.tensors[sigmoid.output].format != "fp32":
            return False
        del self.names[self.operators.pop().name]
        del self.tensors[sigmoid.output], self.writer[sigmoid.output]
        self.reads[sigmoid.inputs[0]] -= 1  # one operator reads it now
        self._emit(node, "activation", function="silu", inputs=sigmoid.inputs)
        return True

    def _reduce_mean(self, node: onnx.NodeProto) -> None:
        rank = len(self._input(node).shape)
        axes = self._values(node.input[1]) if len(node.input) > 1 else _integers(node, "axes")
        if axes is not None and rank > 2 and sorted(axis % rank for axis in axes) == list(range(2, rank)):
            return self._emit(node, "global_avg_pool", inputs=self._inputs(node)[:1])
        return self._other(node)

    def _pool(self, node: onnx.NodeProto) -> None:
        kind = "avg_pool" if node.op_type == "AveragePool" else "max_pool"
        self._emit(node, kind, kernel=_integers(node, "kernel_shape"))

    def _plain(self, node: onnx.NodeProto) -> None:
        kinds = {"Concat": "concat", "Resize": "resize", "Transpose": "transpose", "Softmax": "softmax"}
        self._emit(node, kinds.get(node.op_type, "global_avg_pool"))

    def _view(self, node: onnx.NodeProto) -> None:
        self._emit(node, "view", function=node.op_type.lower(), inputs=self._inputs(node)[:1])

    def _quantize(self, node: onnx.NodeProto) -> None:
        """The pair's first half: gives the tensor its format, or a second, quantized tensor beside the float one."""
        if self._quantized_type(node) not in BYTE_TYPES:
            return self._other(node)
        source = self._name(node.input[0])
        tensor = self.tensors[source]
        if tensor.format == "fp32" and self._only_quantized(node.input[0]):
            self.alias[node.output[0]] = source
            self.tensors[source] = replace(tensor, format="uint8")
            return None
        self._emit(node, "view", function="quantize", inputs=(source,))
        self.tensors[node.output[0]] = replace(self.tensors[node.output[0]], format="uint8")
        return None

    def _quantized_type(self, node: onnx.NodeProto) -> int:
        zero_point = self.stored.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is not None:
            return zero_point.data_type
        return _integer(node, "output_dtype", 0) or TensorProto.UINT8

    def _only_quantized(self, name: str) -> bool:
        """Whether nobody reads the float tensor before it is quantized."""
        if any(value.name == name for value in self.graph.output):
            return False
        return all(
            reader.op_type == "QuantizeLinear" and self._quantized_type(reader) in BYTE_TYPES
            for original in (name, *_originals(self.alias, name))
            for reader in self.readers.get(original, ())
            if not (reader.op_type == "BatchNormalization" and reader.output[0] in self.alias)
        )

    def _dequantize(self, node: onnx.NodeProto) -> None:
        """The pair's second half: its output is read under the tensor's own name."""
        source = self._name(node.input[0])
        if self.types.get(source) in BYTE_TYPES:
            self.tensors[source] = replace(self.tensors[source], format="uint8")
        if self.tensors[source].format != "uint8":
            return self._other(node)
        self.alias[node.output[0]] = source
        self.reads[source] += self.reads[node.output[0]] - 1
        return None


def _originals(alias: dict[str, str], name: str) -> Iterator[str]:
    """The names along the chain from ``name`` to the tensor it stands for."""
    while name in alias:
        name = alias[name]
        yield name


def _constant_value(node: onnx.NodeProto) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """What a Constant node holds when it is not a tensor."""
    value = onnx.helper.get_attribute_value(node.attribute[0])
    return np.asarray(value) if isinstance(value, int | float | Sequence) else np.zeros(())


def _constant_format(node: onnx.NodeProto, source: _Constant) -> WeightFormat:
    """A weight is computed in int8 once it went through DequantizeLinear from eight bits or fewer."""
    if node.op_type == "DequantizeLinear" and source.stored_bits <= 8:
        return "int8"
    return source.format


def _elementwise_function(node: onnx.NodeProto) -> str:
    """Empty for what the kinds ``add`` and ``mul`` are named after."""
    return {"Sub": "sub", "Div": "div"}.get(node.op_type, "")


def _is_bias_of(operator: Operator, weight: Weight, constant: _Constant) -> bool:
    """Whether adding ``constant`` to the output of ``operator`` is the bias of a linear layer."""
    return operator.kind == "linear" and not weight.bias and constant.shape == (weight.channels,)


_Rule = Callable[[_Lowering, onnx.NodeProto], None]

_RULES: dict[str, _Rule] = {
    "Conv": _Lowering._conv,
    "ConvTranspose": _Lowering._conv_transpose,
    "Gemm": _Lowering._gemm,
    "MatMul": _Lowering._matmul,
    "Gather": _Lowering._gather,
    "BatchNormalization": _Lowering._batch_norm,
    "LayerNormalization": _Lowering._norm,
    "GroupNormalization": _Lowering._norm,
    "Add": _Lowering._add,
    "Sub": _Lowering._add,
    "Mul": _Lowering._mul,
    "Div": _Lowering._mul,
    "ReduceMean": _Lowering._reduce_mean,
    "MaxPool": _Lowering._pool,
    "AveragePool": _Lowering._pool,
    "GlobalAveragePool": _Lowering._plain,
    "Concat": _Lowering._plain,
    "Resize": _Lowering._plain,
    "Transpose": _Lowering._plain,
    "Softmax": _Lowering._plain,
    "QuantizeLinear": _Lowering._quantize,
    "DequantizeLinear": _Lowering._dequantize,
    **dict.fromkeys(VIEWS, _Lowering._view),
}
