"""Which tensor is quantized how: the one object that calibration, simulator, exporter and pricing all read.

The arithmetic is ONNX's QuantizeLinear and DequantizeLinear: q = clamp(round_half_even(x / scale) + zero_point), and
back (q - zero_point) * scale. Weights are symmetric with one scale an output channel; activations are affine ``uint8``
with one scale a tensor; a bias is ``int32`` with the scale input x weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.policy import Policy

Container = Literal["int2", "int4", "int8", "float16", "float32"]
CONTAINERS: Mapping[int, Container] = {2: "int2", 4: "int4", 8: "int8", 16: "float16", 32: "float32"}
_FOLLOWS = frozenset({"concat", "max_pool", "avg_pool", "view"})
_CLAMPS = frozenset({"relu", "clip"})
"""Activations that the saturation of a quantized output performs."""


@dataclass(frozen=True)
class WeightQuant:
    """How one layer's weight is held.

    Attributes:
        bits: 2, 4 or 8 (integers), 16 (float16) or 32.
        container: What the artifact stores.
        scale: (out channels,) float32, once calibrated; None for float weights.
    """

    bits: int
    container: Container
    scale: Tensor | None = None

    @property
    def integer(self) -> bool:
        """Whether it is held as integers."""
        return self.bits <= 8

    @property
    def limit(self) -> int:
        """Integers run from -limit to limit, so that zero and every sign are exact."""
        return int(2 ** (self.bits - 1) - 1)


FLOAT_WEIGHT = WeightQuant(32, "float32")
"""What is held as it is: layers whose bits cannot vary."""


@dataclass(frozen=True)
class ActivationQuant:
    """How one activation is held between kernels: ``uint8`` with one scale.

    Attributes:
        scale: Step between two integers, once calibrated.
        zero_point: The integer that stands for 0.0 exactly.
    """

    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class QuantPlan:
    """Tensor to bits, scale, zero point and container.

    Attributes:
        weights: By layer name; every layer whose bits may vary has an entry.
        activations: By value name; a value that is not here stays float.
    """

    weights: Mapping[str, WeightQuant]
    activations: Mapping[str, ActivationQuant]

    @classmethod
    def of(cls, network: Network, policy: Policy) -> QuantPlan:
        """The uncalibrated plan of ``policy``: which tensors are quantized, not yet with which scales.

        A value is quantized where an integer layer reads it or (after its fused activation) writes it, and where an
        operator that can run on integers has quantized inputs only. The network's outputs stay float, and so does a
        layer that reads one of them.
        """
        weights = {name: _weight(policy.layer(name).weight_bits) for name in network.layers}
        return cls(weights, {name: ActivationQuant() for name in _quantized_values(network, policy)})

    def with_scales(self, weights: Mapping[str, Tensor], activations: Mapping[str, ActivationQuant]) -> QuantPlan:
        """The plan with calibrated scales."""
        scaled = {
            name: replace(quant, scale=weights[name]) if name in weights else quant
            for name, quant in self.weights.items()
        }
        return QuantPlan(scaled, {**self.activations, **activations})


def fused_output(network: Network, operation: Operation) -> str:
    """The value a kernel really writes: the activation's, where one is fused behind ``operation``."""
    readers = network.readers.get(operation.name, ())
    alone = len(readers) == 1 and operation.name not in network.outputs
    if alone and readers[0].kind == "activation" and readers[0].function in _CLAMPS:
        return readers[0].name
    return operation.name


def _weight(bits: int) -> WeightQuant:
    return WeightQuant(bits, CONTAINERS[bits])


def _quantized_values(network: Network, policy: Policy) -> list[str]:
    quantized: dict[str, None] = {}

    def quantize(name: str) -> None:
        if name not in network.outputs:
            quantized[name] = None

    for operation in network.operations:
        if network.varies(operation) and policy.layer(operation.layer).integer:
            quantize(operation.inputs[0])
            written = fused_output(network, operation)
            # An integer linear kernel may write floats, unless an activation is fused behind it; a convolution may not.
            if operation.kind != "linear" or written != operation.name:
                quantize(written)
    for operation in network.operations:  # in execution order, so that one pass reaches the end of a chain
        if _follows(operation) and all(name in quantized for name in operation.inputs):
            quantize(fused_output(network, operation))
    return list(quantized)


def _follows(operation: Operation) -> bool:
    """Whether ONNX Runtime runs ``operation`` on integers once all it touches is quantized."""
    if operation.kind == "add":  # of two tensors; a difference, or a constant, is computed in float
        return not operation.function and len(operation.inputs) == 2
    return operation.kind in _FOLLOWS and bool(operation.inputs)
