"""Which of our kernels each node is that ONNX Runtime's profiler has timed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

from kneepoint.deployment.device_program import TimedNode, read_profile, steady_mean
from kneepoint.hardware_models.kernels import Kernel

__all__ = ["TimedNode", "pair", "read_profile", "steady_mean"]

_BLOCK = 16

_FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("Conv", "FusedConv"), "conv fp32"),
    "QLinearConv": "conv int8",
    "ConvTranspose": "conv_transpose fp32",
    **dict.fromkeys(("MatMul", "Gemm", "FusedGemm", "FusedMatMul", "TransposeMatMul"), "product fp32"),
    **dict.fromkeys(("QGemm", "QLinearMatMul", "MatMulIntegerToFloat"), "product int8"),
    "DynamicQuantizeMatMul": "product dynamic",
    "MatMulNBits": "product packed",
    **dict.fromkeys(("Add", "Sub", "BiasAdd", "Sum"), "add fp32"),
    "QLinearAdd": "add int8",
    **dict.fromkeys(("Mul", "Div"), "mul fp32"),
    "QLinearMul": "mul int8",
    **dict.fromkeys(
        (
            *("Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "Clip", "Gelu", "BiasGelu", "FastGelu"),
            *("QuickGelu", "Elu", "Softplus", "Erf", "HardSwish"),
        ),
        "activation fp32",
    ),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu"), "activation int8"),
    **dict.fromkeys(("LayerNormalization", "SkipLayerNormalization"), "layer_norm"),
    **dict.fromkeys(("Softmax", "QLinearSoftmax"), "softmax"),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "QLinearReduceMean"), "reduce"),
    **dict.fromkeys(("MaxPool", "NhwcMaxPool"), "max_pool"),
    **dict.fromkeys(("AveragePool", "QLinearAveragePool"), "avg_pool"),
    **dict.fromkeys(("GlobalAveragePool", "QLinearGlobalAveragePool"), "global_avg_pool"),
    **dict.fromkeys(("Concat", "QLinearConcat"), "concat"),
    **dict.fromkeys(("Slice", "Split", "Pad", "Expand", "Tile"), "copy"),
    "Gather": "lookup",
    "Cast": "cast",
    "Transpose": "transpose",
    **dict.fromkeys(("ReorderInput", "ReorderOutput"), "reorder"),
    **dict.fromkeys(("QuantizeLinear", "DynamicQuantizeLinear"), "quantize"),
    "DequantizeLinear": "dequantize",
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), "view"),
}
_CONVOLUTIONS = frozenset({"conv", "depthwise_conv", "grouped_conv"})


def pair(kernels: Sequence[Kernel], nodes: Sequence[TimedNode]) -> list[tuple[int, TimedNode]]:
    """Positions of kernels with the nodes they are.

    The optimizer mostly keeps the name of one of the operators that it fuses. What it has named itself is taken by
    family and size, in order; then by family alone, because the runtime counts the channels that fill up a block. Where
    their numbers differ neither is paired: the kernels there are not those that ran.
    """
    pairs = _pair_by_name(kernels, nodes)
    pairs += _pair_by(kernels, *_left(kernels, nodes, pairs), _sized, lambda node: (_named(node), node.elements))
    rest = _pair_by(kernels, *_left(kernels, nodes, pairs), _family, _named)
    return sorted([*pairs, *(entry for entry in rest if _is_filled_up(kernels[entry[0]], entry[1]))], key=_place)


def _place(entry: tuple[int, TimedNode]) -> int:
    return entry[0]


def _sized(kernel: Kernel) -> tuple[str, int]:
    return _family(kernel), kernel.elements


def _left(
    kernels: Sequence[Kernel], nodes: Sequence[TimedNode], pairs: Sequence[tuple[int, TimedNode]]
) -> tuple[list[int], list[TimedNode]]:
    taken, used = {place for place, _ in pairs}, {id(node) for _, node in pairs}
    return [place for place in range(len(kernels)) if place not in taken], [n for n in nodes if id(n) not in used]


def _pair_by_name(kernels: Sequence[Kernel], nodes: Sequence[TimedNode]) -> list[tuple[int, TimedNode]]:
    """Kernels and nodes of one family that share the name of an operator, where both are the only ones."""
    ours: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, kernel in enumerate(kernels):
        for operator in kernel.operators:
            ours[operator, _family(kernel)].append(place)
    theirs: dict[tuple[str, str], list[TimedNode]] = defaultdict(list)
    for node in nodes:
        theirs[re.split(r"[_/]", node.name, maxsplit=1)[0], _named(node)].append(node)
    alone = (key for key in theirs if len(ours.get(key, ())) == len(theirs[key]) == 1)
    return [(ours[key][0], theirs[key][0]) for key in alone]


def _pair_by(
    kernels: Sequence[Kernel],
    places: Sequence[int],
    nodes: Sequence[TimedNode],
    ours: Callable[[Kernel], Hashable],
    theirs: Callable[[TimedNode], Hashable],
) -> list[tuple[int, TimedNode]]:
    mine: dict[Hashable, list[int]] = defaultdict(list)
    other: dict[Hashable, list[TimedNode]] = defaultdict(list)
    for place in places:
        mine[ours(kernels[place])].append(place)
    for node in nodes:
        other[theirs(node)].append(node)
    equal = (key for key in mine if len(mine[key]) == len(other[key]))
    return [entry for key in equal for entry in zip(mine[key], other[key], strict=True)]


def _is_filled_up(kernel: Kernel, node: TimedNode) -> bool:
    return kernel.layout == "blocked" and 1 <= node.elements / max(1, kernel.elements) <= _BLOCK


def _named(node: TimedNode) -> str:
    return _FAMILIES.get(node.operator, node.operator)


def _family(kernel: Kernel) -> str:
    """What :data:`_FAMILIES` calls the nodes that a kernel can be."""
    if kernel.kind in _CONVOLUTIONS:
        return f"conv {kernel.format}"
    if kernel.kind in ("linear", "matmul"):
        return f"product {'packed' if kernel.format.startswith('packed') else kernel.format}"
    if kernel.kind in ("add", "mul", "activation", "conv_transpose"):
        return f"{kernel.kind} {kernel.format}"
    if kernel.kind == "embedding" or (kernel.kind == "copy" and kernel.function == "Gather"):
        return "lookup"
    if kernel.kind == "select":
        return "cast" if kernel.function == "Cast" else kernel.function
    return kernel.kind
