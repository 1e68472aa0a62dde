"""Cutting channels out of a traced network: a new graph module, the old one untouched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from kneepoint.spaces.channel_flow import Layout
from kneepoint.spaces.network import Network, indices, length, varies
from kneepoint.spaces.tracing import copy_graph_module, operator_name, shape_of, tensors_of

_DEPTHWISE_GROUPS = 6  # position of ``groups`` among a convolution's arguments
_TRAINING_FLAGS = {"batch_norm": 5, "dropout": 2}
"""Operators that behave differently in training, and the position of the argument that says so."""


def cut(network: Network, kept: Mapping[str, Tensor], tensors: Mapping[str, Tensor] | None = None) -> fx.GraphModule:
    """The network with only the channels ``kept``.

    Args:
        network: Left untouched.
        kept: Sorted channel indices to keep, by group; a group that is not here keeps everything.
        tensors: Full-size values to cut instead of the network's own, by parameter name.

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

    def edit(graph: fx.Graph) -> None:
        for node in graph.nodes:
            _resize(network, node, channels)

    return copy_graph_module(network.graph_module, edit if kept else None, {**full, **smaller})


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
        node.args = (*node.args[:position], training, *node.args[position + 1 :])


def _touched(layouts: tuple[Layout, ...], kept: Mapping[str, Tensor]) -> bool:
    return any(segment.group in kept for layout in layouts for segment in layout)


def _resize(network: Network, node: fx.Node, channels: Mapping[str, int]) -> None:
    """Rewrite the sizes that the trace wrote down as constants."""
    axis, layout = network.flow.values.get(node.name, (0, ()))
    if not varies(layout):
        return
    name = operator_name(node)
    size = length(layout, channels)
    if name.startswith("conv") and len(node.args) > _DEPTHWISE_GROUPS and node.args[_DEPTHWISE_GROUPS] != 1:
        # Channels that vary behind a convolution with groups are those of a depthwise one.
        node.args = (*node.args[:_DEPTHWISE_GROUPS], size, *node.args[_DEPTHWISE_GROUPS + 1 :])
    if name in ("view", "reshape"):
        shape: Any = list(node.args[1])  # type: ignore[arg-type]  # the operator's schema says a list of sizes
        if shape[axis] == shape_of(node)[axis]:
            shape[axis] = size
            node.args = (node.args[0], shape, *node.args[2:])
