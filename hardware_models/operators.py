"""The one operator table: what a network computes, before any runtime has fused anything.

torch.export's graph (``kneepoint.spaces.lowering``) and ONNX (``kneepoint.hardware_models.onnx_reader``) both lower
into it; the fusion rules (``kneepoint.hardware_models.fusion``) turn it into the kernels a device is priced on.

A quantize-dequantize pair is not an operator here. It is the *format* of the tensor it stands on: a tensor whose
format is ``uint8`` is stored as one byte an element and read through its scale. Likewise a weight is described by how
it is stored (``stored_bits``) and what the kernel computes with (``format``), not by the nodes that unpack it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Format = Literal["fp32", "uint8", "uint16"]
"""How an activation tensor is held between kernels."""

WeightFormat = Literal["fp32", "fp16", "int8", "packed"]
"""What a kernel reads once a session has loaded: floats, bytes, or (``packed``) the weight as it is stored."""

SPARSE_PATTERNS = ("2:4", "50%", "75%", "90%")
"""Which weights are zero: two in every four consecutive inputs, or a share of them anywhere."""

BITS = {"fp32": 32, "fp16": 16, "uint16": 16, "uint8": 8, "int8": 8}
FP32_BYTES = 4

KINDS = (
    "conv",  # full convolution; pointwise when its kernel is 1x1
    "depthwise_conv",
    "grouped_conv",
    "conv_transpose",
    "linear",
    "matmul",  # two activations
    "embedding",
    "add",  # elementwise, two tensors
    "mul",
    "activation",  # elementwise, one tensor; which one is in ``function``
    "batch_norm",
    "layer_norm",
    "group_norm",
    "softmax",
    "max_pool",
    "avg_pool",
    "global_avg_pool",
    "concat",
    "resize",
    "reduce",  # along some axes; ``function`` says to what, by its ONNX name
    "copy",  # moves elements to other places; ``function`` says how, by its ONNX name
    "select",  # elementwise choices, comparisons and casts; ``function`` says which, by its ONNX name
    "transpose",
    "view",  # flatten, reshape, dropout at inference: moves no byte
    "other",  # not known to the table; ``function`` holds its name, and no device can price it
)


ONNX_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"), "reduce"),
    **dict.fromkeys(
        ("Slice", "Split", "Gather", "Expand", "Pad", "Tile", "DepthToSpace", "SpaceToDepth", "Trilu"), "copy"
    ),
    **dict.fromkeys(("Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), "select"),
    **dict.fromkeys(("And", "Or", "Not", "Max", "Min", "IsNaN", "Cast"), "select"),
}
"""The kinds of operators that both readers of a network call by their ONNX names."""


@dataclass(frozen=True)
class Tensor:
    """An activation.

    Attributes:
        name: Unique within the table.
        shape: Concrete, batch first.
        format: How its elements are held between kernels.
    """

    name: str
    shape: tuple[int, ...]
    format: Format = "fp32"

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The bytes it occupies between kernels."""
        return self.elements * BITS[self.format] // 8


@dataclass(frozen=True)
class Weight:
    """The constant operand of a layer.

    Attributes:
        shape: For convolutions (out, in / groups, *kernel); for linear layers (out, in); for embeddings (rows, width).
        stored_bits: Bits an element takes in the artifact: 2, 4, 8, 16 or 32.
        format: What the kernel reads.
        channels: Output channels.
        name: Of the constant; layers that share a weight give the same, and it is stored once. May be empty.
        scales: How many it is stored with, float32 each: one an output channel or row, or one a group.
        zero_points: How many it is stored with, a byte each; some kernels of ONNX Runtime ask for them.
        group_size: Input features that share one scale; 0 for all of a channel.
        filled: Whether the last group of a row is stored as if it were whole.
        sparsity: ``dense``, or one of ``SPARSE_PATTERNS``; zeros are stored like any other number.
    """

    shape: tuple[int, ...]
    stored_bits: int = 32
    format: WeightFormat = "fp32"
    channels: int = 0
    name: str = ""
    scales: int = 0
    zero_points: int = 0
    group_size: int = 0
    filled: bool = True
    sparsity: str = "dense"

    @property
    def elements(self) -> int:
        """The number of weight elements."""
        return math.prod(self.shape)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the elements in the artifact; those of ``filled`` rows that do not end with a group are more."""
        elements = self.elements
        if self.group_size and self.filled:
            elements = elements // self.shape[-1] * math.ceil(self.shape[-1] / self.group_size) * self.group_size
        return math.ceil(elements * self.stored_bits / 8)

    @property
    def stored_bytes(self) -> int:
        """Bytes in the artifact: packed elements, scales and zero points."""
        return self.packed_bytes + FP32_BYTES * self.scales + self.zero_points

    @property
    def executed_bytes(self) -> int:
        """Bytes of what a session holds and the kernel reads: most formats are unpacked when the session loads."""
        if self.format == "packed":
            return self.packed_bytes + FP32_BYTES * self.scales
        return self.elements * BITS[self.format] // 8


@dataclass(frozen=True)
class Bias:
    """What a layer adds to each of its output channels: float32, or int32 with scales.

    Attributes:
        channels: Its elements.
        name: Of the constant; calls that share it give the same, and it is stored once. May be empty.
        scales: How many it is stored with, float32 each.
    """

    channels: int
    name: str = ""
    scales: int = 0

    @property
    def executed_bytes(self) -> int:
        """Bytes that the kernel reads."""
        return FP32_BYTES * self.channels

    @property
    def stored_bytes(self) -> int:
        """Bytes in the artifact."""
        return FP32_BYTES * (self.channels + self.scales)


@dataclass(frozen=True)
class Operator:
    """One operator of the network.

    Attributes:
        name: Unique within the table; a layer's operator carries the layer's name.
        kind: One of ``KINDS``.
        inputs: Names of the activation tensors it reads, in order.
        output: Name of the activation tensor it writes.
        macs: Multiply-accumulate operations (0 for operators that only move or map elements).
        weight: The constant operand, if it has one.
        bias: What the layer adds, if anything.
        dynamic: Whether an integer layer quantizes its float input itself, with the range of every batch; one with a
            packed weight, block by block.
        function: Which activation (``relu``, ``hardswish``, ...), the foreign name of an ``other``, or ``sub``, ``div``
            and ``scale`` (by one constant for all elements) behind ``add`` and ``mul``.
        kernel: Spatial kernel size of convolutions and pools.
        stride: Of convolutions and pools, along the first spatial axis; 0 where there is none.
        axes: Of the output, which axis of the input each axis is, for a transpose; the axes that a reduction, softmax,
            normalization or concatenation works along, counted from the first; (0,) for a view that keeps the first
            axis, rather than computing its size; those that a Pad fills with zeros, and none if with anything else.
        operand: The shape of the constant that an elementwise operator combines its only input with, if it does.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    macs: int = 0
    weight: Weight | None = None
    function: str = ""
    kernel: tuple[int, ...] = ()
    bias: Bias | None = None
    dynamic: bool = False
    stride: int = 0
    axes: tuple[int, ...] = ()
    operand: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a kind the table does not know.

        Raises:
            ValueError: If ``kind`` is not one of ``KINDS``.
        """
        if self.kind not in KINDS:
            raise ValueError(f"an operator's kind is one of {KINDS}; got {self.kind!r} for {self.name!r}")


@dataclass(frozen=True)
class OperatorTable:
    """Operators in execution order, and the activations they pass on.

    Attributes:
        operators: In an order in which every input is written before it is read.
        tensors: Every activation, inputs of the network included, by name.
        inputs: Names of the network's inputs.
        outputs: Names of the network's outputs.
        parameters: Elements of every constant of the network: weights, biases, and norms that no layer absorbed.
        folded: Weights of no operator: tables whose rows are looked up once, when a session loads.
    """

    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int = 0
    folded: tuple[Weight, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one inference at the table's batch."""
        return sum(operator.macs for operator in self.operators)

    @property
    def storage_bytes(self) -> int:
        """Bytes of all layers' constants in the artifact (the graph's own few kilobytes are not counted)."""
        return sum(constant.stored_bytes for constant in self.constants)

    @property
    def resident_bytes(self) -> int:
        """Bytes of all layers' constants in memory, as a session unpacks them."""
        return sum(constant.executed_bytes for constant in self.constants)

    @property
    def unattached_bytes(self) -> int:
        """Bytes of the constants that no layer has: norms, positions and the like."""
        return FP32_BYTES * max(self.parameters - self.layer_parameters, 0)

    @cached_property
    def constants(self) -> tuple[Weight | Bias, ...]:
        """The constants of its layers, those of one name once."""
        layers = [constant for operator in self.operators for constant in (operator.weight, operator.bias) if constant]
        found = [*layers, *self.folded]
        return tuple({constant.name or index: constant for index, constant in enumerate(found)}.values())

    @property
    def layer_parameters(self) -> int:
        """Elements of its layers' weights and biases."""
        return sum(entry.elements if isinstance(entry, Weight) else entry.channels for entry in self.constants)
