"""Scaled dot-product attention as rows of the operator table: what is exported in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, MutableMapping
from dataclasses import dataclass

import torch
from torch import fx

from kneepoint.hardware_models.operators import Operator, Tensor
from kneepoint.spaces.axis_shapes import is_identity
from kneepoint.spaces.constant_folding import constant_value
from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.tracing import operator_name, source_of

_SCALE = "scale"
_AND = ("__and__", "bitwise_and", "logical_and")
_MASK, _CAUSAL, _GROUPED = 3, 5, 7
"""Positions of arguments of torch.nn.functional.scaled_dot_product_attention."""


def attention_operators(
    network: Network, operation: Operation, tensors: MutableMapping[str, Tensor], folded: Collection[str]
) -> Iterator[Operator]:
    """softmax(query key^T / sqrt(depth) + mask) value, as this package writes it (``kneepoint.deployment.attention``).

    Vaswani et al., "Attention is all you need", NeurIPS 2017, equation 1.

    Args:
        network: Knows how the operator was called.
        operation: Reads query, key and value, and a mask where that is no constant.
        tensors: The activations between these operators are added.
        folded: Operations that are constants.
    """
    query, key, value, *_ = operation.inputs
    parts = _Parts(operation.name, tensors)
    if network.argument(operation, _GROUPED, "enable_gqa", False) and _heads(tensors[query]) != _heads(tensors[key]):
        query, key, value = yield from parts.grouped(query, key, value)
    *batch, rows, depth = tensors[query].shape
    columns = tensors[key].shape[-2]
    scaled = yield from parts.operator("scaled query", "mul", (query,), (*batch, rows, depth), _SCALE, operand=())
    swapped = (*range(len(batch)), len(batch) + 1, len(batch))
    turned = (*tensors[key].shape[:-2], depth, columns)
    turned_key = yield from parts.operator("turned key", "transpose", (key,), turned, axes=swapped)
    shape, macs = (*batch, rows, columns), tensors[query].elements * columns
    scores = yield from parts.operator("scores", "matmul", (scaled, turned_key), shape, macs=macs)
    mask = _mask(network, operation, tensors, folded)
    masked = scores
    if mask.summand is not None:
        masked = yield from parts.operator("masked", "add", (scores,), shape, operand=mask.summand)
    elif mask.name and mask.chooses:
        chosen = yield from parts.shared(mask.name, "chosen", "select", tensors[mask.name].shape, "Where")
        masked = yield from parts.operator("masked", "add", (scores, chosen), shape)
    elif mask.name:
        masked = yield from parts.operator("masked", "add", (scores, mask.name), shape)
    weights = yield from parts.operator("weights", "softmax", (masked,), shape, axes=(len(shape) - 1,))
    yield from parts.result(operation, weights, value, mask)


@dataclass(frozen=True)
class _Mask:
    """What is done about a mask.

    Attributes:
        name: Of the activation that it is; empty for a constant, or none.
        summand: The shape of the constant that is added; None where nothing is.
        chooses: Whether it is made of truth values.
        blind: Whether a row may see nothing, so that its result is set to 0.
    """

    name: str = ""
    summand: tuple[int, ...] | None = None
    chooses: bool = False
    blind: bool = False


def _mask(network: Network, operation: Operation, tensors: Mapping[str, Tensor], folded: Collection[str]) -> _Mask:
    node = essential_mask(
        network.argument(operation, _MASK, "attn_mask", None),
        lambda constant: constant.name in folded and bool(constant_value(network, constant).all()),
    )
    if network.argument(operation, _CAUSAL, "is_causal", False):
        sizes = (operation.shape[-2], network.operation_of[operation.inputs[1]].shape[-2])
        return _Mask(summand=sizes)
    if node is None:
        return _Mask()
    chooses = not node.meta["val"].is_floating_point()
    if node.op == "call_function" and node.name not in folded:
        return _Mask(node.name, None, chooses, chooses)
    value = constant_value(network, node)
    if bool(value.all()) if chooses else not bool(value.any()):
        return _Mask()
    shape = tensors[node.name].shape if node.name in tensors else tuple(value.shape)  # of the heads that are left
    return _Mask("", shape, chooses, chooses and not bool(value.any(-1).all()))


def essential_mask(node: fx.Node | None, is_true: Callable[[fx.Node], bool]) -> fx.Node | None:
    """A mask without repetition, which broadcasting does as well, and without "and true".

    Args:
        node: The mask, as it is given to an attention.
        is_true: Whether a node is a constant that is true everywhere.
    """
    while node is not None:
        if operator_name(node) == "expand" or is_identity(node):
            node = source_of(node)
        elif (other := _beside_truth(node, is_true)) is not None:
            node = other
        else:
            break
    return node


def _beside_truth(node: fx.Node, is_true: Callable[[fx.Node], bool]) -> fx.Node | None:
    sides = node.all_input_nodes
    if operator_name(node) not in _AND or len(sides) != len(node.args) or node.meta["val"].dtype != torch.bool:
        return None
    return next((other for constant, other in zip(sides, sides[::-1], strict=True) if is_true(constant)), None)


def _heads(tensor: Tensor) -> int:
    return tensor.shape[-3] if len(tensor.shape) > 2 else 1


@dataclass
class _Parts:
    """Writes the operators within one attention, and declares what they write.

    Attributes:
        name: Of the attention.
        tensors: Are added to.
    """

    name: str
    tensors: MutableMapping[str, Tensor]

    def operator(
        self,
        part: str,
        kind: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        function: str = "",
        *,
        macs: int = 0,
        axes: tuple[int, ...] = (),
        operand: tuple[int, ...] | None = None,
    ) -> Generator[Operator, None, str]:
        """Yields one operator; returns the name of what it writes."""
        name = f"{self.name}: {part}"
        self.tensors[name] = Tensor(name, shape)
        yield Operator(name, kind, inputs, name, macs, function=function, axes=axes, operand=operand)
        return name

    def shared(
        self, source: str, part: str, kind: str, shape: tuple[int, ...], function: str, axes: tuple[int, ...] = ()
    ) -> Generator[Operator, None, str]:
        """An operator on a mask, which every attention with this mask reads: yielded for the first of them."""
        name = f"{source}: {part}"
        if name not in self.tensors:
            self.tensors[name] = Tensor(name, shape)
            yield Operator(name, kind, (source,), name, function=function, axes=axes)
        return name

    def grouped(self, query: str, key: str, value: str) -> Generator[Operator, None, tuple[str, str, str]]:
        """Heads of the query that share a key become an axis of their own."""
        (*batch, heads, rows, depth), shared = self.tensors[query].shape, _heads(self.tensors[key])
        wide = (*batch, shared, heads // shared, rows, depth)
        split = yield from self.operator("grouped query", "view", (query,), wide)
        turned = []
        for part, name in (("grouped key", key), ("grouped value", value)):
            shape = self.tensors[name].shape
            turned.append((yield from self.operator(part, "view", (name,), (*shape[:-2], 1, *shape[-2:]), "unsqueeze")))
        return split, turned[0], turned[1]

    def result(self, operation: Operation, weights: str, value: str, mask: _Mask) -> Iterator[Operator]:
        """The weighted values; nothing for rows that see nothing."""
        shape = (*self.tensors[weights].shape[:-1], self.tensors[value].shape[-1])
        macs = self.tensors[weights].elements * shape[-1]
        whole = shape == self.tensors[operation.name].shape
        if whole and not mask.blind:
            yield Operator(operation.name, "matmul", (weights, value), operation.name, macs)
            return
        seen = yield from self.operator("values", "matmul", (weights, value), shape, macs=macs)
        if mask.blind and mask.name:
            sizes = self.tensors[mask.name].shape
            number = yield from self.shared(mask.name, "as numbers", "select", sizes, "Cast")
            last, seen_at_all = (len(sizes) - 1,), (*sizes[:-1], 1)
            rows = yield from self.shared(number, "rows that see", "reduce", seen_at_all, "ReduceMax", axes=last)
            inputs: tuple[str, ...] = (seen, rows)
            operand = None
        else:
            inputs, operand = (seen,), (*(mask.summand or ())[:-1], 1)
        if mask.blind and whole:
            yield Operator(operation.name, "mul", inputs, operation.name, operand=operand)
            return
        if mask.blind:
            seen = yield from self.operator("seen", "mul", inputs, shape, operand=operand)
        yield Operator(operation.name, "view", (seen,), operation.name)
