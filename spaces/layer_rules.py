"""How channels flow through operators that have weights: layers and norms."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from kneepoint.spaces.flow_state import FlowState, Rule, computed_layer
from kneepoint.spaces.tracing import argument_of, as_node, operator_name, shape_of, source_of

GROUPS_ARGUMENT = 6
"""Position of ``groups`` among the arguments of every convolution."""


def convolution(flow: FlowState, node: fx.Node) -> str:
    """Ordinary and transposed convolutions, the output channels of which are new."""
    weight = as_node(node.args[1])
    if argument_of(node, GROUPS_ARGUMENT, "groups", 1) != 1:
        return _grouped_convolution(flow, node, weight)
    transposed = operator_name(node).startswith("conv_transpose")
    flow.bind(weight, 0 if transposed else 1, flow.entering(node, 1))
    leaving = flow.layer_output(node, weight, 1 if transposed else 0)
    flow.bind(argument_of(node, 2, "bias", None), 0, leaving)
    flow.values[node] = (1, leaving)
    return ""


def _grouped_convolution(flow: FlowState, node: fx.Node, weight: fx.Node) -> str:
    """Whole groups go, with what enters and what leaves them; a depthwise convolution has one channel a group."""
    groups, layer = argument_of(node, GROUPS_ARGUMENT, "groups", 1), computed_layer(node, weight)
    reads, writes = shape_of(source_of(node))[1] // groups, shape_of(node)[1] // groups
    entering = flow.entering(node, 1)
    why = f"the groups of convolution {layer} do not fit to it"
    leaving = flow.sets.scale(entering, reads, writes, why)
    flow.bind(weight, 0, entering if operator_name(node).startswith("conv_transpose") else leaving)
    flow.bind(argument_of(node, 2, "bias", None), 0, leaving)
    flow.layers[layer] = leaving
    flow.values[node] = (1, leaving)
    return ""


def linear(flow: FlowState, node: fx.Node) -> str:
    """Along the last axis."""
    weight = as_node(node.args[1])
    last = len(shape_of(node)) - 1
    flow.bind(weight, 1, flow.entering(node, last))
    leaving = flow.layer_output(node, weight, 0)
    flow.bind(argument_of(node, 2, "bias", None), 0, leaving)
    flow.values[node] = (last, leaving)
    return ""


def embedding(flow: FlowState, node: fx.Node) -> str:
    """The features of a table's rows; its rows themselves stay."""
    weight, indices = as_node(node.args[0]), as_node(node.args[1])
    flow.values[node] = (len(shape_of(node)) - 1, flow.layer_output(node, weight, 1))
    if indices in flow.values:
        flow.sets.freeze(flow.values[indices][1], f"it is looked up in {computed_layer(node, weight)}")
    return ""


def per_channel(flow: FlowState, node: fx.Node) -> str:
    """BatchNorm, InstanceNorm and PReLU: vectors along axis 1."""
    source = source_of(node)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if axis != 1:
        return f"operator {operator_name(node)} works across it"
    vectors = [entry for entry in node.args[1:5] if isinstance(entry, fx.Node)]
    for vector in vectors:
        if shape_of(vector) != (1,):  # one slope for all channels
            flow.bind(vector, 0, runs)
    flow.values[node] = (axis, runs)
    return ""


def group_norm(flow: FlowState, node: fx.Node) -> str:
    """Mean and variance are taken within a group of channels, so whole groups may go."""
    source, groups = source_of(node), argument_of(node, 1, "num_groups", 1)
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if axis != 1:
        return "operator group_norm works across it"
    together = "all of it" if groups == 1 else "groups of channels that come from several layers"
    flow.sets.coarsen(runs, shape_of(node)[1] // groups, f"operator group_norm takes one mean over {together}")
    for position, name in ((2, "weight"), (3, "bias")):
        flow.bind(argument_of(node, position, name, None), 0, runs)
    flow.values[node] = (axis, runs)
    return ""


def normalize_last(flow: FlowState, node: fx.Node) -> str:
    """LayerNorm and RMSNorm: a mean over the last axes, which all who are in it depend on."""
    source, normalized = source_of(node), argument_of(node, 1, "normalized_shape", ())
    if source not in flow.values:
        return ""
    axis, runs = flow.values[source]
    if axis >= len(shape_of(node)) - len(normalized):
        return f"operator {operator_name(node)} takes one mean over all of it, which would change ({node.name})"
    flow.values[node] = (axis, runs)
    return ""


LAYER_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), convolution),
    **dict.fromkeys(("batch_norm", "instance_norm", "prelu"), per_channel),
    **dict.fromkeys(("layer_norm", "rms_norm"), normalize_last),
    "linear": linear,
    "embedding": embedding,
    "group_norm": group_norm,
}
