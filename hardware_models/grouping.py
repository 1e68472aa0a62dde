"""Which operators ONNX Runtime fuses into one kernel."""

from __future__ import annotations

from dataclasses import dataclass

from kneepoint.hardware_models.fusion_graph import CONVOLUTIONS, FusionGraph, has_integer_weight, has_packed_weight
from kneepoint.hardware_models.operators import Operator

CLAMPS = frozenset({"relu", "clip"})
"""Activations that the saturation of a quantized output performs. A clip is only free where the quantized range does
not reach beyond it, which holds for ranges calibrated behind the clip."""
CONV_ACTIVATIONS = frozenset({"relu", "leakyrelu", "sigmoid", "tanh", "hardsigmoid", "clip"})
"""What a float convolution computes with its own kernel."""
_LINEAR_ACTIVATIONS = frozenset({
    "relu", "leakyrelu", "sigmoid", "tanh", "hardsigmoid", "elu", "selu", "softplus", "softsign", "thresholdedrelu",
})  # fmt: skip

_SPATIAL = 2
"""The first axis of an image that is neither samples nor channels."""


@dataclass
class Group:
    """Operators that become one kernel; the first one heads it."""

    operators: list[Operator]
    position: int

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
        return self.head.inputs

    @property
    def functions(self) -> tuple[str, ...]:
        """What is fused behind the head; constants that go into those of a convolution leave no trace."""
        folded = self.head.kind in CONVOLUTIONS
        followers = [entry for entry in self.operators[1:] if entry.kind == "activation" or not folded]
        return tuple(operator.function or operator.kind for operator in followers)

    @property
    def function(self) -> str:
        """All its functions."""
        return "+".join(filter(None, (self.head.function, *self.functions)))

    def append(self, position: int, operator: Operator) -> None:
        """Fuse ``operator``, which stands at ``position``."""
        self.operators.append(operator)
        self.position = position


def group_operators(graph: FusionGraph, *, activations: bool) -> list[Group]:
    """The operators of ``graph`` in groups that become one kernel each, in execution order.

    Args:
        graph: Constant factors that a matrix product absorbs become views in it.
        activations: Whether the runtime fuses activations.
    """
    return _fuse_followers(graph, _absorbed_factors(graph) | _absorbed_paddings(graph), activations)


def _absorbed_factors(graph: FusionGraph) -> set[int]:
    """Positions of constant factors that the float matrix product behind them takes; they become views."""
    absorbed: set[int] = set()
    for position, operator in enumerate(graph.table.operators):
        follower = graph.follower(operator.output)
        if not _is_factor(operator) or follower is None or follower[1].kind != "matmul":
            continue
        if not any(graph.is_quantized(name) for name in (*operator.inputs, *follower[1].inputs)):
            absorbed.add(position)
            graph.bypass(operator)
    return absorbed


def _absorbed_paddings(graph: FusionGraph) -> set[int]:
    """Positions of borders of zeros that the float convolution, or pool, behind them adds itself; they become views."""
    absorbed: set[int] = set()
    for position, operator in enumerate(graph.table.operators):
        if operator.function != "Pad" or not operator.axes:
            continue
        follower = graph.follower(operator.output)
        if follower is None or any(graph.is_quantized(name) for name in (*operator.inputs, operator.output)):
            continue
        floats = follower[1].kind in CONVOLUTIONS and not has_integer_weight(follower[1])
        spatial = min(operator.axes) >= _SPATIAL
        if spatial and (floats or follower[1].kind in ("max_pool", "avg_pool")):
            absorbed.add(position)
            graph.bypass(operator)
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
    if operator.kind in CONVOLUTIONS and _folds_into(
        operator, follower, len(graph.table.tensors[operator.output].shape)
    ):
        return True
    if _is_factor(follower):
        products = operator.kind == "matmul" or _is_float_product(graph, operator)
        return products and not any(graph.is_quantized(name) for name in operator.inputs)
    if follower.kind != "activation":
        return False
    if graph.is_quantized(follower.output) and follower.function in CLAMPS:
        return True
    if operator.kind in CONVOLUTIONS:
        return activations and follower.function in CONV_ACTIVATIONS
    return activations and _is_gemm(graph, operator) and follower.function in _LINEAR_ACTIVATIONS


def _folds_into(operator: Operator, follower: Operator, rank: int) -> bool:
    """Whether a constant factor, or summand, of each channel goes into the constants of a float convolution."""
    if follower.kind not in ("add", "mul") or follower.operand is None or has_integer_weight(operator):
        return False
    channels = (operator.weight.channels if operator.weight else 0, *[1] * (rank - 2))
    if follower.kind == "add":
        return not follower.function and follower.operand in (channels, (1, *channels))
    return _is_factor(follower) or (not follower.function and follower.operand == (1, *channels))


def _is_float_product(graph: FusionGraph, operator: Operator) -> bool:
    """Whether a linear layer without a bias multiplies floats: MatMul."""
    return operator.kind == "linear" and operator.bias is None and _multiplies_floats(graph, operator)


def _multiplies_floats(graph: FusionGraph, operator: Operator) -> bool:
    return not operator.dynamic and not has_packed_weight(operator) and not graph.is_integer_linear(operator)


def _is_gemm(graph: FusionGraph, operator: Operator) -> bool:
    return operator.kind == "linear" and _multiplies_floats(graph, operator) and not graph.is_product(operator)
