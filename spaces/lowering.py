"""A network under a policy as rows of the operator table, without touching a tensor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from kneepoint.hardware_models.operators import Operator, OperatorTable, Tensor, Weight
from kneepoint.spaces.network import LAYER_KINDS, Network, Operation, length
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.quant_plan import FLOAT_WEIGHT, QuantPlan

Channels = Mapping[str, int]
_STATISTICS = 2  # mean and variance, behind BatchNorm's gain and shift


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
    shapes = {name: (batch, *shape[1:]) for name, shape in network.inputs.items()}
    shapes.update({operation.name: _shape(operation, channels, batch) for operation in network.operations})
    tensors = {
        name: Tensor(name, shape, "uint8" if name in plan.activations else "fp32") for name, shape in shapes.items()
    }
    names = _operator_names(network)
    operators = tuple(
        _operator(operation, names[operation.name], _weight(network, operation, plan, channels), tensors)
        for operation in network.operations
    )
    return OperatorTable(operators, tensors, tuple(network.inputs), network.outputs, _parameters(network, channels))


def _operator(operation: Operation, name: str, weight: Weight | None, tensors: Mapping[str, Tensor]) -> Operator:
    # A depthwise convolution of one channel is an ordinary one, and runtimes take it so.
    single = operation.kind == "depthwise_conv" and weight is not None and weight.channels == 1
    return Operator(
        name=name,
        kind="conv" if single else operation.kind,
        inputs=operation.inputs,
        output=operation.name,
        macs=_macs(operation, weight, tensors),
        weight=weight,
        function=operation.function,
        kernel=operation.kernel,
    )


def _operator_names(network: Network) -> dict[str, str]:
    """A layer's operator carries the layer's name; a second call of it is numbered."""
    calls: Counter[str] = Counter()
    names = {}
    for operation in network.operations:
        name = operation.layer or operation.name
        calls[name] += 1
        names[operation.name] = name if calls[name] == 1 else f"{name}:{calls[name]}"
    return names


def _weight(network: Network, operation: Operation, plan: QuantPlan, channels: Channels) -> Weight | None:
    if not operation.weight:
        return None
    shape = _parameter_shape(network, operation.weight, channels)
    quant = plan.weights.get(operation.layer, FLOAT_WEIGHT)
    return Weight(
        shape=shape,
        stored_bits=quant.bits,
        format="int8" if quant.integer else "fp32",
        channels=_output_channels(operation, shape, channels),
        bias=operation.biased,
        name=operation.weight,
    )


def _output_channels(operation: Operation, shape: tuple[int, ...], channels: Channels) -> int:
    if operation.kind == "conv_transpose":
        return _shape(operation, channels, 1)[1]
    return shape[1] if operation.kind == "embedding" else shape[0]


def _macs(operation: Operation, weight: Weight | None, tensors: Mapping[str, Tensor]) -> int:
    if operation.kind == "matmul":
        return tensors[operation.name].elements * tensors[operation.inputs[0]].shape[-1]
    if weight is None or operation.kind not in LAYER_KINDS:
        return 0
    if operation.kind == "conv_transpose":
        return tensors[operation.inputs[0]].elements * math.prod(weight.shape[1:])
    return tensors[operation.name].elements * math.prod(weight.shape[1:])


def _shape(operation: Operation, channels: Channels, batch: int) -> tuple[int, ...]:
    shape = list(operation.shape)
    if operation.axis is not None:
        axis, layout = operation.axis
        shape[axis] = length(layout, channels)
    for axis in operation.free:
        shape[axis] *= batch
    return tuple(shape)


def _parameter_shape(network: Network, name: str, channels: Channels) -> tuple[int, ...]:
    full = network.parameter_shapes[name]
    layouts = network.flow.parameters[name]
    return tuple(length(layout, channels) if layout else size for size, layout in zip(full, layouts, strict=True))


def _parameters(network: Network, channels: Channels) -> int:
    """Elements of the deployed constants, each counted once: weights, biases, and norms that no layer absorbed."""
    total = 0
    counted: set[str] = set()
    for operation in network.operations:
        if not operation.weight:
            continue
        shape = _parameter_shape(network, operation.weight, channels)
        if operation.weight not in counted:
            total += math.prod(shape) + (_output_channels(operation, shape, channels) if operation.biased else 0)
        counted.add(operation.weight)
    others = {name for operation in network.operations for name in _other_parameters(network, operation)}
    return total + sum(math.prod(_parameter_shape(network, name, channels)) for name in others)


def _other_parameters(network: Network, operation: Operation) -> list[str]:
    """The stored tensors of an operator other than a layer or an embedding; scalars belong to its attributes."""
    if operation.weight:
        return []
    names = network.constants_of(operation)
    if operation.kind == "batch_norm":  # its statistics are measured, and not counted among the parameters
        names = names[:-_STATISTICS]
    return [name for name in names if network.parameter_shapes[name]]
