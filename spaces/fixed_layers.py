"""Why some layers keep their weights in float: the counterpart of ``Network.layers``."""

from __future__ import annotations

from kneepoint.spaces.flow_state import layer_name, module_path
from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.tracing import operator_name

_COMPUTES = ("conv", "linear")  # how the names of operators begin that a layer is made of


def fixed_layers(network: Network) -> dict[str, str]:
    """The layers whose bit-width cannot vary, and why, in execution order.

    Besides layers and embeddings these are weights of two or more dimensions that another operator reads (an LSTM, a
    position embedding that is added), and calls of a layer's operator with a weight that is computed.
    """
    nodes = {node.name: node for node in network.graph_module.graph.nodes}
    of_layers = {operation.weight for operation in network.operations}
    others = {name for name, value in network.graph_module.named_parameters() if value.dim() > 1} - of_layers
    found: dict[str, str] = {}
    for operation in network.operations:
        node = nodes[operation.name]
        if network.varies(operation):
            continue
        if operation.weight:
            found.setdefault(operation.layer, _why_layer(network, operation))
        elif operator_name(node).startswith(_COMPUTES):
            found.setdefault(module_path(node) or node.name, "its weight is computed, so nothing is stored")
        else:
            for name in sorted(others.intersection(network.constants_of(operation))):
                found.setdefault(layer_name(name), f"operator {_called(operation)} runs in float")
    return found


def _why_layer(network: Network, operation: Operation) -> str:
    readers = [other for other in network.operations if operation.weight in network.constants_of(other)]
    kinds = sorted({other.kind for other in readers if other.weight == operation.weight})
    if len(kinds) > 1:
        return f"its weight is stored once, for operators of several kinds ({', '.join(kinds)})"
    others = [_called(other) for other in readers if other.weight != operation.weight]
    if operation.kind == "conv_transpose" and not others:
        return "the groups of a transposed convolution lie along two axes of its weight"
    return f"{f'operator {others[0]}' if others else 'the network itself'} reads its weight, too, as floats"


def _called(operation: Operation) -> str:
    return operation.function or operation.kind
