"""Where an axis goes when a tensor is reshaped, sliced or permuted: arithmetic on shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import fx

from kneepoint.spaces.tracing import argument_of, operator_name, shape_of, source_of

UNUSUAL_BATCH = 7919
"""A prime that no other axis has, which tells the batch apart where shapes are compared."""


@dataclass(frozen=True)
class Reshape:
    """How the elements around one axis are grouped anew.

    Attributes:
        lead: Elements of the axes before it that it is merged with.
        trail: Elements of the axes behind it that it is merged with.
        targets: The axes of the result that share its elements, in order: one where it is only merged.
        sizes: Of ``targets``.
    """

    lead: int
    trail: int
    targets: tuple[int, ...]
    sizes: tuple[int, ...]


def reshape_of(node: fx.Node, axis: int) -> Reshape | None:
    """What a view, flatten, squeeze, ... does to an axis of its input; None where it is merged with the batch."""
    before, after = shape_of(source_of(node), UNUSUAL_BATCH), shape_of(node, UNUSUAL_BATCH)
    for old, new in _stretches(before, after):
        if axis not in old:
            continue
        place = old.index(axis)
        lead = math.prod(before[index] for index in old[:place])
        trail = math.prod(before[index] for index in old[place + 1 :])
        if lead % UNUSUAL_BATCH == 0 or trail % UNUSUAL_BATCH == 0:
            return None
        return Reshape(lead, trail, new, tuple(after[index] for index in new))
    return None


def _stretches(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shortest runs of axes, without those of one element, that hold the same elements before and after."""
    old = [index for index, size in enumerate(before) if size != 1]
    new = [index for index, size in enumerate(after) if size != 1]
    found, left, right = [], 0, 0
    while left < len(old) and right < len(new):
        first, second = left, right
        left, right = left + 1, right + 1
        while (a := math.prod(before[i] for i in old[first:left])) != (
            b := math.prod(after[i] for i in new[second:right])
        ):
            left, right = left + (a < b), right + (a > b)
        found.append((tuple(old[first:left]), tuple(new[second:right])))
    return found


def squeezed_axes(node: fx.Node) -> set[int]:
    """The axes that a squeeze removes where they have one element."""
    rank = len(shape_of(source_of(node)))
    dims = argument_of(node, 1, "dim", list(range(rank)))
    return {dim % rank for dim in (dims if isinstance(dims, list | tuple) else [dims])}


def permutation_of(node: fx.Node) -> list[int]:
    """For every axis of the output of a permute or transpose, the axis of the input."""
    rank = len(shape_of(node))
    if operator_name(node) == "permute":
        return [dim % rank for dim in argument_of(node, 1, "dims", ())]
    order = list(range(rank))
    if operator_name(node) in ("t", "numpy_T", "mT"):
        return [*order[:-2], *reversed(order[-2:])] if operator_name(node) != "numpy_T" else order[::-1]
    first, second = argument_of(node, 1, "dim0", 0) % rank, argument_of(node, 2, "dim1", 1) % rank
    order[first], order[second] = order[second], order[first]
    return order


def pieces_of(node: fx.Node, axis: int) -> list[int]:
    """Lengths along ``axis`` of what a chunk or split makes."""
    return [int(piece.shape[axis]) for piece in node.meta["val"]]


def bounds_of(node: fx.Node) -> tuple[int, int] | None:
    """Start and end of a slice, within the axis; None where it has steps, or they are computed."""
    size = shape_of(source_of(node), UNUSUAL_BATCH)[argument_of(node, 1, "dim", 0)]
    start, end = argument_of(node, 2, "start", None), argument_of(node, 3, "end", None)
    if isinstance(start, fx.Node) or isinstance(end, fx.Node) or argument_of(node, 4, "step", 1) != 1:
        return None
    if operator_name(node) == "narrow":  # its argument is the length
        end = start % size + end
    first, last, _ = slice(start, end).indices(size)
    return first, max(first, last)
