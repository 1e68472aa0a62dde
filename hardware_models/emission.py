"""Groups of operators as nodes, with the conversions between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from kneepoint.hardware_models.fusion_graph import CONVOLUTIONS, FusionGraph, has_integer_weight, has_packed_weight
from kneepoint.hardware_models.grouping import CLAMPS, Group
from kneepoint.hardware_models.kernels import KernelFormat
from kneepoint.hardware_models.nodes import Node, NodeGraph, Value
from kneepoint.hardware_models.operators import BITS, FP32_BYTES, Operator

_INTEGER_FUNCTIONS = frozenset({"sigmoid", "leakyrelu"})
_INTEGER_KINDS = frozenset({"concat", "max_pool", "avg_pool", "global_avg_pool", "transpose", "resize", "softmax"})
"""Kinds with an integer kernel; ReduceMean has none."""
_PACKED: Mapping[int, KernelFormat] = {2: "packed2", 4: "packed4", 8: "packed8"}
_BLOCKWISE: Mapping[int, KernelFormat] = {2: "dynamic2", 4: "dynamic4", 8: "dynamic8"}
_BYTE = 8
_SILU, _SPLIT = "silu", "Split"
_DYNAMIC, _CAST = "dynamic", "cast"
"""Conversions that are not by stored scales: to the range of every batch, and without any scale."""
_DEQUANTIZED_WEIGHTS = CONVOLUTIONS | {"conv_transpose", "linear"}


@dataclass
class Emission:
    """Writes nodes in order, with a conversion where a value is needed in another format.

    Attributes:
        graph: Says how every tensor is held.
        result: What was written.
        shared: Values that were quantized once for several dynamic layers, so far.
        parted: Values that were split, and the floats that were.
    """

    graph: FusionGraph
    result: NodeGraph = field(init=False)
    shared: set[str] = field(default_factory=set)
    parted: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Declare every tensor of the table as it is held."""
        table = self.graph.table
        values = {name: Value(tensor.shape, self.graph.width(name), name) for name, tensor in table.tensors.items()}
        self.result = NodeGraph([], values, table.inputs, table.outputs)

    def nodes(self, groups: list[Group]) -> NodeGraph:
        """The nodes of ``groups``."""
        self.result.inputs = tuple(self._given(name) for name in self.graph.table.inputs)
        for group in groups:
            self._of_group(group)
        self.result.outputs = tuple(self._floating(name) for name in self.graph.table.outputs)
        self.result.index()
        return self.result

    def _given(self, name: str) -> str:
        """The value that the network is given: floats, which are quantized first where that is how they are held."""
        if not self.graph.is_quantized(name):
            return name
        given = self._declare(f"{name}:float", name, FP32_BYTES)
        self._quantize(name, given)
        return given

    def _of_group(self, group: Group) -> None:
        graph, head = self.graph, group.head
        if head.kind == "view":
            self._view(head)
            return
        direct = False
        if head.dynamic and not has_packed_weight(head):
            written = self._dynamic(group)
        elif _is_integer(graph, group):
            direct = _writes_bytes(graph, group)
            written = self._node(group, "int8", list(group.inputs), writes_bytes=direct)
        elif head.kind == "embedding":
            written = self._embedding(group)
        else:
            written = self._floats(group)
        written = self._bias(group, written)
        if graph.is_quantized(group.output) and not direct:
            self._quantize(group.output, written)

    def _view(self, operator: Operator) -> None:
        """A node of its own, which moves nothing; a quantization that was written as one is no view."""
        (source, *_), output = (*operator.inputs, operator.output), operator.output
        quantizes = self.graph.is_quantized(output) and not self.graph.is_quantized(source)
        if operator.function == "quantize" and quantizes:
            self._quantize(output, source)
            return
        written = self._declare(f"{output}:float", output, FP32_BYTES) if quantizes else output
        self.result.values[written].buffer = self.result.values[source].buffer
        node = Node(operator.name, "view", [source], written, "int8" if self._is_bytes(source) else "fp32")
        node.operator, node.operators, node.function = operator, (operator.name,), operator.function
        node.axes = operator.axes
        self.result.nodes.append(node)
        if quantizes:
            self._quantize(output, written)

    def _floats(self, group: Group) -> str:
        if group.head.function == _SILU and self.graph.is_quantized(group.head.inputs[0]):
            return self._silu_of_bytes(group)
        if group.head.function == _SPLIT and group.inputs[0] in self.parted:  # one node writes all parts
            return self._node(group, "fp32", [self.parted[group.inputs[0]]], writes_bytes=False)
        inputs = [self._floating(self.graph.source(name)) for name in group.inputs]
        if group.head.function == _SPLIT:
            self.parted[group.inputs[0]] = inputs[0]
        self._dequantize_weight(group.head)
        return self._node(group, "fp32", inputs, writes_bytes=False)

    def _silu_of_bytes(self, group: Group) -> str:
        """The sigmoid and the product in kernels of their own, each of which reads floats of its own."""
        head, (source,) = group.head, group.head.inputs
        gate = self._declare(f"{group.output}:gate", group.output, FP32_BYTES)
        read = self._floating(source)
        names = tuple(operator.name for operator in group.operators)
        self.result.nodes.append(Node(f"{head.name}:gate", "activation", [read], gate, "fp32", "sigmoid", head, names))
        written = self._target(group)
        self.result.nodes.append(Node(head.name, "mul", [self._floating(source), gate], written, operators=names))
        return written

    def _dynamic(self, group: Group) -> str:
        """One kernel that quantizes its float input itself; an input of several is quantized once for them all."""
        (name,) = group.head.inputs
        floats = self._floating(name)
        readers = [reader for _, reader in self.graph.readers[name]]
        if sum(reader.dynamic and not has_packed_weight(reader) for reader in readers) == 1:
            return self._node(group, "dynamic", [floats], writes_bytes=False)
        shared = f"{name}:dynamic"
        if name not in self.shared:
            self.shared.add(name)
            self._declare(shared, name, 1)
            self._convert(f"{name}:dynamic:quantize", "quantize", floats, shared, _DYNAMIC)
        return self._node(group, "int8", [shared], writes_bytes=False)

    def _embedding(self, group: Group) -> str:
        """Rows are looked up as they are stored; what is no float then is cast, and multiplied by its row's scale."""
        weight, head = group.head.weight, group.head
        if weight is None or weight.format in ("fp32", "packed"):
            return self._node(group, "fp32", list(group.inputs), writes_bytes=False)
        width = BITS[weight.format] // 8
        rows = self._declare(f"{head.name}:rows", group.output, width)
        self.result.nodes.append(
            Node(
                head.name,
                "embedding",
                list(group.inputs),
                rows,
                "int8" if weight.format == "int8" else "fp32",
                group.function,
                head,
                tuple(operator.name for operator in group.operators),
                weight_bytes=self.result.values[rows].elements * width,
            )
        )
        written = self._target(group)
        if not weight.scales:
            self._convert(f"{head.name}:dequantize", "dequantize", rows, written, _CAST)
            return written
        unscaled = self._declare(f"{head.name}:unscaled", group.output, FP32_BYTES)
        self._convert(f"{head.name}:dequantize", "dequantize", rows, unscaled, _CAST)
        self._row_scales(group, unscaled, written)
        return written

    def _row_scales(self, group: Group, unscaled: str, written: str) -> None:
        """The scales of the rows that were looked up, and the product with them."""
        head, shape = group.head, self.result.values[written].shape
        scales = self._declare(f"{head.name}:scales", group.output, FP32_BYTES, (*shape[:-1], 1))
        size = FP32_BYTES * self.result.values[scales].elements
        lookup = Node(scales, "embedding", list(group.inputs), scales, operator=head, weight_bytes=size)
        product = Node(f"{head.name}:product", "mul", [unscaled, scales], written)
        self.result.nodes.extend((lookup, product))

    def _bias(self, group: Group, product: str) -> str:
        """The addition that the kernel of a product leaves to a kernel of its own."""
        bias = group.head.bias
        if bias is None or not _adds_apart(self.graph, group.head) or _gelu_behind(self.graph, group.head):
            return product
        written = self._target(group)
        node = Node(f"{group.head.name}:bias", "add", [product], written, "fp32", "bias")
        node.operand = (bias.channels,)
        node.weight_bytes = bias.executed_bytes
        self.result.nodes.append(node)
        return written

    def _node(self, group: Group, computes_in: KernelFormat, inputs: list[str], *, writes_bytes: bool) -> str:
        """Appends the node of ``group``; returns what it writes."""
        head, written = group.head, self._written(group, writes_bytes=writes_bytes)
        node = Node(head.name, head.kind, inputs, written, computes_in, head.function, head)
        if head.kind == "global_avg_pool" and head.axes:  # GlobalAveragePool has none
            node.kind, node.function = "reduce", "ReduceMean"
        node.activation = "" if _clamps(self.graph, group) else "+".join(group.functions)
        if has_packed_weight(head) and head.weight is not None:
            names = _BLOCKWISE if head.dynamic else _PACKED
            node.format = next(name for bits, name in names.items() if bits >= min(head.weight.stored_bits, _BYTE))
        node.operators = tuple(operator.name for operator in group.operators)
        node.macs = head.macs
        node.weight_bytes = self._weight_bytes(head, self.result.values[written].elements, computes_in)
        node.axes, node.operand = head.axes, head.operand
        self.result.nodes.append(node)
        return written

    def _weight_bytes(self, operator: Operator, elements: int, computes_in: KernelFormat) -> int:
        if operator.weight is None:
            before = self.graph.writer.get(operator.inputs[0]) if operator.inputs else None
            taken = before.bias if before is not None and _gelu_behind(self.graph, before) else None
            return taken.executed_bytes if taken is not None else FP32_BYTES * math.prod(operator.operand or (0,))
        if operator.kind == "embedding":  # only the rows that are looked up are read
            rows = operator.weight.executed_bytes if operator.weight.format == "packed" else 0
            return rows * elements // operator.weight.elements if rows else elements * FP32_BYTES
        if operator.weight.format == "packed":
            return operator.weight.executed_bytes
        return operator.weight.elements * (FP32_BYTES if computes_in == "fp32" else 1)

    def _written(self, group: Group, *, writes_bytes: bool) -> str:
        """The value that the group's own node writes."""
        if writes_bytes:
            return group.output
        if _adds_apart(self.graph, group.head) and not _gelu_behind(self.graph, group.head):
            return self._declare(f"{group.output}:product", group.output, FP32_BYTES)
        return self._target(group)

    def _target(self, group: Group) -> str:
        """The float value that the group ends with: a copy where its output is held as bytes."""
        if not self.graph.is_quantized(group.output):
            return group.output
        return self._declare(f"{group.output}:written", group.output, FP32_BYTES)

    def _floating(self, name: str) -> str:
        """A float value: a copy of a quantized one, of which ONNX Runtime makes one for each that reads it."""
        if not self._is_bytes(name):
            return name
        copy = self._declare(f"{name}:float", name, FP32_BYTES)
        self._convert(f"{name}:dequantize", "dequantize", name, copy)
        return copy

    def _is_bytes(self, name: str) -> bool:
        held = self.graph.formats.get(name, "fp32")
        return held != "fp32"

    def _quantize(self, name: str, source: str) -> None:
        self._convert(f"{name}:quantize", "quantize", source, name)

    def _convert(self, name: str, kind: str, source: str, written: str, function: str = "") -> None:
        self.result.nodes.append(Node(name, kind, [source], written, "int8", function))

    def _dequantize_weight(self, operator: Operator) -> None:
        """ONNX Runtime unpacks the int8 weight of a float kernel again at every inference."""
        if operator.kind in _DEQUANTIZED_WEIGHTS and operator.weight and operator.weight.format == "int8":
            stored, copy = f"{operator.name}:stored", f"{operator.name}:unpacked"
            self.result.values[stored] = Value(operator.weight.shape, 1, buffer="")  # no activation
            self.result.values[copy] = Value(operator.weight.shape, FP32_BYTES, buffer="")
            node = Node(f"{operator.name}:dequantize", "dequantize", [stored], copy, "int8")
            node.axes = (0,)  # a scale an output channel
            self.result.nodes.append(node)

    def _declare(self, name: str, like: str, width: int, shape: tuple[int, ...] | None = None) -> str:
        unique = self.result.derive(name, like, shape)
        self.result.values[unique].width = width
        return unique


# --- which kernels run on integers ---------------------------------------------------------------------------------


def _is_integer(graph: FusionGraph, group: Group) -> bool:
    head = group.head
    if head.kind == "linear":
        return graph.is_integer_linear(head)
    if head.kind == "matmul":
        return graph.all_bytes(head.inputs)
    if head.kind == "transpose":  # moves elements as they are held
        return graph.is_quantized(group.output) and graph.formats[head.inputs[0]] == graph.formats[group.output]
    if not graph.all_bytes((*group.inputs, group.output)):
        return False
    if head.kind in CONVOLUTIONS:
        return has_integer_weight(head) and CLAMPS.issuperset(group.functions)
    if head.kind in ("add", "mul"):
        return not head.function and len(head.inputs) == 2
    if head.kind == "activation":
        return head.function in _INTEGER_FUNCTIONS
    return head.kind in _INTEGER_KINDS and not (head.kind == "global_avg_pool" and head.axes)


def _clamps(graph: FusionGraph, group: Group) -> bool:
    """Whether what follows the head is the saturation of a quantized output, so that no kernel computes it."""
    return graph.is_quantized(group.output) and CLAMPS.issuperset(group.functions)


def _writes_bytes(graph: FusionGraph, group: Group) -> bool:
    """Whether an integer kernel writes the quantized tensor itself; not where floats are added behind it."""
    moved = group.head.kind == "transpose" and graph.is_quantized(group.output)
    return (moved or graph.formats[group.output] == "uint8") and not _adds_apart(graph, group.head)


# --- biases of products --------------------------------------------------------------------------------------------


def _adds_apart(graph: FusionGraph, operator: Operator) -> bool:
    """Whether the bias of a linear layer is not added by its own kernel."""
    if operator.kind != "linear" or operator.bias is None:
        return False
    if has_packed_weight(operator):
        return _gelu_behind(graph, operator)
    return not operator.dynamic and graph.is_product(operator)


def _gelu_behind(graph: FusionGraph, operator: Operator) -> bool:
    """Whether a gelu takes the bias of the linear layer before it: BiasGelu."""
    follower = graph.follower(operator.output)
    if operator.kind != "linear" or follower is None or graph.is_quantized(operator.output):
        return False
    adds = has_packed_weight(operator) or (not operator.dynamic and graph.is_product(operator))
    return follower[1].function == "gelu" and adds
