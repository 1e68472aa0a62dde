"""Cross-layer equalization: channels of consecutive layers rescaled to similar ranges, the function left as it is.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.1: where
nothing but positively homogeneous operators (f(s x) = s f(x) for s > 0) lies between two layers, the channel that one
writes may be divided by any s > 0 if the weights that read it are multiplied by s. The factors here are powers of two,
with which floats are multiplied without rounding: the network computes the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from kneepoint.compression.simulation import bias_of
from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.tracing import tensors_of

_HOMOGENEOUS = frozenset({"relu", "leakyrelu", "prelu"})
_POOLS = frozenset({"max_pool", "avg_pool", "global_avg_pool"})
_WRITERS = frozenset({"conv", "depthwise_conv", "grouped_conv", "linear"})
_READERS = frozenset({"conv", "depthwise_conv", "linear"})
_MOST_ROUNDS = 20
_LARGEST_EXPONENT = 10
"""Factors stay within 2^-10 and 2^10: a channel that is all but zero is not worth a larger one."""


@dataclass(frozen=True)
class Pair:
    """Two layers and the channels between them.

    Attributes:
        weight: Of the layer that writes the channels, along axis 0.
        bias: Its bias, if it has one.
        reader: The weight of the only layer that reads them.
        axis: Along which axis ``reader`` reads them.
    """

    weight: str
    bias: str | None
    reader: str
    axis: int


def equalize(network: Network, folded: fx.GraphModule) -> dict[str, Tensor]:
    """New weights and biases, by name, of the layers whose channels can be equalized; empty where there are none.

    Args:
        network: The structure of ``folded``.
        folded: The float network, or a cut one; left untouched.
    """
    pairs = list(equalizable(network, folded))
    touched = {name for pair in pairs for name in (pair.weight, pair.bias, pair.reader) if name}
    state = {name: value.detach().clone() for name, value in tensors_of(folded).items() if name in touched}
    for _ in range(_MOST_ROUNDS):  # a depthwise layer belongs to two pairs, which settle together
        changed = [_equalize(pair, state) for pair in pairs]
        if not any(changed):
            break
    return state


def equalizable(network: Network, folded: fx.GraphModule) -> Iterator[Pair]:
    """Every pair of layers that :func:`equalize` may rescale.

    Each layer is called once, its output is read by the other alone, and what lies between is positively homogeneous:
    ReLU, leaky ReLU, PReLU, pooling, flattening. Hardswish, SiLU, GELU and clipped activations are not.
    """
    node_of = {node.name: node for node in folded.graph.nodes}
    for operation in network.operations:
        if not _alone(network, operation, _WRITERS):
            continue
        reader = _next_layer(network, operation)
        if reader is not None and _alone(network, reader, _READERS) and _aligned(network, operation, reader):
            bias = bias_of(node_of[operation.name])
            if bias is None or len(_users(folded, bias)) == 1:
                yield Pair(operation.weight, bias, reader.weight, 0 if reader.kind == "depthwise_conv" else 1)


def _alone(network: Network, operation: Operation, kinds: frozenset[str]) -> bool:
    """Whether ``operation`` is the only call of a layer of one of ``kinds``."""
    layer = network.layers.get(operation.layer)
    return operation.kind in kinds and layer is not None and layer.operations == (operation.name,)


def _next_layer(network: Network, operation: Operation) -> Operation | None:
    """The layer that reads what ``operation`` writes, homogeneous operators skipped; None where anybody else does."""
    while True:
        readers = network.readers.get(operation.name, ())
        if len(readers) != 1 or operation.name in network.outputs or len(readers[0].inputs) != 1:
            return None
        operation = readers[0]
        if operation.weight:
            return operation
        homogeneous = operation.kind == "activation" and operation.function in _HOMOGENEOUS
        if not homogeneous and operation.kind not in _POOLS and operation.kind != "view":
            return None


def _aligned(network: Network, writer: Operation, reader: Operation) -> bool:
    """Whether the channels that ``writer`` writes are those that ``reader`` reads, repeated at most by a flattening."""
    source = network.operation_of[reader.inputs[0]]
    if writer.kind == "linear":
        return reader.kind == "linear" and source.shape == writer.shape
    channels = writer.shape[1]
    if reader.kind != "linear":
        return source.shape[:2] == writer.shape[:2]
    return len(source.shape) == 2 and source.shape[0] == writer.shape[0] and source.shape[1] % channels == 0


def _users(folded: fx.GraphModule, name: str) -> list[fx.Node]:
    return [user for node in folded.graph.nodes if node.op == "get_attr" and node.target == name for user in node.users]


def _equalize(pair: Pair, state: dict[str, Tensor]) -> bool:
    """Rescale one pair in place; whether anything changed."""
    weight, reader = state[pair.weight], state[pair.reader]
    channels = len(weight)
    repeat = reader.shape[pair.axis] // channels
    written = weight.flatten(1).abs().amax(dim=1)
    read = reader.movedim(pair.axis, 0).reshape(channels, -1).abs().amax(dim=1)
    exponents = (0.5 * torch.log2(written / read)).round().clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    exponents[(written == 0) | (read == 0)] = 0
    factors = torch.exp2(exponents)
    state[pair.weight] = weight / _along(factors, 0, weight)
    state[pair.reader] = reader * _along(factors.repeat_interleave(repeat), pair.axis, reader)
    if pair.bias is not None:
        state[pair.bias] = state[pair.bias] / factors
    return bool(exponents.any())


def _along(factors: Tensor, axis: int, like: Tensor) -> Tensor:
    return factors.view([-1 if dim == axis else 1 for dim in range(like.dim())])
