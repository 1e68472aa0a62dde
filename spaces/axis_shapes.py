"""Where an axis goes when a tensor is reshaped, sliced or permuted: arithmetic on shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from kneepoint.spaces.tracing import DROPOUTS, argument_of, is_tensor, operator_name, shape_of, source_of

UNUSUAL_BATCH = 7919
"""A prime that no other axis has, which tells the batch apart where shapes are compared."""
RESHAPES = ("flatten", "view", "reshape", "unsqueeze", "squeeze", "unflatten")
PERMUTATIONS = ("transpose", "permute", "t", "mT", "numpy_T", "swapaxes", "movedim", "moveaxis")
_IDENTITIES = frozenset({"contiguous", "clone", "alias", "detach", "lift_fresh_copy"})


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
    for old, new in stretches(before, after):
        if axis not in old:
            continue
        place = old.index(axis)
        lead = math.prod(before[index] for index in old[:place])
        trail = math.prod(before[index] for index in old[place + 1 :])
        if lead % UNUSUAL_BATCH == 0 or trail % UNUSUAL_BATCH == 0:
            return None
        return Reshape(lead, trail, new, tuple(after[index] for index in new))
    return None


def stretches(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shortest runs of axes, those of one element left out, that hold the same elements before and after."""
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


def keeps_first_axis(node: fx.Node) -> bool:
    """Whether the first size of a value is known to be that of its first argument: the batch of one input."""
    before, after = source_of(node).meta["val"].shape, node.meta["val"].shape
    return bool(after) and str(after[:1]) == str(before[:1])


def is_identity(node: fx.Node) -> bool:
    """Whether an operator hands on its input as it is, at inference."""
    name = operator_name(node)
    if name in DROPOUTS:
        return not node.args[2]
    if name == "to":
        return is_tensor(node) and bool(node.meta["val"].dtype == source_of(node).meta["val"].dtype)
    if name == "slice":
        return shape_of(node, UNUSUAL_BATCH) == shape_of(source_of(node), UNUSUAL_BATCH)
    return name in _IDENTITIES


def stored_behind(node: fx.Node) -> fx.Node | None:
    """The stored tensor that a node is, or hands on in another shape; None for everything else."""
    while node.op == "call_function" and (operator_name(node) in (*RESHAPES, *PERMUTATIONS) or is_identity(node)):
        node = source_of(node)
    return node if node.op == "get_attr" else None


def axis_before(node: fx.Node, axis: int) -> int | None:
    """Where an axis of a node lies in its first argument; None where it is made of several, or of a part of one."""
    if is_identity(node):
        return axis
    if operator_name(node) in PERMUTATIONS:
        return permutation_of(node)[axis]
    before, after = shape_of(source_of(node), UNUSUAL_BATCH), shape_of(node, UNUSUAL_BATCH)
    return next((old[0] for old, new in stretches(before, after) if new == (axis,) and len(old) == 1), None)


def squeezed_axes(node: fx.Node) -> set[int]:
    """The axes that a squeeze removes where they have one element."""
    rank = len(shape_of(source_of(node)))
    dims = argument_of(node, 1, "dim", list(range(rank)))
    return {dim % rank for dim in (dims if isinstance(dims, list | tuple) else [dims])}


def permutation_of(node: fx.Node) -> list[int]:
    """For every axis of the output of a permute, transpose or movedim, the axis of the input."""
    operator: Any = node.target
    numbered = torch.empty(tuple(range(len(shape_of(node)))), device="meta")  # the size of every axis is its number
    return list(operator(numbered, *node.args[1:], **node.kwargs).shape)


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
