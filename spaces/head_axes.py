"""Where attention's heads come from: the axis that each reshape must carry on, so that whole heads may go.

A projection writes heads times depth features; a reshape tells them apart, (n, t, h d) -> (n, t, h, d). Either axis
could vary: whole heads, or the same features within each of them. Attention works on every head alone, and across a
head's features, so that it is the heads that may vary. Which of the axes that is shows only where attention reads them.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from kneepoint.spaces.axis_shapes import (
    PERMUTATIONS,
    RESHAPES,
    UNUSUAL_BATCH,
    is_identity,
    permutation_of,
    stretches,
)
from kneepoint.spaces.einsum import Einsum
from kneepoint.spaces.tracing import argument_of, is_tensor, operator_name, shape_of, source_of

ATTENTION = "scaled_dot_product_attention"
_LEAST_RANK = 3
"""Axes of a product of matrices that has one for the heads, next to the last two."""
_PRODUCTS = ("matmul", "bmm", ATTENTION)
_LAYERS = frozenset({"linear", "embedding", "conv1d", "conv2d", "conv3d", "sym_size"})


def head_axes(graph: fx.Graph) -> dict[fx.Node, int]:
    """For every reshape that tells heads apart from what lies beside them: the axis of its result that counts heads."""
    found: dict[fx.Node, int] = {}
    seen: set[tuple[fx.Node, int]] = set()
    pending = [start for node in graph.nodes for start in _starts(node)]
    while pending:
        node, axis = pending.pop()
        if (node, axis) in seen or shape_of(node)[axis] == 1:
            continue
        seen.add((node, axis))
        if operator_name(node) in RESHAPES and not is_identity(node):
            old, new = _stretch(node, axis)
            if len(new) > 1:
                found.setdefault(node, axis)
            elif old:
                pending.append((source_of(node), old[0]))
        else:
            pending.extend(_before(node, axis))
    return found


def _starts(node: fx.Node) -> Iterator[tuple[fx.Node, int]]:
    """What a product of activations reads, and where the axis before its matrices lies."""
    name = operator_name(node)
    if name in _PRODUCTS:
        for source in node.args[: 3 if name == ATTENTION else 2]:
            if isinstance(source, fx.Node) and len(shape_of(source)) >= _LEAST_RANK and _is_apart(source):
                yield source, len(shape_of(source)) - _LEAST_RANK
    elif name == "einsum" and (product := Einsum.of(node)) is not None:
        yield from product.shared_axes()


def _is_apart(node: fx.Node) -> bool:
    """Whether the axis before the last two is not the batch."""
    return shape_of(node, UNUSUAL_BATCH)[-_LEAST_RANK] % UNUSUAL_BATCH != 0


def _stretch(node: fx.Node, axis: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of a reshape's input and result that share the elements of one axis of the result."""
    before, after = shape_of(source_of(node), UNUSUAL_BATCH), shape_of(node, UNUSUAL_BATCH)
    return next((pair for pair in stretches(before, after) if axis in pair[1]), ((), ()))


def _before(node: fx.Node, axis: int) -> Iterator[tuple[fx.Node, int]]:
    """Where an axis of a result lies in what it is computed from."""
    name = operator_name(node)
    if not name or name in _LAYERS:
        return
    if is_identity(node):
        yield source_of(node), axis
    elif name in PERMUTATIONS:
        yield source_of(node), permutation_of(node)[axis]
    elif name == "getitem":
        yield from _before_piece(source_of(node), axis)
    elif name == "select":
        along = argument_of(node, 1, "dim", 0) % len(shape_of(source_of(node)))
        yield source_of(node), axis + (along <= axis)
    else:
        yield from _aligned(node, axis)


def _before_piece(listed: fx.Node, axis: int) -> Iterator[tuple[fx.Node, int]]:
    """A part of what was split or unbound."""
    name = operator_name(listed)
    if name == "unbind":
        along = argument_of(listed, 1, "dim", 0) % len(shape_of(source_of(listed)))
        yield source_of(listed), axis + (along <= axis)
    elif name in ("chunk", "split", "split_with_sizes", "tensor_split"):
        yield source_of(listed), axis


def _aligned(node: fx.Node, axis: int) -> Iterator[tuple[fx.Node, int]]:
    """Operators that keep axes in their places, the last ones aligned where tensors broadcast."""
    if not is_tensor(node):
        return
    for source in node.all_input_nodes:
        if not is_tensor(source):
            continue
        place = axis - len(shape_of(node)) + len(shape_of(source))
        if place >= 0 and shape_of(source)[place] == shape_of(node)[axis]:
            yield source, place
