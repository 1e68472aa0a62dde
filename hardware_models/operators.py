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
from dataclasses import dataclass, field
from typing import Literal

Format = Literal["fp32", "uint8"]
"""How an activation tensor is held between kernels."""

WeightFormat = Literal["fp32", "int8"]
"""What a kernel computes with, once the stored weight is unpacked."""

BITS = {"fp32": 32, "uint8": 8}

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
    "transpose",
    "view",  # flatten, reshape, dropout at inference: moves no byte
    "other",  # not known to the table; ``function`` holds its name, and no device can price it
)


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
    """The constant operand of a layer, with its bias.

    Attributes:
        shape: For convolutions (out, in / groups, *kernel); for linear layers (out, in).
        stored_bits: Bits an element takes in the artifact: 2, 4, 8, 16 or 32.
        format: What the kernel computes with.
        channels: Output channels, which is the number of scales of a quantized weight.
        bias: Whether a bias of ``channels`` elements comes with it.
        name: Of the constant; layers that share a weight give the same, and it is stored once. May be empty.
    """

    shape: tuple[int, ...]
    stored_bits: int = 32
    format: WeightFormat = "fp32"
    channels: int = 0
    bias: bool = False
    name: str = ""

    @property
    def elements(self) -> int:
        """The number of weight elements, without the bias."""
        return math.prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes in the artifact: packed weights, bias and scales (4 a channel each), zero points of linear layers."""
        packed = math.ceil(self.elements * self.stored_bits / 8)
        bias = 4 * self.channels if self.bias else 0
        if self.format == "fp32":
            return packed + bias
        scales = 4 * self.channels * (2 if self.bias else 1)
        zero_points = self.channels if len(self.shape) == 2 else 0  # ONNX Runtime's QGemm asks for them
        return packed + bias + scales + zero_points

    @property
    def executed_bytes(self) -> int:
        """Bytes the kernel reads: stored 2 and 4 bits are unpacked to bytes, 16 to 32 bits, when a session loads."""
        return self.elements * (1 if self.format == "int8" else 4)


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
        function: Which activation (``relu``, ``hardswish``, ...), or the foreign name of an ``other``.
        kernel: Spatial kernel size of convolutions and pools.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    macs: int = 0
    weight: Weight | None = None
    function: str = ""
    kernel: tuple[int, ...] = ()

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
    """

    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int = field(default=0)
    """Elements of every constant of the network: weights, biases, and norms that no layer absorbed."""

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one inference at the table's batch."""
        return sum(operator.macs for operator in self.operators)

    @property
    def storage_bytes(self) -> int:
        """Bytes of all constants in the artifact (the graph's own few kilobytes are not counted)."""
        return sum(weight.stored_bytes for weight in self.weights)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The constants of its layers, those of one name once."""
        found = [operator.weight for operator in self.operators if operator.weight]
        return tuple({weight.name or index: weight for index, weight in enumerate(found)}.values())
