"""The simulator: a folded network whose weights and activations pass through their quantization.

:func:`insert_quantizers` places the quantizers. The simulator and the exporter both use it, with different nodes, so
that what is measured is what is shipped.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
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
from kneepoint.spaces.tracing import argument_of, copy_graph_module, split_inputs
from kneepoint.spaces.tracing import tensors_of as tensors_of  # deployment reads a simulated network with it, too
from kneepoint.tasks.errors import JobFailed

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

    Parameter names are those of ``folded``, so that trained values can be read back. What is no parameter of the
    network (statistics, constants) is not trained, and neither are the scales.
    """
    constants = {name for name, value in network.tensors().items() if not isinstance(value, nn.Parameter)}
    tensors: dict[str, Tensor] = {
        name: nn.Parameter(value.detach().clone())
        for name, value in tensors_of(folded).items()
        if name not in constants and value.is_floating_point()
    }

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

    Raises:
        JobFailed: If a value is infinite or NaN on them.
    """
    observer = _Observer(folded, frozenset(plan.activations))
    with torch.inference_mode():
        for batch in inputs:
            observer.run(*_flat_inputs(folded, batch))
    for name, (low, high) in observer.ranges.items():
        if not math.isfinite(high - low):
            raise JobFailed(
                f"value {name!r} reaches [{low}, {high}] on the calibration data, and only a finite range can be "
                "quantized: keep the layers around it in 16 or 32 bits"
            )
    return {name: activation_quant(*observer.ranges[name]) for name in plan.activations}


def bias_of(node: fx.Node) -> str | None:
    """The name of a layer node's bias, if it has one."""
    bias = argument_of(node, 2, "bias", None)
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
            # torch's own minimum, because that of Python loses a NaN.
            self.ranges[n.name] = (float(low.clamp_max(before[0])), float(high.clamp_min(before[1])))
        return value


def _flat_inputs(module: fx.GraphModule, inputs: Any) -> list[Any]:
    """The tensors of ``inputs`` in the order of the graph's placeholders, which is that of its signature."""
    args, kwargs = split_inputs(inputs)
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    return list(torch.utils._pytree.tree_leaves(list(bound.arguments.values())))
