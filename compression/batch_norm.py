"""BatchNorm after pruning and before quantization: its statistics measured again, then folded into the weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from kneepoint.compression.watching import Visit, watch
from kneepoint.spaces.network import Network
from kneepoint.spaces.surgery import set_training
from kneepoint.spaces.tracing import (
    argument_of,
    as_node,
    copy_graph_module,
    operator_name,
    set_argument,
    source_of,
    tensors_of,
)
from kneepoint.tasks.batches import leaves

_MEAN, _VARIANCE, _MOMENTUM, _EPSILON = 3, 4, 6, 7  # positions among BatchNorm's arguments


def reestimate(
    module: fx.GraphModule, inputs: Iterable[Any], names: Collection[str] = (), visit: Visit | None = None
) -> dict[str, Tensor]:
    """BatchNorm statistics of ``module`` as it is now, averaged over batches and over the calls of each BatchNorm.

    Args:
        module: A graph with BatchNorm in it, whose weights (or width) changed since the statistics were taken.
        inputs: Batches of inputs; one of a single sample has no variance and is left out.
        names: Nodes to show ``visit`` on the way. Their values are normalized with the statistics of their batch: the
            new ones, where there is one batch.
        visit: As in :func:`kneepoint.compression.watching.watch`.

    Returns:
        New running means and (unbiased) variances, by buffer name; empty where there is no BatchNorm.
    """
    state = tensors_of(module)
    measured: dict[str, list[Tensor]] = {}
    watched: dict[str, Tensor] = {}

    def give_buffers(graph: fx.Graph, node: fx.Node, position: int) -> None:
        """Give the call buffers of its own, which hold its last batch alone."""
        buffer = str(as_node(node.args[position]).target)
        name = f"{node.name}_statistics_{position}"
        watched[name] = state[buffer].clone()
        measured.setdefault(buffer, []).append(watched[name])
        with graph.inserting_before(node):
            set_argument(node, position, graph.get_attr(name))

    def edit(graph: fx.Graph) -> None:
        for node in [node for node in graph.nodes if _has_statistics(node)]:
            give_buffers(graph, node, _MEAN)
            give_buffers(graph, node, _VARIANCE)
            set_argument(node, _MOMENTUM, 1.0)
            set_training(node, training=True)

    sums: dict[str, Tensor] = {}
    measuring = copy_graph_module(module, edit, watched, lazy=True)
    batches = [batch for batch in inputs if len(leaves(batch)[0]) > 1] if measured else []
    for batch in batches:
        with torch.no_grad():
            watch(measuring, [batch], names, visit or _look_away)
            for name, values in measured.items():
                sums[name] = sums.get(name, 0.0) + torch.stack(values).mean(dim=0)
    return {name: total / len(batches) for name, total in sums.items()}


def normalize_by_batch_(graph: fx.Graph) -> None:
    """Have the BatchNorms of ``graph`` normalize with the statistics of the batch they see, in place.

    On one batch it computes what the network with statistics re-estimated on it does, but for the variance, which is
    the biased one.
    """
    for node in graph.nodes:
        if _has_statistics(node):
            set_argument(node, _MEAN, None)
            set_argument(node, _VARIANCE, None)
            set_training(node, training=True)


def _look_away(*_: object) -> None:
    """Nobody asked to see a value."""


def fold(network: Network, module: fx.GraphModule, tensors: Mapping[str, Tensor] | None = None) -> fx.GraphModule:
    """The deployed network: BatchNorm folded into the layer before it, and operators without effect left out.

    Every layer's weight keeps its name and its bias is called ``LAYER.bias``; both are plain float tensors.

    Args:
        network: Whose ``folds`` and ``identities`` to apply; node names are those of its trace.
        module: A graph module with those node names, for example a cut one.
        tensors: Values to use instead of the module's own, by parameter or buffer name.
    """
    state = {name: value.detach() for name, value in {**tensors_of(module), **(tensors or {})}.items()}
    folded = dict(state)

    def edit(graph: fx.Graph) -> None:
        for node in list(graph.nodes):
            if node.name in network.identities:
                node.replace_all_uses_with(source_of(node))
                graph.erase_node(node)
            elif node.name in network.folds:
                _fold_node(graph, node, state, folded)

    return copy_graph_module(module, edit, folded, lazy=True)


def _fold_node(graph: fx.Graph, node: fx.Node, state: Mapping[str, Tensor], folded: dict[str, Tensor]) -> None:
    layer = source_of(node)
    gamma, beta, mean, variance = (_value(argument, state) for argument in node.args[1:5])
    bias = _value(argument_of(layer, 2, "bias", None), state)
    weight_name = str(as_node(layer.args[1]).target)
    weight = state[weight_name]
    gain = torch.rsqrt(_or(variance, 1.0) + argument_of(node, _EPSILON, "eps", 1e-5)) * _or(gamma, 1.0)
    bias_name = _bias_name(weight_name)
    output_axis = 1 if operator_name(layer).startswith("conv_transpose") else 0
    shape = [-1 if axis == output_axis else 1 for axis in range(weight.dim())]
    folded[weight_name] = weight * gain.view(shape)
    folded[bias_name] = (_or(bias, 0.0) - _or(mean, 0.0)) * gain + _or(beta, 0.0)
    with graph.inserting_before(layer):
        set_argument(layer, 2, graph.get_attr(bias_name))
    node.replace_all_uses_with(layer)
    graph.erase_node(node)


def _bias_name(weight: str) -> str:
    """``stem.0.bias`` for ``stem.0.weight``; a parameter without a layer gets a neighbour."""
    layer, dot, _ = weight.rpartition(".weight")
    return f"{layer}.bias" if dot else f"{weight}_bias"


def _has_statistics(node: fx.Node) -> bool:
    return operator_name(node) == "batch_norm" and isinstance(node.args[_MEAN], fx.Node)


def _value(argument: object, state: Mapping[str, Tensor]) -> Tensor | None:
    return state[str(argument.target)] if isinstance(argument, fx.Node) else None


def _or(value: Tensor | None, default: float) -> Tensor:
    return torch.tensor(default) if value is None else value
