"""The simulator: a folded network whose weights and activations pass through their quantization.

:func:`insert_quantizers` places the quantizers. The simulator and the exporter both use it, with different nodes, so that
what is measured is what is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from kneepoint.compression.quantizers import (
    activation_quant,
    bias_scale,
    dequantized_bias,
    dequantized_weight,
    fake_quantize_activation,
    straight_through_weight,
)
from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.quant_plan import ActivationQuant, QuantPlan
from kneepoint.spaces.tracing import copy_graph_module, split_inputs

ActivationNode = Callable[[fx.Graph, fx.Node, str, ActivationQuant], fx.Node]
"""Builds the node that quantizes and dequantizes a value: (graph, value, value name, format) -> node."""
LayerEdit = Callable[[fx.Graph, fx.Node, Operation], None]
"""Rewrites the weight and bias arguments of a layer's node."""


def insert_quantizers(
    graph: fx.Graph, network: Network, plan: QuantPlan, layer: LayerEdit, activation: ActivationNode
) -> None:
    """Put every quantizer of ``plan`` into ``graph``, in place.

    Args:
        graph: The folded graph; its node names are those of ``network``.
        network: Says which node computes which layer.
        plan: Says which values are quantized.
        layer: Called for every layer's node.
        activation: Called for every quantized value; all readers of the value then read the new node.
    """
    for node in list(graph.nodes):
        operation = network.operation_of.get(node.name)
        if operation is not None and operation.layer in network.layers:
            layer(graph, node, operation)
        if node.name in plan.activations:
            readers = list(node.users)
            with graph.inserting_after(node):
                quantized = activation(graph, node, node.name, plan.activations[node.name])
            for reader in readers:
                reader.replace_input_with(node, quantized)


def simulate(network: Network, folded: fx.GraphModule, plan: QuantPlan) -> fx.GraphModule:
    """The network as the runtime computes it, in float32 arithmetic on quantized values.

    Args:
        network: The structure ``folded`` was made from.
        folded: The float network, BatchNorm folded; left untouched.
        plan: With scales.
    """
    tensors: dict[str, Tensor] = {}
    state = tensors_of(folded)
    for layer, quant in plan.weights.items():
        name = network.layers[layer].weight
        tensors[name] = dequantized_weight(state[name], quant)

    def layer_edit(graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        bias = bias_of(node)
        scale = operation_bias_scale(operation, plan)
        if bias is not None and scale is not None:
            name = f"{operation.name}_bias"
            tensors[name] = dequantized_bias(state[bias], scale)
            set_bias(graph, node, name)

    def edit(graph: fx.Graph) -> None:
        insert_quantizers(graph, network, plan, layer_edit, _fake_quantize)

    return copy_graph_module(folded, edit, tensors)


def trainable_simulation(network: Network, folded: fx.GraphModule, plan: QuantPlan) -> fx.GraphModule:
    """The simulator with trainable float weights and biases, rounded on the way with straight-through gradients.

    Parameter names are those of ``folded``, so that trained values can be read back.
    """
    tensors: dict[str, Tensor] = {}
    state = tensors_of(folded)
    for node in folded.graph.nodes:
        if node.op == "get_attr" and state[str(node.target)].is_floating_point():
            tensors[str(node.target)] = nn.Parameter(state[str(node.target)].detach().clone())

    def layer_edit(graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        quant = plan.weights[operation.layer]
        if not quant.integer or quant.scale is None:
            return
        scale_name = f"{operation.name}_scale"
        tensors[scale_name] = quant.scale
        with graph.inserting_before(node):
            scale = graph.get_attr(scale_name)
            weight = graph.call_function(straight_through_weight, (node.args[1], scale, quant.limit))
        node.args = (node.args[0], weight, *node.args[2:])

    def edit(graph: fx.Graph) -> None:
        insert_quantizers(graph, network, plan, layer_edit, _fake_quantize)

    return copy_graph_module(folded, edit, tensors)


def activation_ranges(
    network: Network, folded: fx.GraphModule, plan: QuantPlan, inputs: Iterable[Any]
) -> dict[str, ActivationQuant]:
    """Scales of every quantized value: the smallest range that covers what calibration data produced.

    Args:
        network: The structure of ``folded``.
        folded: With the weights it will compute with (already rounded).
        plan: Says which values to watch.
        inputs: Batches of calibration inputs.
    """
    observer = _Observer(folded, frozenset(plan.activations))
    with torch.inference_mode():
        for batch in inputs:
            args, kwargs = split_inputs(batch)
            observer.run(*_flatten(folded, args, kwargs))
    return {name: activation_quant(*observer.ranges[name]) for name in plan.activations}


def tensors_of(module: fx.GraphModule) -> Mapping[str, Tensor]:
    """Parameters and buffers by name."""
    named = dict(module.named_parameters(remove_duplicate=False))
    return {**named, **dict(module.named_buffers(remove_duplicate=False))}


def bias_of(node: fx.Node) -> str | None:
    """The name of a layer node's bias, if it has one."""
    bias = node.args[2] if len(node.args) > 2 else None
    return str(bias.target) if isinstance(bias, fx.Node) and bias.op == "get_attr" else None


def set_bias(graph: fx.Graph, node: fx.Node, name: str) -> None:
    """Make a layer's node read the attribute ``name`` as its bias."""
    with graph.inserting_before(node):
        attribute = graph.get_attr(name)
    node.args = (*node.args[:2], attribute, *node.args[3:])


def operation_bias_scale(operation: Operation, plan: QuantPlan) -> Tensor | None:
    """Scale of the ``int32`` bias of one call of a layer; None where the layer computes in float."""
    quant = plan.weights[operation.layer]
    if quant.scale is None or operation.inputs[0] not in plan.activations:
        return None
    return bias_scale(quant.scale, plan.activations[operation.inputs[0]])


def _fake_quantize(graph: fx.Graph, node: fx.Node, name: str, quant: ActivationQuant) -> fx.Node:
    return graph.call_function(fake_quantize_activation, (node, quant.scale, quant.zero_point))


class _Observer(fx.Interpreter):
    """Runs the graph and remembers the extremes of the watched values."""

    def __init__(self, module: fx.GraphModule, watched: frozenset[str]) -> None:
        super().__init__(module)
        self.watched = watched
        self.ranges: dict[str, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.watched:
            low, high = torch.aminmax(value)
            before = self.ranges.get(n.name, (0.0, 0.0))
            self.ranges[n.name] = (min(before[0], float(low)), max(before[1], float(high)))
        return value


def _flatten(module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The graph's own flat inputs, in the order of its placeholders."""
    if not kwargs:
        return list(torch.utils._pytree.tree_leaves(args))
    order = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    return [kwargs[name] for name in order] if set(order) == set(kwargs) else list(torch.utils._pytree.tree_leaves(kwargs))


