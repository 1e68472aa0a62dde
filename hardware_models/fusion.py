"""The kernels that ONNX Runtime's CPU provider really executes for an operator table.

Each rule was read off the graphs that ONNX Runtime 1.31 writes after its own optimizer:

- an activation fuses into the convolution or linear layer before it, if nothing else reads the value between them;
- a relu (or clip) in front of a quantized tensor is the clamping of that quantization, and costs nothing;
- a kernel runs on integers only where what it reads, and mostly what it writes, is quantized. Around a float kernel
  stand explicit quantize and dequantize kernels, for activations and for int8 weights alike;
- max pooling, transposing and reshaping move bytes as they are, so a format passes through them both ways;
- at the highest level on x86 the addition of a residual, with its activation, fuses into a float convolution.

Not modelled: the layout reorders and transposes that the runtime puts around groups of convolutions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from kneepoint.hardware_models.operators import KINDS, Format, Operator, OperatorTable, Tensor

KernelFormat = Literal["fp32", "int8"]
KERNEL_KINDS = (*KINDS, "quantize", "dequantize")
FusionRule = Literal["activation", "residual"]
FUSION_RULES: tuple[FusionRule, ...] = get_args(FusionRule)
CONVOLUTIONS = frozenset({"conv", "depthwise_conv", "grouped_conv"})
CLAMPS = frozenset({"relu", "clip"})
"""Activations that the saturation of a quantized output performs. A clip is only free where the quantized range does
not reach beyond it, which holds for ranges calibrated behind the clip."""
CONV_ACTIVATIONS = frozenset({"relu", "leakyrelu", "sigmoid", "tanh", "hardsigmoid", "clip"})
LINEAR_ACTIVATIONS = frozenset({"relu", "leakyrelu", "sigmoid", "tanh", "hardsigmoid", "elu", "softplus"})
MOVERS = frozenset({"max_pool", "transpose", "view"})
"""Operators that do not compute with values, so that the runtime moves them across a quantization."""
INTEGER_FUNCTIONS = frozenset({"sigmoid", "leakyrelu"})
INTEGER_KINDS = frozenset({"concat", "max_pool", "avg_pool", "transpose", "resize", "softmax"})
"""Kinds with an integer kernel. A global average pool has one too, but is exported as ReduceMean, which has none."""
DEQUANTIZED_WEIGHTS = CONVOLUTIONS | {"conv_transpose", "linear"}
FP32_BYTES = 4
CHANNEL_ALIGNMENT = 4
"""The runtime's blocked convolutions need input channels in multiples of this."""
BLOCK = 16


@dataclass(frozen=True)
class Kernel:
    """One kernel that a runtime launches.

    Attributes:
        name: Of the operator it is headed by, or of the tensor it converts.
        kind: One of ``KERNEL_KINDS``.
        format: What it computes with.
        macs: Multiply-accumulate operations.
        input_bytes: Activations it reads, in the format it reads them in.
        weight_bytes: Constants it reads, unpacked.
        output_bytes: Activations it writes.
        elements: Of its output.
        operators: Names of the operators it stands for; empty for conversions.
        function: Its activation, alone or fused; ``add`` leads where a residual is fused; the foreign name of an
            ``other``.
        reads: Buffers it reads, for liveness; views share a buffer.
        writes: The buffer it writes.
    """

    name: str
    kind: str
    format: KernelFormat
    macs: int = 0
    input_bytes: int = 0
    weight_bytes: int = 0
    output_bytes: int = 0
    elements: int = 0
    operators: tuple[str, ...] = ()
    function: str = ""
    reads: tuple[str, ...] = ()
    writes: str = ""

    @property
    def row(self) -> tuple[str, KernelFormat, int, int, int, int, int, str]:
        """Everything a device is priced on: equal for equal structure, whatever its tensors are called."""
        sizes = (self.macs, self.input_bytes, self.weight_bytes, self.output_bytes, self.elements)
        return (self.kind, self.format, *sizes, self.function)


def fuse(table: OperatorTable, rules: Collection[str] = ("activation",)) -> tuple[Kernel, ...]:
    """The kernels of ``table``, in execution order.

    The outcome depends on structure, shapes and formats alone, never on names.

    Args:
        table: What the network computes.
        rules: Which of ``FUSION_RULES`` the runtime applies on the device: ``activation`` on every CPU, ``residual``
            where it has blocked convolutions (x86).

    Raises:
        ValueError: If a rule is not one of ``FUSION_RULES``.
    """
    if unknown := set(rules) - set(FUSION_RULES):
        raise ValueError(f"fusion rules are {FUSION_RULES}; got {sorted(unknown)}")
    graph = _Graph.of(table)
    groups = _fuse_activations(graph, "activation" in rules)
    if "residual" in rules:
        groups = _fuse_residuals(graph, groups)
    return tuple(_Emission(graph).kernels(groups))


@dataclass
class _Graph:
    """The table with formats passed through movers, and views resolved to the buffer they look at."""

    table: OperatorTable
    formats: dict[str, Format]
    reads: Counter[str]
    reader: Mapping[str, tuple[int, Operator]]
    root: Mapping[str, str]

    @classmethod
    def of(cls, table: OperatorTable) -> _Graph:
        reads = Counter(name for operator in table.operators for name in operator.inputs)
        reads.update(table.outputs)
        reader = {name: (i, operator) for i, operator in enumerate(table.operators) for name in operator.inputs}
        formats = _pass_formats(table, reads)
        return cls(table, formats, reads, reader, _view_roots(table, formats))

    def follower(self, name: str) -> tuple[int, Operator] | None:
        """The only reader of ``name`` and its position; None if there are more, or if the network returns it."""
        return self.reader.get(name) if self.reads[name] == 1 else None

    def tensor(self, name: str) -> Tensor:
        """The tensor in the format it really has."""
        tensor = self.table.tensors[name]
        return Tensor(name, tensor.shape, self.formats[name])

    def all_bytes(self, names: Iterable[str]) -> bool:
        """Whether every one of ``names`` is quantized."""
        return all(self.formats[name] == "uint8" for name in names)


def _pass_formats(table: OperatorTable, reads: Mapping[str, int]) -> dict[str, Format]:
    formats: dict[str, Format] = {name: tensor.format for name, tensor in table.tensors.items()}
    movers = [operator for operator in table.operators if operator.kind in MOVERS and operator.inputs]
    for operator in movers:
        if formats[operator.inputs[0]] == "uint8":
            formats[operator.output] = "uint8"
    for operator in reversed(movers):
        # ONNX Runtime does not move a quantization back across Flatten.
        if formats[operator.output] == "uint8" and reads[operator.inputs[0]] == 1 and operator.function != "flatten":
            formats[operator.inputs[0]] = "uint8"
    return formats


def _view_roots(table: OperatorTable, formats: Mapping[str, Format]) -> dict[str, str]:
    root = {name: name for name in table.tensors}
    for operator in table.operators:
        if operator.kind == "view" and operator.inputs and formats[operator.inputs[0]] == formats[operator.output]:
            root[operator.output] = root[operator.inputs[0]]
    return root


@dataclass
class _Group:
    """Operators that become one kernel; the first one heads it."""

    operators: list[Operator]
    position: int
    extra_inputs: list[str] = field(default_factory=list)

    @property
    def head(self) -> Operator:
        return self.operators[0]

    @property
    def output(self) -> str:
        return self.operators[-1].output

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.head.inputs, *self.extra_inputs)

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(operator.function or operator.kind for operator in self.operators[1:])

    @property
    def function(self) -> str:
        return "+".join(filter(None, (self.head.function, *self.functions)))

    def append(self, position: int, operator: Operator) -> None:
        self.operators.append(operator)
        self.position = position


# --- which operators become one kernel ---------------------------------------------------------------------------


def _fuse_activations(graph: _Graph, enabled: bool) -> list[_Group]:
    groups: list[_Group] = []
    absorbed: set[int] = set()
    for position, operator in enumerate(graph.table.operators):
        if position in absorbed:
            continue
        group = _Group([operator], position)
        follower = graph.follower(operator.output)
        if follower and follower[1].kind == "activation" and _takes(graph, operator, follower[1], enabled):
            group.append(*follower)
            absorbed.add(follower[0])
        groups.append(group)
    return groups


def _takes(graph: _Graph, operator: Operator, activation: Operator, enabled: bool) -> bool:
    """Whether ``operator`` runs with ``activation`` fused into it."""
    if graph.formats[operator.output] == "uint8" or operator.kind == "view":
        return False
    if graph.formats[activation.output] == "uint8" and activation.function in CLAMPS:
        return True
    if operator.kind in CONVOLUTIONS:
        return enabled and activation.function in CONV_ACTIVATIONS
    if operator.kind == "linear" and not _is_integer_linear(graph, operator):
        gemm = operator.weight is not None and operator.weight.bias and len(graph.tensor(operator.output).shape) == 2
        return enabled and gemm and activation.function in LINEAR_ACTIVATIONS
    return False


def _fuse_residuals(graph: _Graph, groups: list[_Group]) -> list[_Group]:
    """Gives every float addition of two blocked values to the convolution that wrote one of them."""
    writer = {group.output: group for group in groups}
    blocked: set[str] = set()
    gone: set[str] = set()
    for group in groups:
        if group.head.name in gone or not _is_blocked(graph, group, blocked):
            continue
        taker = _taker(graph, group, writer) if group.head.kind == "add" else None
        if taker is not None:
            gone |= _append_addition(graph, taker, group)
            group = taker
        writer[group.output] = group
        blocked.add(group.output)
    return sorted((group for group in groups if group.head.name not in gone), key=lambda group: group.position)


def _append_addition(graph: _Graph, taker: _Group, addition: _Group) -> set[str]:
    """Fuses ``addition`` and its activation into convolution ``taker``; returns the names of what was fused."""
    taker.extra_inputs = [name for name in addition.head.inputs if name != taker.output]
    taker.append(addition.position, addition.head)
    follower = graph.follower(addition.output)
    if follower and follower[1].kind == "activation" and follower[1].function in CONV_ACTIVATIONS:
        taker.append(*follower)
    return {operator.name for operator in taker.operators[1:]}


def _taker(graph: _Graph, addition: _Group, writer: Mapping[str, _Group]) -> _Group | None:
    """The latest bare convolution whose output only ``addition`` reads."""
    found = [
        writer[name]
        for name in addition.head.inputs
        if graph.reads[name] == 1 and writer[name].head.kind in CONVOLUTIONS and len(writer[name].operators) == 1
    ]
    return max(found, key=lambda group: group.position, default=None)


def _is_blocked(graph: _Graph, group: _Group, blocked: set[str]) -> bool:
    """Whether the runtime computes ``group`` in its blocked channel layout."""
    head, shape = group.head, graph.tensor(group.output).shape
    if len(shape) != 4 or graph.formats[group.output] == "uint8":
        return False
    if head.kind in CONVOLUTIONS:
        return _is_blocked_convolution(head, graph.tensor(head.inputs[0]).shape[1])
    if head.kind == "add" and (head.function or len(head.inputs) != 2 or len(group.operators) > 1):
        return False
    passes = head.kind in ("max_pool", "avg_pool", "global_avg_pool", "add", "concat")
    passes = passes or (head.kind == "activation" and head.function in CONV_ACTIVATIONS)
    aligned = head.kind != "concat" or all(graph.tensor(name).shape[1] % BLOCK == 0 for name in head.inputs)
    return passes and aligned and all(name in blocked for name in head.inputs)


def _is_blocked_convolution(operator: Operator, channels: int) -> bool:
    weight = operator.weight
    if weight is None or weight.format == "int8":
        return False
    if operator.kind == "conv":
        return channels < BLOCK or channels % CHANNEL_ALIGNMENT == 0
    if operator.kind == "depthwise_conv":
        return channels == weight.channels and channels % CHANNEL_ALIGNMENT == 0
    return channels % BLOCK == 0 and weight.shape[1] % BLOCK == 0


# --- which kernels run on integers -------------------------------------------------------------------------------


def _has_integer_weight(operator: Operator) -> bool:
    return operator.weight is not None and operator.weight.format == "int8"


def _is_integer_linear(graph: _Graph, operator: Operator) -> bool:
    return _has_integer_weight(operator) and graph.all_bytes(operator.inputs[:1])


def _is_integer(graph: _Graph, group: _Group) -> bool:
    head = group.head
    if head.kind == "linear":
        return _is_integer_linear(graph, head)
    if head.kind == "matmul":
        return graph.all_bytes(head.inputs)
    if not graph.all_bytes((*group.inputs, group.output)):
        return False
    if head.kind in CONVOLUTIONS:
        return _has_integer_weight(head) and CLAMPS.issuperset(group.functions)
    if head.kind in ("add", "mul"):
        return not head.function and len(head.inputs) == 2
    if head.kind == "activation":
        return head.function in INTEGER_FUNCTIONS
    return head.kind in INTEGER_KINDS


def _writes_bytes(graph: _Graph, group: _Group) -> bool:
    """Whether an integer kernel writes the quantized tensor itself."""
    if graph.formats[group.output] != "uint8":
        return False
    # Beyond two axes the runtime reshapes between a linear layer and its relu, and quantizes after that.
    flat = len(graph.tensor(group.output).shape) == 2
    return group.head.kind != "linear" or flat or not group.functions


# --- kernels -----------------------------------------------------------------------------------------------------


@dataclass
class _Emission:
    """Writes kernels in order, with a conversion the first time a tensor is needed in the other format."""

    graph: _Graph

    def kernels(self, groups: list[_Group]) -> Iterator[Kernel]:
        for name in self.graph.table.inputs:
            if self.graph.formats[name] == "uint8":
                yield self._quantize(name, source=f"{name}:float")
        for group in groups:
            yield from self._of_group(group)
        for name in self.graph.table.outputs:
            yield from self._dequantize(name)

    def _of_group(self, group: _Group) -> Iterator[Kernel]:
        graph = self.graph
        if group.head.kind == "view":
            source, output = (*group.head.inputs, group.output)[0], group.output
            if graph.formats[output] == "uint8" and graph.formats[source] == "fp32":
                yield self._quantize(output, source=graph.root[source])
        elif _is_integer(graph, group):
            direct = _writes_bytes(graph, group)
            yield self._kernel(group, "int8", writes_bytes=direct)
            if graph.formats[group.output] == "uint8" and not direct:
                yield self._quantize(group.output, source=f"{group.output}:float")
        else:
            for name in group.inputs:
                yield from self._dequantize(name)
            yield from self._dequantize_weight(group.head)
            yield self._kernel(group, "fp32", writes_bytes=False)
            if graph.formats[group.output] == "uint8":
                yield self._quantize(group.output, source=f"{group.output}:float")

    def _kernel(self, group: _Group, computes_in: KernelFormat, *, writes_bytes: bool) -> Kernel:
        head, output = group.head, self.graph.tensor(group.output)
        roots = [self.graph.root[name] for name in group.inputs]
        quantized = {name: self.graph.formats[name] == "uint8" for name in {*roots, output.name}}
        wide = 1 if computes_in == "int8" else FP32_BYTES
        return Kernel(
            name=head.name,
            kind=head.kind,
            format=computes_in,
            macs=head.macs,
            input_bytes=sum(self.graph.tensor(name).elements for name in group.inputs) * wide,
            weight_bytes=_weight_bytes(head, output, wide),
            output_bytes=output.elements * (1 if writes_bytes else FP32_BYTES),
            elements=output.elements,
            operators=tuple(operator.name for operator in group.operators),
            function=group.function,
            reads=tuple(f"{name}:float" if quantized[name] and computes_in == "fp32" else name for name in roots),
            writes=f"{output.name}:float" if quantized[output.name] and not writes_bytes else output.name,
        )

    def _quantize(self, name: str, source: str) -> Kernel:
        elements = self.graph.tensor(name).elements
        return Kernel(
            name=f"{name}:quantize",
            kind="quantize",
            format="int8",
            input_bytes=FP32_BYTES * elements,
            output_bytes=elements,
            elements=elements,
            reads=(source,),
            writes=self.graph.root[name],
        )

    def _dequantize(self, name: str) -> Iterator[Kernel]:
        """The float copy of a quantized tensor: ONNX Runtime makes one for each float kernel that reads it."""
        root = self.graph.root[name]
        if self.graph.formats[root] == "uint8":
            yield _dequantize_kernel(root, self.graph.tensor(root).elements, reads=(root,), writes=f"{root}:float")

    def _dequantize_weight(self, operator: Operator) -> Iterator[Kernel]:
        """ONNX Runtime unpacks the int8 weight of a float kernel again at every inference."""
        if operator.kind in DEQUANTIZED_WEIGHTS and operator.weight and operator.weight.format == "int8":
            yield _dequantize_kernel(operator.name, operator.weight.elements)


def _dequantize_kernel(name: str, elements: int, reads: tuple[str, ...] = (), writes: str = "") -> Kernel:
    return Kernel(
        name=f"{name}:dequantize",
        kind="dequantize",
        format="int8",
        input_bytes=elements,
        output_bytes=FP32_BYTES * elements,
        elements=elements,
        reads=reads,
        writes=writes,
    )


def _weight_bytes(operator: Operator, output: Tensor, wide: int) -> int:
    if operator.weight is None:
        return 0
    if operator.kind == "embedding":  # only the rows that are looked up are read
        return output.elements * wide
    return operator.weight.elements * wide
