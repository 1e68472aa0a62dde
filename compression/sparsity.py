"""Weights with zeros in a pattern that a runtime may skip; the shape stays.

``2:4`` leaves two of every four consecutive input features of an output channel (Mishra et al., "Accelerating sparse
deep neural networks", 2021): what sparse tensor cores run. ``50%``, ``75%`` and ``90%`` name the share of a layer's
weights that is zero, the smallest, wherever they are (Han et al., NeurIPS 2015). Zero is exact in every symmetric
integer format of two bits or more, so the pattern survives quantization; one-bit weights have no zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from kneepoint.spaces.policy import SPARSITIES
from kneepoint.tasks.errors import SpaceError, nearest

_BLOCK, _LEFT = 4, 2
"""2:4 leaves so many of every block."""


def sparsity_mask(weight: Tensor, sparsity: str, importance: Tensor | None = None, axis: int = 1) -> Tensor:
    """Which elements stay, as booleans of the weight's shape.

    A share p of n elements leaves exactly n - round(p * n). Under ``2:4`` the last inputs, where their number is no
    multiple of four, all stay, and so does all of a depthwise convolution. Of equals the first stay.

    Args:
        weight: Of a layer.
        sparsity: One of :data:`kneepoint.spaces.policy.SPARSITIES`.
        importance: Of every element, in the weight's shape; by default its magnitude.
        axis: Of the weight's input features: 0 for transposed convolutions.

    Raises:
        SpaceError: If the sparsity is unknown.
    """
    if sparsity not in SPARSITIES:
        raise SpaceError(f"unknown sparsity {sparsity!r}; {nearest(str(sparsity), SPARSITIES)}")
    scores = weight.detach().abs() if importance is None else importance
    if sparsity == "dense":
        return torch.ones_like(weight, dtype=torch.bool)
    return _two_of_four(scores, axis) if sparsity == "2:4" else _largest(scores, int(sparsity[:-1]) / 100)


def read_through_mask(graph: fx.Graph, node: fx.Node, position: int, mask: str) -> fx.Node:
    """Make a layer's node read its weight times a mask, in place.

    A masked element then has no gradient, so that an optimizer whose weight decay is decoupled leaves its zero alone.

    Args:
        graph: Of a network that is going to be trained.
        node: The layer's.
        position: Where among its arguments the node reads its weight.
        mask: The attribute that holds :func:`sparsity_mask` of the weight, in the weight's type.

    Returns:
        The product, which the node now reads.
    """
    with graph.inserting_before(node):
        masked = graph.call_function(torch.mul, (node.args[position], graph.get_attr(mask)))
    node.args = (*node.args[:position], masked, *node.args[position + 1 :])
    return masked


def _largest(scores: Tensor, share: float) -> Tensor:
    """All but the ``share`` of smallest elements."""
    left = scores.numel() - math.floor(share * scores.numel() + 0.5)
    order = torch.argsort(scores.flatten(), descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[:left]] = True
    return mask.view(scores.shape)


def _two_of_four(scores: Tensor, axis: int) -> Tensor:
    """The two largest of each four consecutive elements along ``axis``."""
    rows = scores.movedim(axis, -1)
    whole = rows.shape[-1] // _BLOCK * _BLOCK
    mask = torch.ones(rows.shape, dtype=torch.bool)
    if whole:
        blocks = rows[..., :whole].unflatten(-1, (-1, _BLOCK))
        order = torch.argsort(blocks, dim=-1, descending=True, stable=True)
        left = torch.zeros(blocks.shape, dtype=torch.bool).scatter_(-1, order[..., :_LEFT], value=True)
        mask[..., :whole] = left.flatten(-2)
    return mask.movedim(-1, axis)
