"""Cutting channels out of a traced network: a new graph module, the old one untouched."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from kneepoint.spaces.axis_shapes import bounds_of, pieces_of
from kneepoint.spaces.channel_flow import Layout
from kneepoint.spaces.layer_rules import GROUPS_ARGUMENT
from kneepoint.spaces.network import Network, indices, length, varies
from kneepoint.spaces.tracing import (
    DROPOUTS,
    argument_of,
    copy_graph_module,
    operator_name,
    set_argument,
    shape_of,
    source_of,
    tensors_of,
)

_COUNTS_GROUPS = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), GROUPS_ARGUMENT),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), GROUPS_ARGUMENT),
    "group_norm": 1,
}
"""Operators on groups of channels, and the position of the argument that says how many groups."""
_SIZES = {"view": 1, "reshape": 1, "expand": 1, "unflatten": 2}
"""Operators that are given the shape of their output, and the position of the argument."""
_SLICES = ("slice", "narrow")
_SPLITS = ("chunk", "split", "split_with_sizes", "tensor_split")
_TRAINING_FLAGS = {"batch_norm": 5, **dict.fromkeys(DROPOUTS, 2)}
"""Operators that behave differently in training, and the position of the argument that says so."""


def cut(
    network: Network,
    kept: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor] | None = None,
    edit: Callable[[fx.Graph], None] | None = None,
) -> fx.GraphModule:
    """The network with only the channels ``kept``.

    Args:
        network: Left untouched.
        kept: Sorted channel indices to keep, by group; a group that is not here keeps everything.
        tensors: Full-size values to cut instead of the network's own, by parameter name.
        edit: Changes the new graph further, in place.

    Returns:
        A graph module with the network's node and parameter names. Parameters that were cut are new; others shared.
    """
    full = {**network.tensors(), **(tensors or {})}
    smaller = {
        name: cut_tensor(full[name], layouts, kept)
        for name, layouts in network.flow.parameters.items()
        if _touched(layouts, kept)
    }
    channels = {group: len(rows) for group, rows in kept.items()}

    def resize(graph: fx.Graph) -> None:
        for node in graph.nodes if kept else ():
            _resize(network, node, channels)
        if edit is not None:
            edit(graph)

    return copy_graph_module(network.graph_module, resize, {**full, **smaller}, lazy=True)


def cut_tensor(tensor: Tensor, layouts: tuple[Layout, ...], kept: Mapping[str, Tensor]) -> Tensor:
    """The rows, columns, ... of ``tensor`` that belong to kept channels; parameters stay parameters."""
    result = tensor.detach()
    for axis, layout in enumerate(layouts):
        if varies(layout):
            result = result.index_select(axis, indices(layout, kept))
    return nn.Parameter(result, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else result


def trainable(source: fx.GraphModule) -> fx.GraphModule:
    """A copy with parameters of its own, whose BatchNorm and dropout follow ``train()`` and ``eval()``."""

    def edit(graph: fx.Graph) -> None:
        with graph.inserting_before(next(iter(graph.nodes))):
            mode = graph.get_attr("training")  # read from the module at every call
        for node in graph.nodes:
            set_training(node, mode)

    copies: dict[int, nn.Parameter] = {}  # tied parameters stay tied
    tensors: dict[str, Any] = {"training": True}
    for name, value in tensors_of(source).items():
        if isinstance(value, nn.Parameter):
            tensors[name] = copies.setdefault(id(value), nn.Parameter(value.detach().clone()))
        else:
            tensors[name] = value.clone()
    return copy_graph_module(source, edit, tensors)


def set_training(node: fx.Node, training: bool | fx.Node) -> None:
    """Switch one operator between its inference and its training behaviour, in place."""
    position = _TRAINING_FLAGS.get(operator_name(node))
    if position is not None:
        set_argument(node, position, training)


def _touched(layouts: tuple[Layout, ...], kept: Mapping[str, Tensor]) -> bool:
    return any(segment.group in kept for layout in layouts for segment in layout)


def _resize(network: Network, node: fx.Node, channels: Mapping[str, int]) -> None:
    """Rewrite the sizes that the trace wrote down as constants."""
    name = operator_name(node)
    if name in (*_SLICES, *_SPLITS):
        _cut_elsewhere(network, node, channels)
    axis, layout = network.flow.values.get(node.name, (0, ()))
    if not varies(layout):
        return
    before, after = shape_of(node)[axis], length(layout, channels)
    if name in _COUNTS_GROUPS and len(node.args) > _COUNTS_GROUPS[name]:
        position = _COUNTS_GROUPS[name]
        groups = node.args[position]
        if isinstance(groups, int) and groups != 1:  # whole groups go, so their size stays
            set_argument(node, position, groups * after // before)
    if name in _SIZES:
        shape = list(argument_of(node, _SIZES[name], "size", ()))
        first = argument_of(node, 1, "dim", 0) % len(shape_of(source_of(node))) if name == "unflatten" else 0
        place = axis - first
        if 0 <= place < len(shape) and shape[place] == before:
            shape[place] = after
            set_argument(node, _SIZES[name], shape)


def _cut_elsewhere(network: Network, node: fx.Node, channels: Mapping[str, int]) -> None:
    """Move the places at which a slice or a split cuts an axis that varies."""
    axis, layout = network.flow.values.get(source_of(node).name, (0, ()))
    sliced = operator_name(node) in _SLICES
    along = argument_of(node, 1 if sliced else 2, "dim", 0) % len(shape_of(source_of(node)))
    if along != axis or not varies(layout):
        return
    places = bounds_of(node) if sliced else tuple(itertools.accumulate(pieces_of(node, axis), initial=0))
    moved = [_moved(layout, place, channels) for place in places or ()]
    if not moved:
        return
    lengths = [end - start for start, end in itertools.pairwise(moved)]
    node.target = torch.ops.aten.slice.Tensor if sliced else torch.ops.aten.split_with_sizes.default
    node.args = (source_of(node), axis, *moved) if sliced else (source_of(node), lengths, axis)
    node.kwargs = {}


def _moved(layout: Layout, place: int, channels: Mapping[str, int]) -> int:
    """Where an element of the full axis lies once channels are gone; it is the first of its channel, or a fixed one."""
    moved = offset = 0
    for segment in layout:
        size = segment.channels * segment.repeat
        if offset + size > place:
            return moved + place - offset
        offset, moved = offset + size, moved + length((segment,), channels)
    return moved
