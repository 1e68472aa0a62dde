"""Depthwise-separable convolutions in place of full ones: each channel is filtered, then channels are mixed.

Howard et al., "MobileNets", 2017, section 3.1: kernel area x in x out multiplications become (kernel area + out) x in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from kneepoint.spaces.channel_flow import layer_name
from kneepoint.spaces.layer_rules import GROUPS_ARGUMENT
from kneepoint.spaces.tracing import argument_of, as_node, copy_graph_module, operator_name, source_of, tensors_of

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_FEWEST = 8
"""Channels that a convolution must read for two to be cheaper than one."""
_STRIDE, _PADDING, _DILATION = 3, 4, 5


def separable_layers(graph: fx.Graph, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the weights of convolutions that may be taken apart: full ones, with a kernel larger than one element.

    Args:
        graph: A traced graph.
        shapes: Of its parameters.
    """
    return [str(as_node(node.args[1]).target) for node in graph.nodes if _is_full(node, shapes)]


def separate(source: fx.GraphModule) -> fx.GraphModule:
    """A copy in which every such convolution is a depthwise one, and a pointwise one of its old name.

    Their weights are the nearest to the old one: the best product of a filter and a mixture for every channel.
    """
    tensors = dict(tensors_of(source))
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}

    def edit(graph: fx.Graph) -> None:
        for node in [node for node in graph.nodes if _is_full(node, shapes)]:
            name = str(as_node(node.args[1]).target)
            depthwise = f"{layer_name(name)}.depthwise.weight"
            filters, mixture = apart(tensors[name])
            tensors[depthwise], tensors[name] = nn.Parameter(filters), nn.Parameter(mixture)
            _take_apart(graph, node, depthwise, len(filters))

    return copy_graph_module(source, edit, tensors)


def apart(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The best separable approximation of a full weight, in the sense of squares: a singular value for every channel.

    Args:
        weight: (out, in, *kernel).

    Returns:
        Filters (in, 1, *kernel) and mixtures (out, in, 1, ...).
    """
    out, channels, *kernel = weight.shape
    matrices = weight.detach().reshape(out, channels, -1).transpose(0, 1)  # (in, out, area)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    root = values[:, :1].sqrt()
    filters = (right[:, 0] * root).reshape(channels, 1, *kernel)
    return filters, (left[:, :, 0] * root).t().reshape(out, channels, *[1] * len(kernel)).contiguous()


def separated_size(shape: tuple[int, ...]) -> int:
    """Elements of both weights that take the place of one."""
    out, channels, *kernel = shape
    return channels * (math.prod(kernel) + out)


def _is_full(node: fx.Node, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if operator_name(node) not in _CONVOLUTIONS or argument_of(node, GROUPS_ARGUMENT, "groups", 1) != 1:
        return False
    weight = as_node(node.args[1])
    if weight.op != "get_attr" or len(weight.users) != 1:
        return False
    shape = shapes[str(weight.target)]
    return shape[1] >= _FEWEST and math.prod(shape[2:]) > 1


def _take_apart(graph: fx.Graph, node: fx.Node, depthwise: str, channels: int) -> None:
    ones = [1] * (len(as_node(node.args[1]).meta["val"].shape) - 2)
    places = (("stride", _STRIDE, ones), ("padding", _PADDING, [0] * len(ones)), ("dilation", _DILATION, ones))
    settings = [argument_of(node, place, name, default) for name, place, default in places]
    with graph.inserting_before(node):
        filters = graph.get_attr(depthwise)
        filtered = graph.create_node(
            "call_function", node.target, (source_of(node), filters, None, *settings, channels)
        )
    filtered.meta = dict(node.meta)
    node.target = getattr(torch.ops.aten, operator_name(node)).default
    node.args = (filtered, node.args[1], argument_of(node, 2, "bias", None))
    node.kwargs = {}
