"""An operator table as ONNX Runtime's optimizer sees it: formats moved across operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kneepoint.hardware_models.operators import BITS, Format, Operator, OperatorTable, Tensor

CONVOLUTIONS = frozenset({"conv", "depthwise_conv", "grouped_conv"})
MATRIX = 2
"""Axes of a value on which a linear layer with a bias is one Gemm."""
_MOVERS: Mapping[Format, frozenset[str]] = {
    "uint8": frozenset({"max_pool", "transpose", "view"}),
    "uint16": frozenset({"transpose", "view"}),
}
"""Operators that do not compute with values, so that the runtime moves them across a quantization to each format."""


@dataclass
class FusionGraph:
    """The table with formats passed through movers.

    Attributes:
        table: What it was made from.
        formats: Of every tensor, as the runtime really holds it.
        reads: How often each tensor is read; being an output of the network counts.
        readers: For each tensor, who reads it and at which position, in order.
        writer: For each tensor, who writes it.
        passed: For each tensor that is never written, because its readers do the work, what they read instead.
    """

    table: OperatorTable
    formats: dict[str, Format]
    reads: Counter[str]
    readers: Mapping[str, list[tuple[int, Operator]]]
    writer: Mapping[str, Operator]
    passed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, table: OperatorTable) -> FusionGraph:
        """The graph of ``table``."""
        reads = Counter(name for operator in table.operators for name in operator.inputs)
        reads.update(table.outputs)
        readers: dict[str, list[tuple[int, Operator]]] = {}
        for position, operator in enumerate(table.operators):
            for name in operator.inputs:
                readers.setdefault(name, []).append((position, operator))
        writer = {operator.output: operator for operator in table.operators}
        formats = _pass_formats(table, reads)
        return cls(table, formats, reads, readers, writer)

    def follower(self, name: str) -> tuple[int, Operator] | None:
        """The only reader of ``name`` and its position; None if there are more, or if the network returns it."""
        return self.readers[name][0] if self.reads[name] == 1 and name in self.readers else None

    def bypass(self, operator: Operator) -> None:
        """Let those that read what ``operator`` writes read what it reads: its work is done by them."""
        self.passed[operator.output] = self.source(operator.inputs[0])

    def source(self, name: str) -> str:
        """The tensor that is really read where an operator reads ``name``."""
        return self.passed.get(name, name)

    def tensor(self, name: str) -> Tensor:
        """The tensor in the format it really has."""
        return Tensor(name, self.table.tensors[name].shape, self.formats[name])

    def is_quantized(self, name: str) -> bool:
        """Whether the tensor is held as integers."""
        return self.formats[name] != "fp32"

    def width(self, name: str) -> int:
        """Bytes of an element as it is held."""
        return BITS[self.formats[name]] // 8

    def all_bytes(self, names: Iterable[str]) -> bool:
        """Whether every one of ``names`` is what integer kernels read."""
        return all(self.formats[name] == "uint8" for name in names)

    def is_integer_linear(self, operator: Operator) -> bool:
        """Whether a linear layer multiplies bytes whose ranges are calibrated."""
        return has_integer_weight(operator) and not operator.dynamic and self.all_bytes(operator.inputs[:1])

    def is_product(self, operator: Operator) -> bool:
        """Whether a linear layer runs as a product of matrices, to which a bias is added apart."""
        return operator.bias is None or len(self.table.tensors[operator.output].shape) != MATRIX


def has_integer_weight(operator: Operator) -> bool:
    """Whether the kernel would read its weight as bytes."""
    return operator.weight is not None and operator.weight.format == "int8"


def has_packed_weight(operator: Operator) -> bool:
    """Whether the kernel unpacks its weight itself."""
    return operator.weight is not None and operator.weight.format == "packed"


def _pass_formats(table: OperatorTable, reads: Mapping[str, int]) -> dict[str, Format]:
    formats: dict[str, Format] = {name: tensor.format for name, tensor in table.tensors.items()}
    for operator in table.operators:
        source = formats[operator.inputs[0]] if operator.inputs else "fp32"
        if operator.kind in _MOVERS.get(source, ()):
            formats[operator.output] = source
    for operator in reversed(table.operators):
        target = formats[operator.output]
        if operator.kind not in _MOVERS.get(target, ()) or not operator.inputs or operator.function == "flatten":
            continue  # ONNX Runtime does not move a quantization back across Flatten
        if reads[operator.inputs[0]] == 1 and operator.function != "quantize":
            formats[operator.inputs[0]] = target
    return formats
