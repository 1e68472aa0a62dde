"""Scaled dot-product attention as rows of the operator table: what ONNX writes in its place."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, MutableMapping
from dataclasses import dataclass

from kneepoint.hardware_models.operators import Operator, Tensor
from kneepoint.spaces.network import Network, Operation

ATTENTION = "scaled_dot_product_attention"
_SCALE = "scale"
_MASK, _CAUSAL = 3, 5
"""Positions of arguments of torch.nn.functional.scaled_dot_product_attention."""


def attention_operators(
    network: Network, operation: Operation, tensors: MutableMapping[str, Tensor], folded: Collection[str]
) -> Iterator[Operator]:
    """softmax(q s (k s)^T + mask) v, where s is the fourth root of the usual factor 1 / depth, as torch.onnx writes it.

    Vaswani et al., "Attention is all you need", NeurIPS 2017, equation 1.

    Args:
        network: Knows how the operator was called.
        operation: Reads query, key and value, and a mask where that is no constant.
        tensors: The activations between these operators are added.
        folded: Operations that are constants.
    """
    query, key, value, *mask = operation.inputs
    *batch, rows, depth = tensors[query].shape
    columns = tensors[key].shape[-2]
    parts = _Parts(operation.name, tensors)
    scores, turned = (*batch, rows, columns), (*batch, depth, columns)
    yield parts.operator("flat key", "view", (key,), (math.prod(batch), columns, depth))
    yield parts.operator("turned key", "transpose", (parts.last,), (math.prod(batch), depth, columns))
    yield parts.operator("key", "view", (parts.last,), turned)
    unscaled = parts.last
    yield parts.operator("scaled query", "mul", (query,), tensors[query].shape, function=_SCALE)
    scaled = parts.last
    yield parts.operator("scaled key", "mul", (unscaled,), turned, function=_SCALE)
    given = network.argument(operation, _MASK, "attn_mask", None)
    chosen = given is not None and not given.meta["val"].is_floating_point()  # true where a position may be seen
    terms = tuple(name for name in mask if name not in folded)
    scaled_key = parts.last
    if terms and chosen:
        yield parts.operator("mask", "select", terms, tensors[terms[0]].shape, function="Where")
        terms = (parts.last,)
    yield parts.operator("scores", "matmul", (scaled, scaled_key), scores, tensors[query].elements * columns)
    if given is not None or network.argument(operation, _CAUSAL, "is_causal", False):
        yield parts.operator("masked", "add", (parts.last, *terms), scores)
    yield parts.operator("weights", "softmax", (parts.last,), scores)
    if chosen:  # a row that sees nothing has no weights
        weights = parts.last
        yield parts.operator("missing", "select", (weights,), scores, function="IsNaN")
        yield parts.operator("some weights", "select", (parts.last, weights), scores, function="Where")
    macs = tensors[operation.name].elements * columns
    yield Operator(operation.name, "matmul", (parts.last, value), operation.name, macs)


@dataclass
class _Parts:
    """Writes the operators within one attention, and declares what they write.

    Attributes:
        name: Of the attention.
        tensors: Are added to.
        last: What was written last.
    """

    name: str
    tensors: MutableMapping[str, Tensor]
    last: str = ""

    def operator(
        self, part: str, kind: str, inputs: tuple[str, ...], shape: tuple[int, ...], macs: int = 0, function: str = ""
    ) -> Operator:
        self.last = f"{self.name}: {part}"
        self.tensors[self.last] = Tensor(self.last, shape)
        return Operator(self.last, kind, inputs, self.last, macs, function=function)
