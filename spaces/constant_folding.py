"""Which operators compute the same at every inference: exporters and runtimes compute them once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx

from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.tracing import is_number

_RANDOM = ("rand", "normal", "bernoulli")


def folded_operations(network: Network) -> tuple[str, ...]:
    """Operations that depend on no input of the network: positions, masks, rows of tables at fixed places."""
    folded: dict[str, None] = {}
    for operation in network.operations:
        if all(name in folded for name in operation.inputs) and _may_fold(network, operation):
            folded[operation.name] = None
    return tuple(folded)


def _may_fold(network: Network, operation: Operation) -> bool:
    random = operation.function.startswith(_RANDOM)
    plain = operation.kind == "embedding" or not operation.weight
    return plain and not random and operation.name not in network.outputs


def constant_value(network: Network, node: fx.Node) -> Tensor:
    """The value of a node that depends on no input, for a batch of one."""
    values: dict[fx.Node, Any] = {}
    stored = network.tensors()

    def value_of(entry: fx.Node) -> Any:
        if entry not in values:
            values[entry] = _evaluated(entry, stored, value_of)
        return values[entry]

    found: Tensor = value_of(node)
    return found


def _evaluated(node: fx.Node, stored: Mapping[str, Tensor], value_of: Callable[[fx.Node], Any]) -> Any:
    if node.op == "get_attr":
        return stored[str(node.target)]
    if is_number(node):
        return 1  # the size of the batch
    args, kwargs = fx.map_arg((node.args, node.kwargs), value_of)
    target: Any = node.target
    return target(*args, **kwargs)
