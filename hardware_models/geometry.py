"""The sizes of a node's work, in the terms that latency depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kneepoint.hardware_models.kernels import GEOMETRY, NO_GEOMETRY
from kneepoint.hardware_models.nodes import Node, NodeGraph

Shape = tuple[int, ...]
_IMAGES = 4


def geometry_of(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    """The sizes of ``node``, as ``Kernel.geometry`` describes them."""
    rule = _RULES.get(node.kind)
    return rule(graph, node) if rule is not None else NO_GEOMETRY


def _sizes(**sizes: int) -> tuple[int, ...]:
    return tuple(sizes.get(name, 0) for name in GEOMETRY)


def _images(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    before = _as_image(graph.values[node.inputs[0]].shape, node)
    after = _as_image(graph.values[node.output].shape, node)
    operator = node.operator
    weight = operator.weight if operator is not None else None
    kernel = operator.kernel if operator is not None else ()
    height, width = (1, *kernel)[-2:] if kernel else (1, 1)
    if node.kind == "global_avg_pool":
        height, width = before[2:]
    if node.kind in ("max_pool", "avg_pool"):  # a window may be larger than the image
        height, width = min(height, before[2]), min(width, before[3])
    groups = before[1] // weight.shape[1] if weight is not None and node.kind != "conv_transpose" else 1
    if node.kind in ("max_pool", "avg_pool", "global_avg_pool", "resize") or weight is None:
        groups = before[1]
    stride = max(operator.stride, 1) if operator is not None else 1
    return (before[0], before[1], after[1], groups, *before[2:], *after[2:], height, width, stride, 0)


def _as_image(shape: Shape, node: Node) -> tuple[int, int, int, int]:
    """(batch, channels, height, width), wherever the channels are; volumes become tall images."""
    if node.layout == "nhwc":
        shape = (shape[0], shape[-1], *shape[1:-1])
    batch, channels, *rest = (*shape, 1) if len(shape) == 2 else shape
    return batch, channels, math.prod(rest[:-1]), rest[-1]


def _reorder(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    name = node.inputs[0] if node.function == "output" else node.output  # the side in blocks
    batch, channels, height, width = graph.values[name].shape
    return _sizes(batch=batch, in_channels=channels, out_channels=channels, in_height=height, in_width=width)


def _product(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    shape = graph.values[node.output].shape
    columns = shape[-1] if shape else 1
    rows = math.prod(shape[:-1])
    batch = 1
    if node.kind == "matmul" and len(shape) > 2:
        batch, rows = math.prod(shape[:-2]), shape[-2]
    inner = node.macs // max(math.prod(shape), 1)
    return _sizes(batch=batch, in_height=rows, in_channels=inner, out_channels=columns)


def _along(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    """Softmax, norms, reductions and concatenations: (outer, along, inner)."""
    name = node.output if node.kind == "concat" else node.inputs[0]
    shape = graph.values[name].shape
    axes = node.axes or (len(shape) - 1,)
    first, last = axes[0], axes[-1]
    outer, inner = math.prod(shape[:first]), math.prod(shape[last + 1 :])
    return _sizes(batch=outer, in_channels=math.prod(shape[first : last + 1]), span=inner)


def _group_norm(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    batch, channels, *rest = graph.values[node.inputs[0]].shape
    return _sizes(batch=batch, in_channels=channels, span=math.prod(rest))


def _copy(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    """Runs of elements that stay together."""
    before, after = graph.values[node.inputs[0]].shape, graph.values[node.output].shape
    span, axis = 1, 0
    while axis < min(len(before), len(after)) and before[-1 - axis] == after[-1 - axis]:
        span *= after[-1 - axis]
        axis += 1
    along = after[-1 - axis] if axis < len(after) else 1
    total = math.prod(after) * (1 + len(node.also))
    return _sizes(batch=total // max(span * along, 1), in_channels=along, span=span)


def _embedding(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    weight = node.operator.weight if node.operator is not None else None
    shape = graph.values[node.output].shape
    rows = weight.shape[0] if weight is not None else 0
    return _sizes(batch=math.prod(shape[:-1]), in_channels=rows, span=shape[-1])


def _elementwise(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    shape = graph.values[node.output].shape
    operands = [graph.values[name].shape for name in node.inputs]
    if node.operand is not None:
        operands.append(node.operand)
    total = math.prod(shape)
    if len(operands) == 1:
        return _sizes(batch=1, span=total)
    smaller = min(operands, key=math.prod)
    run = _run(shape, smaller)
    return _sizes(batch=total // max(run, 1), in_channels=math.prod(smaller), span=run)


def _run(shape: Shape, smaller: Shape) -> int:
    """Contiguous elements in which the smaller operand advances alike, or stands still."""
    aligned = (*[1] * (len(shape) - len(smaller)), *smaller)
    run, still = 1, None
    for size, own in zip(reversed(shape), reversed(aligned), strict=False):
        if size == 1:
            continue
        if still is None:
            still = own == 1
        if still != (own == 1):
            break
        run *= size
    return run


def _transpose(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    """The axes that change places, as (outer, first, second, inner): neighbours that stay neighbours are one axis.

    Where more than two do, the second is all behind the first. How many axes of the tensor each is made of says which
    of the runtime's loops it is.
    """
    runs = _runs(node.axes, graph.values[node.inputs[0]].shape)
    ordered = sorted(range(len(runs)), key=lambda place: runs[place].start)
    moved = [place for place, source in enumerate(ordered) if place != source]
    if not moved:
        return _sizes(batch=1, span=math.prod(run.size for run in runs))
    by_input = [runs[place] for place in ordered]
    first, last = moved[0], moved[-1]
    behind = by_input[first + 1 : last + 1]
    return _sizes(
        batch=math.prod(run.size for run in by_input[:first]),
        in_channels=by_input[first].size,
        out_channels=math.prod(run.size for run in behind),
        kernel_height=by_input[first].axes,
        kernel_width=sum(run.axes for run in behind),
        out_height=runs[-1].size,
        groups=len(moved),
        span=math.prod(run.size for run in by_input[last + 1 :]),
    )


@dataclass(frozen=True)
class _Run:
    """Neighbouring axes that stay neighbours, in their order: where they start, their elements, how many they are."""

    start: int
    size: int
    axes: int


def _runs(permutation: Sequence[int], shape: Shape) -> list[_Run]:
    """The runs of a permutation, in the order of the output; axes of one element are nowhere."""
    runs: list[_Run] = []
    end = -1
    for axis in permutation:
        if shape[axis] == 1:
            continue
        between = range(end, axis)
        if runs and axis >= end and all(shape[other] == 1 for other in between):
            runs[-1] = _Run(runs[-1].start, runs[-1].size * shape[axis], runs[-1].axes + 1)
        else:
            runs.append(_Run(axis, shape[axis], 1))
        end = axis + 1
    return runs


def _whole(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    return _sizes(span=graph.values[node.output].elements)


def _converted(graph: NodeGraph, node: Node) -> tuple[int, ...]:
    """Runs that share a scale: all elements, or what lies behind the axis that has scales of its own."""
    shape = graph.values[node.output].shape
    run = math.prod(shape[node.axes[0] + 1 :]) if node.axes else math.prod(shape)
    return _sizes(batch=math.prod(shape) // max(run, 1), span=run)


_Rule = Callable[[NodeGraph, Node], tuple[int, ...]]
_IMAGE_KINDS = ("conv", "depthwise_conv", "grouped_conv", "conv_transpose", "max_pool", "avg_pool", "global_avg_pool")
_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys((*_IMAGE_KINDS, "resize"), _images),
    **dict.fromkeys(("linear", "matmul"), _product),
    **dict.fromkeys(("softmax", "layer_norm", "reduce", "concat"), _along),
    **dict.fromkeys(("group_norm", "batch_norm"), _group_norm),
    **dict.fromkeys(("add", "mul", "select", "activation"), _elementwise),
    **dict.fromkeys(("quantize", "dequantize"), _converted),
    "copy": _copy,
    "embedding": _embedding,
    "reorder": _reorder,
    "transpose": _transpose,
    "view": _whole,
}
