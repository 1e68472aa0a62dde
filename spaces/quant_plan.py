"""Which tensor is quantized how: the one object that calibration, simulator, exporter and pricing all read.

The arithmetic is ONNX's QuantizeLinear and DequantizeLinear: q = clamp(round_half_even(x / scale) + zero_point), and
back (q - zero_point) * scale. Weights are symmetric, with one scale an output channel, or use the whole range of a
signed integer, with one scale of either sign for every group of a linear layer's input features or of a table's row;
activations are affine and unsigned, with one scale a tensor, fixed by calibration or (DynamicQuantizeLinear) by every
batch, or symmetric, with one scale for every group of features of every row (MatMulNBits); the bias of an integer
kernel is ``int32`` with the scale input x weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from kneepoint.spaces.network import Layer, Network, Operation
from kneepoint.spaces.policy import INTEGER_ACTIVATIONS, LayerPolicy, Policy

Container = Literal["int2", "int4", "int8", "float16", "float32"]
CONTAINERS: Mapping[int, Container] = {
    1: "int2", 2: "int2", 3: "int4", 4: "int4", 6: "int8", 8: "int8", 16: "float16", 32: "float32",
}  # fmt: skip
"""What weights of so many bits are stored in: the narrowest element type of ONNX that holds them."""
STORED_BITS: Mapping[Container, int] = {"int2": 2, "int4": 4, "int8": 8, "float16": 16, "float32": 32}
_FOLLOWS = frozenset({"concat", "max_pool", "avg_pool", "view"})
_CLAMPS = frozenset({"relu", "clip"})
"""Activations that the saturation of a quantized output performs."""


@dataclass(frozen=True)
class WeightQuant:
    """How one layer's weight is held.

    Attributes:
        bits: 1 to 8 (integers), 16 (float16) or 32.
        scale: float32, once calibrated: (channels,), or (channels, groups) with ``group_size``, where scales may be
            negative; None for float weights.
        axis: The weight's axis of output channels, along which scales run.
        group_size: Input features that share one scale; 0 for one scale an output channel.
        sparsity: Which weights are zero; see :class:`kneepoint.spaces.policy.LayerPolicy`.
    """

    bits: int
    scale: Tensor | None = None
    axis: int = 0
    group_size: int = 0
    sparsity: str = "dense"

    @property
    def container(self) -> Container:
        """What the artifact stores."""
        return CONTAINERS[self.bits]

    @property
    def stored_bits(self) -> int:
        """Bits of an element of the container."""
        return STORED_BITS[self.container]

    @property
    def integer(self) -> bool:
        """Whether it is held as integers."""
        return self.bits <= 8

    @property
    def limit(self) -> int:
        """The largest integer; one bit has the two signs alone."""
        return max(1, int(2 ** (self.bits - 1) - 1))

    @property
    def lowest(self) -> int:
        """The smallest integer: -limit, so that every sign is exact; one less in groups, whose scales have a sign.

        Two bits then hold four values instead of three.
        """
        return -self.limit - (1 if self.group_size and self.bits > 1 else 0)


FLOAT_WEIGHT = WeightQuant(32)
"""What is held as it is: layers whose bits cannot vary."""


@dataclass(frozen=True)
class ActivationQuant:
    """How one activation is held between kernels: unsigned integers with one scale.

    Attributes:
        scale: Step between two integers, once calibrated.
        zero_point: The integer that stands for 0.0 exactly.
        bits: 8 or 16.
    """

    scale: float | None = None
    zero_point: int = 0
    bits: int = INTEGER_ACTIVATIONS

    @property
    def limit(self) -> int:
        """The largest integer; the smallest is 0."""
        return int(2**self.bits - 1)


@dataclass(frozen=True)
class QuantPlan:
    """Tensor to bits, scale, zero point and container.

    Attributes:
        weights: By layer name; every layer whose bits may vary has an entry.
        activations: By value name; a value that is not here stays float.
        integer_kernels: Names of the layers that multiply integers whose ranges are calibrated.
        dynamic: Names of the layers that multiply integers, their input's range taken from each batch.
        blockwise: Names of the layers whose kernel rounds its input itself, each row's groups by a scale of their own.
    """

    weights: Mapping[str, WeightQuant]
    activations: Mapping[str, ActivationQuant]
    integer_kernels: frozenset[str] = frozenset()
    dynamic: frozenset[str] = frozenset()
    blockwise: frozenset[str] = frozenset()

    @classmethod
    def of(cls, network: Network, policy: Policy) -> QuantPlan:
        """The uncalibrated plan of ``policy``: which tensors are quantized, not yet with which scales.

        A value is quantized where a layer with static activations reads it or (after its fused activation) writes it,
        and where an operator that can run on integers has 8-bit inputs only. Where one layer asks for 8 bits and
        another for 16, the value has 8, which integer kernels need. The network's outputs stay float, and so does a
        layer that reads one of them.
        """
        weights = {name: _weight(layer, policy.layer(name)) for name, layer in network.layers.items()}
        activations = {name: ActivationQuant(bits=bits) for name, bits in _quantized_values(network, policy).items()}
        static = {name for name in network.layers if policy.layer(name).activation_bits == INTEGER_ACTIVATIONS}
        dynamic = frozenset(name for name in network.layers if policy.layer(name).dynamic)
        blockwise = frozenset(name for name in dynamic if policy.layer(name).group_size)
        return cls(weights, activations, frozenset(static - dynamic), dynamic - blockwise, blockwise)

    def with_scales(self, weights: Mapping[str, Tensor], activations: Mapping[str, ActivationQuant]) -> QuantPlan:
        """The plan with calibrated scales."""
        scaled = {
            name: replace(quant, scale=weights[name]) if name in weights else quant
            for name, quant in self.weights.items()
        }
        return replace(self, weights=scaled, activations={**self.activations, **activations})

    def runs_on_integers(self, operation: Operation) -> bool:
        """Whether ``operation`` multiplies integers with calibrated ranges; not where its input must stay float."""
        return operation.layer in self.integer_kernels and operation.inputs[0] in self.activations


def fused_output(network: Network, operation: Operation) -> str:
    """The value a kernel really writes: the activation's, where one is fused behind ``operation``."""
    readers = network.readers.get(operation.name, ())
    alone = len(readers) == 1 and operation.name not in network.outputs
    if alone and readers[0].kind == "activation" and readers[0].function in _CLAMPS:
        return readers[0].name
    return operation.name


def _weight(layer: Layer, policy: LayerPolicy) -> WeightQuant:
    axis = 1 if layer.kind == "conv_transpose" else 0
    return WeightQuant(policy.weight_bits, None, axis, policy.group_size, policy.sparsity)


def _quantized_values(network: Network, policy: Policy) -> dict[str, int]:
    """Bits of every quantized value."""
    quantized: dict[str, int] = {}

    def quantize(name: str, bits: int) -> None:
        if name not in network.outputs:
            quantized[name] = min(bits, quantized.get(name, bits))

    for operation in network.operations:
        layer = policy.layer(operation.layer)
        if not network.varies(operation) or not layer.static or layer.activation_bits is None:
            continue
        quantize(operation.inputs[0], layer.activation_bits)
        written = fused_output(network, operation)
        # An integer linear kernel may write floats, unless an activation is fused behind it; a convolution may not.
        if operation.kind != "linear" or written != operation.name:
            quantize(written, layer.activation_bits)
    for operation in network.operations:  # in execution order, so that one pass reaches the end of a chain
        if _follows(operation) and all(quantized.get(name) == INTEGER_ACTIVATIONS for name in operation.inputs):
            quantize(fused_output(network, operation), INTEGER_ACTIVATIONS)
    return quantized


def _follows(operation: Operation) -> bool:
    """Whether ONNX Runtime runs ``operation`` on integers once all it touches is quantized."""
    if operation.kind == "add":  # of two tensors; a difference, or a constant, is computed in float
        return not operation.function and len(operation.inputs) == 2
    return operation.kind in _FOLLOWS and bool(operation.inputs)
