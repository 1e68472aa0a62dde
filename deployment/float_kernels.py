"""The kernels of an artifact that compute in float, and why: for whoever finds it smaller but not faster."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.spaces.fixed_layers import fixed_layers
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import LAYER_KINDS, WEIGHT_ONLY_KINDS, Network, Operation
from kneepoint.spaces.policy import LayerPolicy
from kneepoint.spaces.quant_plan import QuantPlan, fused_output

_MOVES = frozenset({"view", "transpose", "embedding"})
"""Kinds that compute nothing."""


@dataclass(frozen=True)
class FloatKernel:
    """A kernel that computes in float.

    Attributes:
        name: Of the layer or operator.
        kind: As in the operator table.
        why: One line.
    """

    name: str
    kind: str
    why: str

    def to_json(self) -> dict[str, str]:
        """As a manifest holds it."""
        return asdict(self)


def float_kernels(compressed: CompressedNetwork) -> list[FloatKernel]:
    """The kernels of ``compressed`` that ONNX Runtime computes in float, in execution order, with the reason."""
    network, plan = compressed.network, compressed.plan
    table = lower(network, compressed.policy)
    operation_of = {operator.name: network.operation_of.get(operator.output) for operator in table.operators}
    found = []
    for kernel in fuse(table):
        operation = operation_of.get(kernel.name)
        if kernel.format == "fp32" and kernel.kind not in _MOVES and operation is not None:
            why = _why(network, compressed.policy.layer(operation.layer), plan, kernel, operation)
            found.append(FloatKernel(kernel.name, kernel.kind, why))
    return found


def _why(network: Network, layer: LayerPolicy, plan: QuantPlan, kernel: Kernel, operation: Operation) -> str:
    if operation.kind in LAYER_KINDS:
        return _why_layer(network, layer, plan, operation)
    floats = [name for name in operation.inputs if name not in plan.activations]
    if floats:
        return f"it reads {floats[0]}, which is float"
    if fused_output(network, operation) not in plan.activations:
        return "what it writes stays float"
    return f"ONNX Runtime has no integer kernel for {operation.function or kernel.kind}"


def _why_layer(network: Network, layer: LayerPolicy, plan: QuantPlan, operation: Operation) -> str:
    if operation.layer not in network.layers:
        return fixed_layers(network).get(operation.layer, "its bits cannot vary")
    if operation.kind in WEIGHT_ONLY_KINDS:
        return f"ONNX Runtime has no integer kernel for {operation.kind}"
    if not layer.integer:
        return f"its policy keeps {layer.weight_bits}-bit float weights"
    if layer.activation_bits is None:
        return "its policy keeps float activations, and stores integer weights alone"
    if layer.activation_bits > 8:
        return f"ONNX Runtime has no integer kernel for activations of {layer.activation_bits} bits"
    if not plan.runs_on_integers(operation):
        return f"it reads {operation.inputs[0]}, an output of the network, which stays float"
    return "what it writes is an output of the network, or passes through an activation before it is quantized"
