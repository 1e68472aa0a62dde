"""The simulator: a folded network whose weights and activations pass through their quantization.

:func:`insert_quantizers` places the quantizers. The simulator and the exporter both use it, with different nodes, so
that what is measured is what is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, fx, nn

from kneepoint.compression.quantizers import (
    bias_scale,
    dequantized_bias,
    dequantized_weight,
    expanded_scale,
    fake_quantize_activation,
    fake_quantize_blocks,
    fake_quantize_dynamic,
    straight_through_weight,
)
from kneepoint.compression.sparsity import read_through_mask, sparsity_mask
from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.quant_plan import ActivationQuant, QuantPlan
from kneepoint.spaces.tracing import argument_of, copy_graph_module, set_argument
from kneepoint.spaces.tracing import tensors_of as tensors_of  # deployment reads a simulated network with it, too

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
        layer: Called for every node that computes a layer whose bits may vary.
        activation: Called for every quantized value; all readers of the value then read the new node.
    """
    for node in list(graph.nodes):
        operation = network.operation_of.get(node.name)
        if operation is not None and network.varies(operation):
            layer(graph, node, operation)
        if node.name in plan.activations:
            readers = list(node.users)
            with graph.inserting_after(node):
                quantized = activation(graph, node, node.name, plan.activations[node.name])
            for reader in readers:
                reader.replace_input_with(node, quantized)


def simulate(
    network: Network, folded: fx.GraphModule, plan: QuantPlan, tensors: Mapping[str, Tensor] | None = None
) -> fx.GraphModule:
    """The network as the runtime computes it, in float32 arithmetic on quantized values.

    Args:
        network: The structure ``folded`` was made from.
        folded: The float network, BatchNorm folded; left untouched.
        plan: With scales.
        tensors: Values to use instead of those of ``folded``, by name; those of layers may be rounded already.
    """
    values = {**tensors_of(folded), **(tensors or {})}
    for layer, quant in plan.weights.items():
        name = network.layers[layer].weight
        values[name] = dequantized_weight(values[name], quant)

    def layer_edit(graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        _quantize_dynamically(graph, node, operation, plan)
        bias = bias_of(node)
        scale = operation_bias_scale(operation, plan)
        if bias is not None and scale is not None:
            name = f"{operation.name}_bias"
            values[name] = dequantized_bias(values[bias], scale)
            set_bias(graph, node, name)

    def edit(graph: fx.Graph) -> None:
        insert_quantizers(graph, network, plan, layer_edit, _fake_quantize)

    return copy_graph_module(folded, edit, values)


def trainable_simulation(network: Network, folded: fx.GraphModule, plan: QuantPlan) -> fx.GraphModule:
    """The simulator with trainable float weights and biases, rounded on the way with straight-through gradients.

    Parameter names are those of ``folded``, so that trained values can be read back. What is no parameter of the
    network (statistics, constants) is not trained, and neither are the scales.
    """
    constants = {name for name, value in network.tensors().items() if not isinstance(value, nn.Parameter)}
    state = tensors_of(folded)
    tensors: dict[str, Tensor] = {
        name: nn.Parameter(value.detach().clone())
        for name, value in state.items()
        if name not in constants and value.is_floating_point()
    }

    def layer_edit(graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        _quantize_dynamically(graph, node, operation, plan)
        quant = plan.weights[operation.layer]
        position = weight_position(operation)
        if quant.sparsity != "dense":
            mask = sparsity_mask(state[operation.weight], quant.sparsity, axis=1 - quant.axis)
            tensors[f"{operation.name}_mask"] = mask.to(state[operation.weight])
            read_through_mask(graph, node, position, f"{operation.name}_mask")
        if not quant.integer:
            return
        scale_name = f"{operation.name}_scale"
        tensors[scale_name] = expanded_scale(state[operation.weight], quant)
        with graph.inserting_before(node):
            scale = graph.get_attr(scale_name)
            arguments = (node.args[position], scale, quant.bits, quant.group_size)
            weight = graph.call_function(straight_through_weight, arguments)
        set_argument(node, position, weight)

    def edit(graph: fx.Graph) -> None:
        insert_quantizers(graph, network, plan, layer_edit, _fake_quantize)

    return copy_graph_module(folded, edit, tensors)


def bias_of(node: fx.Node) -> str | None:
    """The name of a layer node's bias, if it has one."""
    bias = argument_of(node, 2, "bias", None)
    return str(bias.target) if isinstance(bias, fx.Node) and bias.op == "get_attr" else None


def set_bias(graph: fx.Graph, node: fx.Node, name: str) -> None:
    """Make a layer's node read the attribute ``name`` as its bias."""
    with graph.inserting_before(node):
        attribute = graph.get_attr(name)
    set_argument(node, 2, attribute)


def weight_position(operation: Operation) -> int:
    """Where among its arguments a layer reads its weight."""
    return 0 if operation.kind == "embedding" else 1


def operation_bias_scale(operation: Operation, plan: QuantPlan) -> Tensor | None:
    """Scale of the ``int32`` bias of one call of a layer; None where the layer computes in float."""
    scale = plan.weights[operation.layer].scale if plan.runs_on_integers(operation) else None
    return None if scale is None else bias_scale(scale, plan.activations[operation.inputs[0]])


def _quantize_dynamically(graph: fx.Graph, node: fx.Node, operation: Operation, plan: QuantPlan) -> None:
    if operation.kind != "linear":  # a table that is looked up has no input to round
        return
    with graph.inserting_before(node):
        if operation.layer in plan.dynamic:
            set_argument(node, 0, graph.call_function(fake_quantize_dynamic, (node.args[0],)))
        elif operation.layer in plan.blockwise:
            size = plan.weights[operation.layer].group_size
            set_argument(node, 0, graph.call_function(fake_quantize_blocks, (node.args[0], size)))


def _fake_quantize(graph: fx.Graph, node: fx.Node, name: str, quant: ActivationQuant) -> fx.Node:
    return graph.call_function(fake_quantize_activation, (node, quant.scale, quant.zero_point, quant.limit))
