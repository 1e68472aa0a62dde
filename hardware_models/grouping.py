"""Which operators ONNX Runtime fuses into one kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kneepoint.hardware_models.fusion_graph import CONVOLUTIONS, FusionGraph, has_packed_weight
from kneepoint.hardware_models.operators import Operator

CLAMPS = frozenset({"relu", "clip"})
"""Activations that the saturation of a quantized output performs. A clip is only free where the quantized range does
not reach beyond it, which holds for ranges calibrated behind the clip."""
_CONV_ACTIVATIONS = frozenset({"relu", "leakyrelu", "sigmoid", "tanh", "hardsigmoid", "clip"})
_LINEAR_ACTIVATIONS = frozenset({"relu", "leakyrelu", "sigmoid", "tanh", "hardsigmoid", "elu", "softplus"})
_CHANNEL_ALIGNMENT = 4
"""The runtime's blocked convolutions need input channels in multiples of this."""
_BLOCK = 16


@dataclass
class Group:
    """Operators that become one kernel; the first one heads it."""

    operators: list[Operator]
    position: int
    extra_inputs: list[str] = field(default_factory=list)

    @property
    def head(self) -> Operator:
        """What the kernel is named after."""
        return self.operators[0]

    @property
    def output(self) -> str:
        """The tensor it writes."""
        return self.operators[-1].output

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors it reads."""
        return (*self.head.inputs, *self.extra_inputs)

    @property
    def functions(self) -> tuple[str, ...]:
        """What is fused behind the head."""
        return tuple(operator.function or operator.kind for operator in self.operators[1:])

    @property
    def function(self) -> str:
        """All its functions."""
        return "+".join(filter(None, (self.head.function, *self.functions)))

    def append(self, position: int, operator: Operator) -> None:
        """Fuse ``operator``, which stands at ``position``."""
        self.operators.append(operator)
        self.position = position


def group_operators(graph: FusionGraph, *, activations: bool, residuals: bool) -> list[Group]:
    """The operators of ``graph`` in groups that become one kernel each, in execution order.

    Args:
        graph: Constant factors that a matrix product absorbs become views in it.
        activations: Whether the runtime fuses activations.
        residuals: Whether it fuses the addition of residuals into blocked convolutions.
    """
    groups = _fuse_followers(graph, _absorbed_factors(graph), activations)
    return _fuse_residuals(graph, groups) if residuals else groups


def _absorbed_factors(graph: FusionGraph) -> set[int]:
    """Positions of constant factors that the float matrix product behind them takes; they become views."""
    absorbed: set[int] = set()
    for position, operator in enumerate(graph.table.operators):
        follower = graph.follower(operator.output)
        if not _is_factor(operator) or follower is None or follower[1].kind != "matmul":
            continue
        if not any(graph.is_quantized(name) for name in (*operator.inputs, *follower[1].inputs)):
            absorbed.add(position)
            graph.root[operator.output] = graph.root[operator.inputs[0]]
    return absorbed


def _is_factor(operator: Operator) -> bool:
    return operator.kind == "mul" and operator.function == "scale"


def _fuse_followers(graph: FusionGraph, absorbed: set[int], activations: bool) -> list[Group]:
    """Gives every operator the activation, or the constant factor, behind it that its kernel performs."""
    groups: list[Group] = []
    gone = set(absorbed)
    for position, operator in enumerate(graph.table.operators):
        if position in gone:
            continue
        group = Group([operator], position)
        follower = graph.follower(operator.output)
        if follower and follower[0] not in gone and _takes(graph, operator, follower[1], activations):
            group.append(*follower)
            gone.add(follower[0])
        groups.append(group)
    return groups


def _takes(graph: FusionGraph, operator: Operator, follower: Operator, activations: bool) -> bool:
    """Whether ``operator`` runs with ``follower`` fused into it."""
    if graph.is_quantized(operator.output) or operator.kind == "view":
        return False
    if _is_factor(follower):
        return operator.kind == "matmul" and not any(graph.is_quantized(name) for name in operator.inputs)
    if follower.kind != "activation":
        return False
    if graph.is_quantized(follower.output) and follower.function in CLAMPS:
        return True
    if operator.kind in CONVOLUTIONS:
        return activations and follower.function in _CONV_ACTIVATIONS
    return activations and _is_gemm(graph, operator) and follower.function in _LINEAR_ACTIVATIONS


def _is_gemm(graph: FusionGraph, operator: Operator) -> bool:
    floats = not operator.dynamic and not has_packed_weight(operator) and not graph.is_integer_linear(operator)
    return operator.kind == "linear" and floats and not graph.is_product(operator)


# --- residuals -----------------------------------------------------------------------------------------------------


def _fuse_residuals(graph: FusionGraph, groups: list[Group]) -> list[Group]:
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


def _append_addition(graph: FusionGraph, taker: Group, addition: Group) -> set[str]:
    """Fuses ``addition`` and its activation into convolution ``taker``; returns the names of what was fused."""
    taker.extra_inputs = [name for name in addition.head.inputs if name != taker.output]
    taker.append(addition.position, addition.head)
    follower = graph.follower(addition.output)
    if follower and follower[1].kind == "activation" and follower[1].function in _CONV_ACTIVATIONS:
        taker.append(*follower)
    return {operator.name for operator in taker.operators[1:]}


def _taker(graph: FusionGraph, addition: Group, writer: Mapping[str, Group]) -> Group | None:
    """The latest bare convolution whose output only ``addition`` reads."""
    found = [
        writer[name]
        for name in addition.head.inputs
        if graph.reads[name] == 1 and writer[name].head.kind in CONVOLUTIONS and len(writer[name].operators) == 1
    ]
    return max(found, key=lambda group: group.position, default=None)


def _is_blocked(graph: FusionGraph, group: Group, blocked: set[str]) -> bool:
    """Whether the runtime computes ``group`` in its blocked channel layout."""
    head, shape = group.head, graph.tensor(group.output).shape
    if len(shape) != 4 or graph.is_quantized(group.output):
        return False
    if head.kind in CONVOLUTIONS:
        return _is_blocked_convolution(head, graph.tensor(head.inputs[0]).shape[1])
    if head.kind == "add" and (head.function or len(head.inputs) != 2 or len(group.operators) > 1):
        return False
    passes = head.kind in ("max_pool", "avg_pool", "global_avg_pool", "add", "concat")
    passes = passes or (head.kind == "activation" and head.function in _CONV_ACTIVATIONS)
    aligned = head.kind != "concat" or all(graph.tensor(name).shape[1] % _BLOCK == 0 for name in head.inputs)
    return passes and aligned and all(name in blocked for name in head.inputs)


def _is_blocked_convolution(operator: Operator, channels: int) -> bool:
    weight = operator.weight
    if weight is None or weight.format == "int8":
        return False
    if operator.kind == "conv":
        return channels < _BLOCK or channels % _CHANNEL_ALIGNMENT == 0
    if operator.kind == "depthwise_conv":
        return channels == weight.channels and channels % _CHANNEL_ALIGNMENT == 0
    return channels % _BLOCK == 0 and weight.shape[1] % _BLOCK == 0
