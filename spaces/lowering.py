"""A network under a policy as rows of the operator table, without touching a tensor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from kneepoint.hardware_models.operators import (
    ONNX_KINDS,
    Bias,
    Format,
    Operator,
    OperatorTable,
    Tensor,
    Weight,
    WeightFormat,
)
from kneepoint.spaces.attention import attention_operators
from kneepoint.spaces.constant_folding import folded_operations
from kneepoint.spaces.exported_forms import exported_forms
from kneepoint.spaces.head_axes import ATTENTION
from kneepoint.spaces.moves import tidied
from kneepoint.spaces.network import LAYER_KINDS, Network, Operation, length
from kneepoint.spaces.operator_attributes import Attributes, operator_attributes
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.quant_plan import FLOAT_WEIGHT, QuantPlan, WeightQuant

Channels = Mapping[str, int]
_FORMATS: Mapping[int, Format] = {8: "uint8", 16: "uint16"}
_MATRIX = 2
"""Axes of a value on which a linear layer is one Gemm."""
_BYTE = 8
_STATISTICS = 2  # mean and variance, behind BatchNorm's gain and shift


def lower(network: Network, policy: Policy, batch: int = 1) -> OperatorTable:
    """The operator table of ``network`` as ``policy`` prunes and quantizes it.

    Args:
        network: The policy's own network: the teacher, or the student that ``policy.student`` names.
        policy: Its kept fractions, layer formats and the residual blocks it leaves out.
        batch: Samples of one inference.

    Raises:
        SpaceError: If the policy names layers, groups or blocks the network does not have.
    """
    network.check(policy)
    network = network.without(policy.dropped_blocks)
    plan = QuantPlan.of(network, policy)
    channels = network.channels(policy)
    folded = folded_operations(network)
    shapes = {name: _input_shape(network, name, channels, batch) for name in network.inputs}
    for operation in network.operations:  # what depends on no input is a constant, which is the same for all samples
        shapes[operation.name] = _shape(operation, channels, 1 if operation.name in folded else batch)
    formats = {name: _FORMATS[quant.bits] for name, quant in plan.activations.items()}
    tensors = {name: Tensor(name, shape, formats.get(name, "fp32")) for name, shape in shapes.items()}
    operators = tidied(_operators(network, plan, channels, tensors, folded), tensors, network.outputs)
    tables = [_weight(network, network.operation_of[name], plan, channels, folded=True) for name in folded]
    weights = tuple(replace(weight, format="fp32") for weight in tables if weight)
    table = OperatorTable(operators, tensors, tuple(network.inputs), network.outputs, folded=weights)
    return replace(table, parameters=table.layer_parameters + _other_parameters(network, channels, folded))


def is_product(network: Network, operation: Operation) -> bool:
    """Whether a linear layer is exported as MatMul and Add rather than Gemm, because of any of its calls.

    Gemm is for calls on (samples, features) with a bias.
    """
    layer = network.layers.get(operation.layer)
    calls = [network.operation_of[name] for name in layer.operations] if layer else [operation]
    return any(len(call.shape) != _MATRIX for call in calls if call.kind == "linear") or not operation.biased


def _operators(
    network: Network, plan: QuantPlan, channels: Channels, tensors: dict[str, Tensor], folded: Collection[str]
) -> Iterator[Operator]:
    names, attributes = _operator_names(network), operator_attributes(network)
    for operation in network.operations:
        if operation.name in folded:
            continue
        if operation.function == ATTENTION:
            yield from attention_operators(network, operation, tensors, folded)
        else:
            weight = _weight(network, operation, plan, channels)
            bias = _bias(network, operation, plan, weight)
            operator = _operator(operation, names[operation.name], weight, tensors)
            known = attributes[operation.name]
            operand = _operand(network, operation, channels, folded, tensors)
            described = replace(
                operator,
                inputs=tuple(name for name in operation.inputs if name not in folded),
                function=_function(operation, known, operand),
                bias=bias,
                dynamic=operation.layer in plan.dynamic or _is_blockwise(operation, plan),
                kernel=operator.kernel if known.kernel is None else known.kernel,
                stride=known.stride,
                axes=known.axes,
                operand=operand,
            )
            yield from exported_forms(network, operation, described, tensors)


def _operator(operation: Operation, name: str, weight: Weight | None, tensors: Mapping[str, Tensor]) -> Operator:
    # A depthwise convolution of one channel is an ordinary one, and runtimes take it so.
    single = operation.kind == "depthwise_conv" and weight is not None and weight.channels == 1
    kind = ONNX_KINDS.get(operation.function, "other") if operation.kind == "other" else operation.kind
    return Operator(
        name=name,
        kind="conv" if single else kind,
        inputs=operation.inputs,
        output=operation.name,
        macs=_macs(operation, weight, tensors),
        weight=weight,
        function=operation.function,
        kernel=operation.kernel,
    )


def _function(operation: Operation, known: Attributes, operand: tuple[int, ...] | None) -> str:
    """``scale`` where it multiplies, or divides, one activation by one constant for all elements."""
    if operation.kind == "mul" and operand is not None and math.prod(operand) == 1:
        return "scale"
    return operation.function if known.function is None else known.function


def _operand(
    network: Network,
    operation: Operation,
    channels: Channels,
    folded: Collection[str],
    tensors: Mapping[str, Tensor],
) -> tuple[int, ...] | None:
    """The shape of the constant that an elementwise operator combines its only input with."""
    if operation.kind not in ("add", "mul"):
        return None
    constants = [tensors[name].shape for name in operation.inputs if name in folded]
    constants += [_parameter_shape(network, name, channels) for name in network.constants_of(operation)]
    if len(operation.inputs) - len(set(operation.inputs) & set(folded)) > 1:
        return None
    return max(constants, key=math.prod, default=())


def _operator_names(network: Network) -> dict[str, str]:
    """A layer's operator carries the layer's name; a second call of it is numbered."""
    calls: Counter[str] = Counter()
    names = {}
    for operation in network.operations:
        name = operation.layer or operation.name
        calls[name] += 1
        names[operation.name] = name if calls[name] == 1 else f"{name}:{calls[name]}"
    return names


def _weight(
    network: Network, operation: Operation, plan: QuantPlan, channels: Channels, *, folded: bool = False
) -> Weight | None:
    if not operation.weight:
        return None
    shape = _parameter_shape(network, operation.weight, channels)
    quant = plan.weights.get(operation.layer, FLOAT_WEIGHT)
    outputs = _output_channels(operation, shape, channels)
    # ONNX Runtime makes an integer kernel only of a linear weight whose zero points are written out.
    zero_points = outputs if operation.kind == "linear" and plan.runs_on_integers(operation) else 0
    whole = folded or network.is_tied(operation)
    return Weight(
        shape=_stored_shape(operation, quant, shape, whole=whole),
        stored_bits=quant.stored_bits,
        format=_weight_format(operation, plan, quant),
        channels=outputs,
        name=operation.weight,
        scales=_scales(operation, quant, shape, outputs),
        zero_points=zero_points,
        group_size=quant.group_size,
        filled=operation.kind != "embedding" or whole,
        sparsity=quant.sparsity,
    )


def _stored_shape(operation: Operation, quant: WeightQuant, shape: tuple[int, ...], *, whole: bool) -> tuple[int, ...]:
    """Rows of a table that has scales of groups are filled up to whole bytes; tied and folded ones to whole groups."""
    if operation.kind != "embedding" or not quant.group_size:
        return shape
    size = quant.group_size if whole else _BYTE // quant.stored_bits
    return shape[0], math.ceil(shape[1] / size) * size


def _weight_format(operation: Operation, plan: QuantPlan, quant: WeightQuant) -> WeightFormat:
    """What the kernel reads: integers alone, or what is looked up or unpacked as it goes, is not a float by then."""
    if plan.runs_on_integers(operation) or operation.layer in plan.dynamic:
        return "int8"
    if quant.group_size:
        return "packed"
    if operation.kind == "embedding" and quant.bits < FLOAT_WEIGHT.bits:
        return "int8" if quant.integer else "fp16"
    return "fp32"


def _is_blockwise(operation: Operation, plan: QuantPlan) -> bool:
    return operation.kind == "linear" and operation.layer in plan.blockwise


def _scales(operation: Operation, quant: WeightQuant, shape: tuple[int, ...], outputs: int) -> int:
    if not quant.integer:
        return 0
    if quant.group_size:
        return shape[0] * math.ceil(shape[1] / quant.group_size)
    return shape[0] if operation.kind == "embedding" else outputs


def _bias(network: Network, operation: Operation, plan: QuantPlan, weight: Weight | None) -> Bias | None:
    """The bias of one call: an integer one has the scale of what the call reads, so that every call has its own."""
    if weight is None or not operation.biased:
        return None
    if plan.runs_on_integers(operation):
        product = operation.kind == "linear" and is_product(network, operation)
        return Bias(weight.channels, f"{operation.name}: bias", 0 if product else weight.channels)
    stored = [name for name in network.constants_of(operation) if name != operation.weight]
    return Bias(weight.channels, stored[0] if stored else f"{operation.layer}: bias")


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


def _input_shape(network: Network, name: str, channels: Channels, batch: int) -> tuple[int, ...]:
    """That of a cache follows the heads."""
    shape = [batch, *network.inputs[name][1:]]
    axis, layout = network.flow.values.get(name, (0, ()))
    if layout:
        shape[axis] = length(layout, channels)
    return tuple(shape)


def _parameter_shape(network: Network, name: str, channels: Channels) -> tuple[int, ...]:
    full = network.parameter_shapes[name]
    layouts = network.flow.parameters[name]
    return tuple(length(layout, channels) if layout else size for size, layout in zip(full, layouts, strict=True))


def _other_parameters(network: Network, channels: Channels, folded: Collection[str]) -> int:
    """Elements of the constants of operators other than layers and embeddings, each counted once."""
    sizes: dict[str, int] = {}
    for operation in network.operations:
        if operation.name in folded or operation.weight:
            continue
        for name in operation.inputs:
            if name in folded and name in network.floats and not network.operation_of[name].weight:
                sizes[name] = math.prod(_shape(network.operation_of[name], channels, 1))
        for name in _constants(network, operation):
            sizes[name] = math.prod(_parameter_shape(network, name, channels))
    return sum(sizes.values())


def _constants(network: Network, operation: Operation) -> list[str]:
    """The stored floats of an operator without a weight; scalars belong to its attributes."""
    names = network.constants_of(operation)
    if operation.kind == "batch_norm":  # its statistics are measured, and not counted among the parameters
        names = names[:-_STATISTICS]
    return [name for name in names if network.parameter_shapes[name] and name in network.floats]
