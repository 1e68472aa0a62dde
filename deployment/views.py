"""Reshapes of a traced graph that need not be executed: those that change nothing, and those in front of others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from kneepoint.spaces.axis_shapes import RESHAPES, UNUSUAL_BATCH, is_identity
from kneepoint.spaces.tracing import operator_name, set_argument, shape_of, source_of

_EXPAND = "expand"
_OF_ONE_AXIS = ("squeeze", "unsqueeze")
"""Operators of their own in ONNX."""


def idle_views(graph: fx.Graph) -> list[fx.Node]:
    """The reshapes and expansions that give the shape they find.

    Args:
        graph: As ``torch.export`` gives it, its nodes with their values.
    """
    views = [node for node in graph.nodes if operator_name(node) in (*RESHAPES, _EXPAND)]
    return [node for node in views if shape_of(node, UNUSUAL_BATCH) == shape_of(source_of(node), UNUSUAL_BATCH)]


def keep_sizes(graph: fx.Graph) -> None:
    """Let expansions of a traced graph name the sizes that change alone, in place: the batch's is then not computed."""
    for node in graph.nodes:
        if operator_name(node) == _EXPAND:
            before, after = shape_of(source_of(node), UNUSUAL_BATCH), shape_of(node, UNUSUAL_BATCH)
            old = (0,) * (len(after) - len(before)) + before
            sizes = list(node.args[1])
            set_argument(node, 1, [-1 if old[i] == after[i] else size for i, size in enumerate(sizes)])


def merge_views(graph: fx.Graph, sizes_of: Callable[[fx.Node], list[int] | None]) -> None:
    """Let reshapes of reshapes read what those read, in place.

    Args:
        graph: Whose reshapes, as far as they are operators of torch, have their values.
        sizes_of: The sizes of a node's value, -1 where they follow the batch; None where they may not be written down.
    """
    for node in graph.nodes:
        sizes = sizes_of(node) if _is_view(node) else None
        if sizes is None:
            continue
        source = first = source_of(node)
        while _is_view(source) or is_identity(source):
            source = source_of(source)
        if source is not first and sizes.count(-1) <= 1:
            node.target, node.args, node.kwargs = torch.ops.aten.reshape.default, (source, sizes), {}


def keeps_batch(node: fx.Node) -> bool:
    """Whether a node is a reshape whose first size is that of its input, and no other size follows the batch.

    Written so, a runtime knows the number of samples to be that of others: ONNX Runtime fuses more of what follows.
    """
    if not _is_view(node) or operator_name(node) in _OF_ONE_AXIS:
        return False
    source = source_of(node)
    while "val" not in source.meta:  # a marker, which hands its input on
        source = source.all_input_nodes[0]
    before, after = source.meta["val"].shape, node.meta["val"].shape
    kept = bool(after) and not isinstance(after[0], int) and str(after[:1]) == str(before[:1])
    return kept and all(isinstance(size, int) for size in after[1:])


def _is_view(node: fx.Node) -> bool:
    return operator_name(node) in RESHAPES and isinstance(node.target, torch._ops.OpOverload)
