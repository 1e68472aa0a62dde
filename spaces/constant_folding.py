"""Which operators compute the same at every inference: exporters and runtimes compute them once."""

from __future__ import annotations

from kneepoint.spaces.network import Network, Operation

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
