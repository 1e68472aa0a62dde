"""A network under a policy as rows of the operator table, without touching a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kneepoint.hardware_models.operators import Operator, OperatorTable, Tensor, Weight
from kneepoint.spaces.network import LAYER_KINDS, Network, Operation, length
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.quant_plan import QuantPlan, WeightQuant


def lower(network: Network, policy: Policy, batch: int = 1) -> OperatorTable:
    """The operator table of ``network`` as ``policy`` prunes and quantizes it.

    Args:
        network: The policy's own network: the teacher, or the student that ``policy.student`` names.
        policy: Its kept fractions and layer formats.
        batch: Samples of one inference.

    Raises:
        SpaceError: If the policy names layers or groups the network does not have.
    """
    network.check(policy)
    plan = QuantPlan.of(network, policy)
    channels = network.channels(policy)
    tensors = {
        name: Tensor(name, (batch, *shape[1:]), "uint8" if name in plan.activations else "fp32")
        for name, shape in [
            *network.inputs.items(),
            *((operation.name, _shape(operation, channels)) for operation in network.operations),
        ]
    }
    operators = tuple(_operator(network, operation, plan, channels, tensors) for operation in network.operations)
    return OperatorTable(operators, tensors, tuple(network.inputs), network.outputs, _parameters(network, channels))


def _operator(
    network: Network,
    operation: Operation,
    plan: QuantPlan,
    channels: Mapping[str, int],
    tensors: Mapping[str, Tensor],
) -> Operator:
    weight = None
    if operation.kind in LAYER_KINDS:
        shape = _parameter_shape(network, operation.weight, channels)
        weight = _weight(shape, plan.weights[operation.layer], operation)
    return Operator(
        name=operation.layer or operation.name,
        kind=operation.kind,
        inputs=operation.inputs,
        output=operation.name,
        macs=_macs(operation, weight, tensors),
        weight=weight,
        function=operation.function,
        kernel=operation.kernel,
    )


def _weight(shape: tuple[int, ...], quant: WeightQuant, operation: Operation) -> Weight:
    transposed = operation.kind == "conv_transpose"
    return Weight(
        shape=shape,
        stored_bits=quant.bits,
        format="int8" if quant.integer else "fp32",
        channels=shape[1] if transposed else shape[0],
        bias=operation.biased,
    )


def _macs(operation: Operation, weight: Weight | None, tensors: Mapping[str, Tensor]) -> int:
    if operation.kind == "matmul":
        return tensors[operation.name].elements * tensors[operation.inputs[0]].shape[-1]
    if weight is None:
        return 0
    if operation.kind == "conv_transpose":
        return tensors[operation.inputs[0]].elements * math.prod(weight.shape[1:])
    return tensors[operation.name].elements * math.prod(weight.shape[1:])


def _shape(operation: Operation, channels: Mapping[str, int]) -> tuple[int, ...]:
    if operation.axis is None:
        return operation.shape
    axis, layout = operation.axis
    shape = list(operation.shape)
    shape[axis] = length(layout, channels)
    return tuple(shape)


def _parameter_shape(network: Network, name: str, channels: Mapping[str, int]) -> tuple[int, ...]:
    full = network.tensors()[name].shape
    layouts = network.flow.parameters[name]
    return tuple(length(layout, channels) if layout else size for size, layout in zip(full, layouts, strict=True))


def _parameters(network: Network, channels: Mapping[str, int]) -> int:
    """Elements of the deployed constants: weights, biases, and norms that no layer absorbed."""
    total = 0
    counted: set[str] = set()
    for operation in network.operations:
        if operation.weight and operation.weight not in counted:
            counted.add(operation.weight)
            shape = _parameter_shape(network, operation.weight, channels)
            total += math.prod(shape)
            if operation.biased:
                total += shape[1] if operation.kind == "conv_transpose" else shape[0]
    return total + _other_parameters(network, channels)


def _other_parameters(network: Network, channels: Mapping[str, int]) -> int:
    kept = {node.name: node for node in network.graph_module.graph.nodes}
    total = 0
    for operation in network.operations:
        if operation.weight:
            continue
        for source in kept[operation.name].all_input_nodes:
            if source.op == "get_attr" and str(source.target) in network.flow.parameters:
                total += math.prod(_parameter_shape(network, str(source.target), channels))
    return total
