"""Groups of operators as kernels, with the conversions between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kneepoint.hardware_models.fusion_graph import CONVOLUTIONS, FusionGraph, has_integer_weight, has_packed_weight
from kneepoint.hardware_models.grouping import CLAMPS, Group
from kneepoint.hardware_models.kernels import Kernel, KernelFormat
from kneepoint.hardware_models.operators import BITS, FP32_BYTES, Operator, Tensor, Weight

_INTEGER_FUNCTIONS = frozenset({"sigmoid", "leakyrelu"})
_INTEGER_KINDS = frozenset({"concat", "max_pool", "avg_pool", "transpose", "resize", "softmax"})
"""Kinds with an integer kernel. A global average pool has one too, but is exported as ReduceMean, which has none."""
_DEQUANTIZED_WEIGHTS = CONVOLUTIONS | {"conv_transpose", "linear"}


@dataclass
class Emission:
    """Writes kernels in order, with a conversion where a tensor is needed in another format.

    Attributes:
        graph: Says how every tensor is held.
        shared: Values that were quantized once for several dynamic layers, so far.
    """

    graph: FusionGraph
    shared: set[str] = field(default_factory=set)

    def kernels(self, groups: list[Group]) -> Iterator[Kernel]:
        """The kernels of ``groups``."""
        for name in self.graph.table.inputs:
            if self.graph.is_quantized(name):
                yield self._quantize(name, source=f"{name}:float")
        for group in groups:
            yield from self._of_group(group)
        for name in self.graph.table.outputs:
            yield from self._dequantize(name)

    def _of_group(self, group: Group) -> Iterator[Kernel]:
        graph = self.graph
        if group.head.kind == "view":
            source, output = (*group.head.inputs, group.output)[0], group.output
            if graph.is_quantized(output) and not graph.is_quantized(source):
                yield self._quantize(output, source=graph.root[source])
            return
        direct = False
        if group.head.dynamic:
            yield from self._dynamic(group)
        elif _is_integer(graph, group):
            direct = _writes_bytes(graph, group)
            yield self._kernel(group, "int8", graph.width(group.inputs[0]), writes_bytes=direct)
        elif group.head.kind == "embedding":
            yield from self._embedding(group)
        else:
            yield from self._floats(group)
        yield from self._bias(group)
        if graph.is_quantized(group.output) and not direct:
            yield self._quantize(group.output, source=f"{group.output}:float")

    def _floats(self, group: Group) -> Iterator[Kernel]:
        for name in group.inputs:
            yield from self._dequantize(name)
        yield from _dequantize_weight(group.head)
        yield self._kernel(group, "fp32", FP32_BYTES, writes_bytes=False)

    def _dynamic(self, group: Group) -> Iterator[Kernel]:
        """One kernel that quantizes its float input itself; an input of several is quantized once for them all."""
        (name,) = group.head.inputs
        yield from self._dequantize(name)
        if sum(reader.dynamic for _, reader in self.graph.readers[name]) == 1:
            yield self._kernel(group, "int8", FP32_BYTES, writes_bytes=False)
            return
        if name not in self.shared:
            self.shared.add(name)
            elements = self.graph.tensor(name).elements
            yield _quantize_kernel(f"{name}:dynamic", elements, 1, reads=(self._floating(name),))
        yield self._kernel(group, "int8", 1, writes_bytes=False, reads=(f"{name}:dynamic",))

    def _embedding(self, group: Group) -> Iterator[Kernel]:
        """Rows are looked up as they are stored; what is no float then is cast, and multiplied by its row's scale."""
        weight, output = group.head.weight, self.graph.tensor(group.output)
        if weight is None or weight.format == "fp32":
            yield self._kernel(group, "fp32", FP32_BYTES, writes_bytes=False)
            return
        looked_up, name = output.elements * BITS[weight.format] // 8, group.head.name
        buffer = self._written(group, writes_bytes=False)
        yield Kernel(
            name=name,
            kind="embedding",
            format="int8" if weight.format == "int8" else "fp32",
            input_bytes=sum(self.graph.tensor(source).elements for source in group.inputs) * FP32_BYTES,
            weight_bytes=looked_up,
            output_bytes=looked_up,
            elements=output.elements,
            operators=tuple(operator.name for operator in group.operators),
            function=group.function,
            reads=tuple(self.graph.root[source] for source in group.inputs),
            writes=f"{name}:rows",
        )
        yield _dequantize_kernel(name, output.elements, BITS[weight.format] // 8, (f"{name}:rows",), buffer)
        if weight.scales:
            yield from _row_scales(group, output, weight, buffer)

    def _bias(self, group: Group) -> Iterator[Kernel]:
        """The addition that the kernel of a product leaves to a kernel of its own, which works in place."""
        bias = group.head.bias
        if bias is None or not _adds_apart(self.graph, group.head) or _gelu_behind(self.graph, group.head):
            return
        output = self.graph.tensor(group.output)
        buffer = self._written(group, writes_bytes=False)
        yield Kernel(
            name=f"{group.head.name}:bias",
            kind="add",
            format="fp32",
            input_bytes=FP32_BYTES * output.elements,
            weight_bytes=bias.executed_bytes,
            output_bytes=FP32_BYTES * output.elements,
            elements=output.elements,
            function="bias",
            reads=(buffer,),
            writes=buffer,
        )

    def _kernel(
        self,
        group: Group,
        computes_in: KernelFormat,
        width: int,
        *,
        writes_bytes: bool,
        reads: tuple[str, ...] | None = None,
    ) -> Kernel:
        """The kernel of ``group``, whose inputs have ``width`` bytes an element."""
        head, output = group.head, self.graph.tensor(group.output)
        floats = computes_in == "fp32" or head.dynamic
        buffers = (self._floating(name) if floats else self.graph.root[name] for name in group.inputs)
        return Kernel(
            name=head.name,
            kind=head.kind,
            format=computes_in,
            macs=head.macs,
            input_bytes=self._read_bytes(group, width),
            weight_bytes=self._weight_bytes(head, output, computes_in),
            output_bytes=output.elements * (self.graph.width(group.output) if writes_bytes else FP32_BYTES),
            elements=output.elements,
            operators=tuple(operator.name for operator in group.operators),
            function=group.function,
            reads=tuple(buffers) if reads is None else reads,
            writes=self._written(group, writes_bytes=writes_bytes),
            sparsity=head.weight.sparsity if head.weight else "dense",
        )

    def _read_bytes(self, group: Group, width: int) -> int:
        """A copy reads what it writes at most; all others read all of their inputs."""
        elements = sum(self.graph.tensor(name).elements for name in group.inputs)
        if group.head.kind == "copy":
            elements = min(elements, self.graph.tensor(group.output).elements)
        return elements * width

    def _weight_bytes(self, operator: Operator, output: Tensor, computes_in: KernelFormat) -> int:
        if operator.weight is None:
            before = self.graph.writer.get(operator.inputs[0]) if operator.inputs else None
            taken = before.bias if before is not None and _gelu_behind(self.graph, before) else None
            return taken.executed_bytes if taken is not None else 0
        if operator.kind == "embedding":  # only the rows that are looked up are read
            return output.elements * FP32_BYTES
        if operator.weight.format == "packed":
            return operator.weight.executed_bytes
        return operator.weight.elements * (1 if computes_in == "int8" else FP32_BYTES)

    def _written(self, group: Group, *, writes_bytes: bool) -> str:
        quantized = self.graph.is_quantized(group.output)
        return f"{group.output}:float" if quantized and not writes_bytes else group.output

    def _floating(self, name: str) -> str:
        """The buffer that holds the tensor as floats."""
        root = self.graph.root[name]
        return f"{root}:float" if self.graph.is_quantized(root) else root

    def _quantize(self, name: str, source: str) -> Kernel:
        elements, width = self.graph.tensor(name).elements, self.graph.width(name)
        return _quantize_kernel(name, elements, width, reads=(source,), writes=self.graph.root[name])

    def _dequantize(self, name: str) -> Iterator[Kernel]:
        """The float copy of a quantized tensor: ONNX Runtime makes one for each float kernel that reads it."""
        root = self.graph.root[name]
        if self.graph.is_quantized(root):
            elements = self.graph.tensor(root).elements
            yield _dequantize_kernel(root, elements, self.graph.width(root), (root,), f"{root}:float")


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
    return head.kind in _INTEGER_KINDS


def _writes_bytes(graph: FusionGraph, group: Group) -> bool:
    """Whether an integer kernel writes the quantized tensor itself; not where floats are added behind it."""
    moved = group.head.kind == "transpose" and graph.is_quantized(group.output)
    return (moved or graph.formats[group.output] == "uint8") and not _adds_apart(graph, group.head)


# --- biases of products --------------------------------------------------------------------------------------------


def _adds_apart(graph: FusionGraph, operator: Operator) -> bool:
    """Whether the bias of a linear layer is not added by its own kernel."""
    if operator.kind != "linear" or operator.bias is None or operator.dynamic:
        return False
    if has_packed_weight(operator):
        return _gelu_behind(graph, operator)
    return graph.is_product(operator)


def _gelu_behind(graph: FusionGraph, operator: Operator) -> bool:
    """Whether a gelu takes the bias of the linear layer before it: BiasGelu."""
    follower = graph.follower(operator.output)
    if operator.kind != "linear" or operator.dynamic or follower is None or graph.is_quantized(operator.output):
        return False
    return follower[1].function == "gelu" and (has_packed_weight(operator) or graph.is_product(operator))


# --- conversions ---------------------------------------------------------------------------------------------------


def _row_scales(group: Group, output: Tensor, weight: Weight, buffer: str) -> Iterator[Kernel]:
    """The scales of the rows that were looked up, and the product with them, which works in place."""
    name, rows = group.head.name, output.elements // weight.channels
    yield Kernel(
        name=f"{name}:scales",
        kind="embedding",
        format="fp32",
        input_bytes=FP32_BYTES * rows,
        weight_bytes=FP32_BYTES * rows,
        output_bytes=FP32_BYTES * rows,
        elements=rows,
        reads=tuple(group.inputs),
        writes=f"{name}:scales",
    )
    yield Kernel(
        name=f"{name}:product",
        kind="mul",
        format="fp32",
        input_bytes=FP32_BYTES * (output.elements + rows),
        output_bytes=FP32_BYTES * output.elements,
        elements=output.elements,
        reads=(buffer, f"{name}:scales"),
        writes=buffer,
    )


def _dequantize_weight(operator: Operator) -> Iterator[Kernel]:
    """ONNX Runtime unpacks the int8 weight of a float kernel again at every inference."""
    if operator.kind in _DEQUANTIZED_WEIGHTS and operator.weight and operator.weight.format == "int8":
        yield _dequantize_kernel(operator.name, operator.weight.elements)


def _quantize_kernel(name: str, elements: int, width: int, reads: tuple[str, ...], writes: str = "") -> Kernel:
    return Kernel(
        name=f"{name}:quantize",
        kind="quantize",
        format="int8",
        input_bytes=FP32_BYTES * elements,
        output_bytes=width * elements,
        elements=elements,
        reads=reads,
        writes=writes or name,
    )


def _dequantize_kernel(
    name: str, elements: int, width: int = 1, reads: tuple[str, ...] = (), writes: str = ""
) -> Kernel:
    return Kernel(
        name=f"{name}:dequantize",
        kind="dequantize",
        format="int8",
        input_bytes=width * elements,
        output_bytes=FP32_BYTES * elements,
        elements=elements,
        reads=reads,
        writes=writes,
    )
