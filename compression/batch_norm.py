"""BatchNorm after pruning and before quantization: its statistics measured again, then folded into the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from kneepoint.spaces.channel_flow import layer_name
from kneepoint.spaces.network import Network
from kneepoint.spaces.surgery import set_training
from kneepoint.spaces.tracing import copy_graph_module, operator_name, split_inputs


def reestimate(module: fx.GraphModule, inputs: Iterable[Any]) -> dict[str, Tensor]:
    """BatchNorm statistics of ``module`` as it is now, averaged over batches.

    Args:
        module: A graph with BatchNorm in it, whose weights (or width) changed since the statistics were taken.
        inputs: Batches of inputs.

    Returns:
        New running means and (unbiased) variances, by buffer name; empty where there is no BatchNorm.
    """

    def measure(graph: fx.Graph) -> None:
        for node in graph.nodes:
            if operator_name(node) == "batch_norm":
                set_training(node, training=True)
                node.args = (*node.args[:6], 1.0, *node.args[7:])  # momentum 1: the buffers hold this batch alone

    names = _statistics(module)
    buffers = dict(module.named_buffers(remove_duplicate=False))
    copies = {name: buffers[name].clone() for name in names}
    measuring = copy_graph_module(module, measure, copies)
    sums = {name: torch.zeros_like(value) for name, value in copies.items()}
    count = 0
    with torch.inference_mode():
        for batch in inputs:
            args, kwargs = split_inputs(batch)
            measuring(*args, **kwargs)
            count += 1
            for name, total in sums.items():
                total += copies[name]
    return {name: total / count for name, total in sums.items()} if count else {}


def fold(network: Network, module: fx.GraphModule, tensors: Mapping[str, Tensor] | None = None) -> fx.GraphModule:
    """The deployed network: BatchNorm folded into the layer before it, and operators without effect left out.

    Every layer's weight keeps its name and its bias is called ``LAYER.bias``; both are plain float tensors.

    Args:
        network: Whose ``folds`` and ``identities`` to apply; node names are those of its trace.
        module: A graph module with those node names, for example a cut one.
        tensors: Values to use instead of the module's own, by parameter or buffer name.
    """
    state = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
        **(tensors or {}),
    }
    folded: dict[str, Tensor] = {name: value.detach() for name, value in state.items()}

    def edit(graph: fx.Graph) -> None:
        for node in list(graph.nodes):
            if node.name in network.identities:
                node.replace_all_uses_with(_source(node))
                graph.erase_node(node)
            elif node.name in network.folds:
                _fold_node(graph, node, state, folded)

    return copy_graph_module(module, edit, folded)


def _fold_node(graph: fx.Graph, node: fx.Node, state: Mapping[str, Tensor], folded: dict[str, Tensor]) -> None:
    layer = _source(node)
    gamma, beta, mean, variance = (_value(argument, state) for argument in node.args[1:5])
    epsilon: Any = node.args[7]
    weight_name = _target(layer.args[1])
    weight = state[weight_name].detach()
    assert mean is not None  # noqa: S101 - a network in eval mode has running statistics
    assert variance is not None  # noqa: S101
    gain = torch.rsqrt(variance + epsilon) * (1.0 if gamma is None else gamma)
    bias = _value(layer.args[2], state) if len(layer.args) > 2 else None
    shift = (0.0 if bias is None else bias) - mean
    bias_name = f"{layer_name(weight_name)}.bias"
    folded[weight_name] = weight * gain.view(-1, *[1] * (weight.dim() - 1))
    folded[bias_name] = shift * gain + (0.0 if beta is None else beta)
    with graph.inserting_before(layer):
        attribute = graph.get_attr(bias_name)
    layer.args = (layer.args[0], layer.args[1], attribute, *layer.args[3:])
    node.replace_all_uses_with(layer)
    graph.erase_node(node)


def _statistics(module: fx.GraphModule) -> list[str]:
    return [
        _target(argument)
        for node in module.graph.nodes
        if operator_name(node) == "batch_norm"
        for argument in node.args[3:5]
        if isinstance(argument, fx.Node)
    ]


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101 - the schema of every operator asked about
    return source


def _target(argument: object) -> str:
    assert isinstance(argument, fx.Node)  # noqa: S101 - parameters enter the graph as nodes
    return str(argument.target)


def _value(argument: object, state: Mapping[str, Tensor]) -> Tensor | None:
    return state[str(argument.target)].detach() if isinstance(argument, fx.Node) else None
