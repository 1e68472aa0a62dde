"""Networks that say the same in different words, in the same words: rewrites of a graph just traced.

None of them changes what the network computes. Each makes something visible that the words hid: that a product with a
stored matrix is a linear layer, that tokens and features do not mix, that heads are not part of the batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from kneepoint.spaces.axis_shapes import PERMUTATIONS, RESHAPES, UNUSUAL_BATCH, permutation_of
from kneepoint.spaces.tracing import argument_of, operator_name, remove_unread_, set_attribute, shape_of, source_of

_ATEN = torch.ops.aten
_MATRIX = 2


def normalize_(graph_module: fx.GraphModule) -> frozenset[str]:
    """Rewrite a traced graph in place.

    Args:
        graph_module: With the metadata of ``torch.export``; parameters that are turned share their memory.

    Returns:
        Names of the parameters that are stored turned round: (out, in), where the module has (in, out).
    """
    turned = _products_to_layers(graph_module)
    for node in list(graph_module.graph.nodes):
        _keep_leading_axes(node)
        _untangle(node)
    remove_unread_(graph_module.graph)
    return turned


# --- products with stored matrices ------------------------------------------------------------------------------------


def _products_to_layers(graph_module: fx.GraphModule) -> frozenset[str]:
    """``addmm(bias, x, weight)`` and ``x @ weight`` become linear layers, whose weight is stored the other way round.

    So GPT-2 writes its layers. A matrix that anything else reads, too, stays.
    """
    readers: dict[str, list[tuple[fx.Node, fx.Node]]] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            readers.setdefault(str(node.target), []).extend((node, user) for user in node.users)
    weights = dict(graph_module.named_parameters(remove_duplicate=False))
    found = {
        name: pairs for name, pairs in readers.items() if name in weights and all(_is_product(*pair) for pair in pairs)
    }
    for name, pairs in found.items():
        weight = weights[name]
        set_attribute(graph_module, name, nn.Parameter(weight.detach().t(), requires_grad=weight.requires_grad))
        for stored in dict.fromkeys(pair[0] for pair in pairs):
            stored.meta["val"] = stored.meta["val"].t()
        for stored, product in pairs:
            bias = (source_of(product),) if operator_name(product) == "addmm" else ()
            _replace(product, _ATEN.linear.default, (product.args[len(bias)], stored, *bias))
    return frozenset(found)


def _is_product(stored: fx.Node, product: fx.Node) -> bool:
    """Whether ``product`` is (bias +) x @ stored, of a stored matrix."""
    name = operator_name(product)
    place = {"addmm": 2, "mm": 1, "matmul": 1}.get(name)
    if place is None or len(shape_of(stored)) != _MATRIX:
        return False
    if product.kwargs or len(product.args) != place + 1 or product.args[place] is not stored:
        return False
    others = [entry for entry in product.args[:place] if isinstance(entry, fx.Node)]
    vector = name != "addmm" or (others[0].op == "get_attr" and len(shape_of(others[0])) == 1)
    return vector and stored not in others and others[-1].op != "get_attr" and len(shape_of(others[-1])) >= _MATRIX


# --- leading axes merged around a layer -------------------------------------------------------------------------------


def _keep_leading_axes(node: fx.Node) -> None:
    """``linear(x.view(-1, i)).view(n, t, o)`` is ``linear(x.view(n, t, i))``: tokens need not join the batch."""
    if operator_name(node) != "linear" or len(shape_of(node)) != _MATRIX:
        return
    before, after = source_of(node), next(iter(node.users), None)
    if operator_name(before) not in RESHAPES or after is None or len(node.users) != 1 or not _is_written(after):
        return
    leading = argument_of(after, 1, "size", ())[:-1]
    if shape_of(after, UNUSUAL_BATCH)[-1] != shape_of(node, UNUSUAL_BATCH)[-1] or len(leading) < _MATRIX:
        return
    features = shape_of(before)[-1]
    with node.graph.inserting_before(after):  # behind whatever computes the sizes
        wide = source_of(before)
        if shape_of(wide, UNUSUAL_BATCH) != (*shape_of(after, UNUSUAL_BATCH)[:-1], features):
            wide = node.graph.call_function(_ATEN.reshape.default, (wide, [*leading, features]))
            wide.meta = _described(before, wide)
        layer = node.graph.call_function(_ATEN.linear.default, (wide, *node.args[1:]), dict(node.kwargs))
        layer.meta = {**node.meta, "val": after.meta["val"]}
    after.replace_all_uses_with(layer)


def _is_written(node: fx.Node) -> bool:
    return operator_name(node) in ("view", "reshape")


# --- heads merged into the batch --------------------------------------------------------------------------------------


def _untangle(node: fx.Node) -> None:
    """A reshape of a permutation of a reshape, where nothing is really merged, is one reshape and one permutation.

    ``nn.MultiheadAttention`` takes heads into the batch and out again: (t, n, h d) -> (t, n h, d) -> (n h, t, d).
    """
    turned = source_of(node) if _is_written(node) else None
    if turned is None or operator_name(turned) not in PERMUTATIONS or len(turned.users) != 1:
        return
    first = source_of(turned)
    if not _is_written(first) or len(first.users) != 1:
        return
    start = source_of(first)
    parts = _common_parts(shape_of(start, UNUSUAL_BATCH), shape_of(first, UNUSUAL_BATCH))
    if parts is None:
        return
    fine = [size for part in parts for size in part]
    places = [index for axis in permutation_of(turned) for index in _places(parts, axis)]
    if [fine[place] for place in places] != list(shape_of(node, UNUSUAL_BATCH)) or fine.count(UNUSUAL_BATCH) > 1:
        return
    sizes = [-1 if size == UNUSUAL_BATCH else size for size in fine]
    with node.graph.inserting_before(node):
        split = node.graph.call_function(_ATEN.reshape.default, (start, sizes))
        split.meta = _described(first, split)
    _replace(node, _ATEN.permute.default, (split, places))


def _common_parts(before: Sequence[int], after: Sequence[int]) -> list[list[int]] | None:
    """Every axis of ``after`` in the coarsest parts that ``before`` is made of, too; None where there are none."""
    inner = {math.prod(before[place:]) for place in range(len(before) + 1)}
    inner |= {math.prod(after[place:]) for place in range(len(after) + 1)}
    steps = sorted(inner, reverse=True)
    if any(larger % smaller for larger, smaller in itertools.pairwise(steps)):
        return None
    found = []
    for place in range(len(after)):
        outer, end = math.prod(after[place:]), math.prod(after[place + 1 :])
        cuts = [step for step in steps if end <= step <= outer]
        found.append([larger // smaller for larger, smaller in itertools.pairwise(cuts)])
    return found


def _places(parts: Sequence[Sequence[int]], axis: int) -> range:
    begin = sum(len(part) for part in parts[:axis])
    return range(begin, begin + len(parts[axis]))


# --- nodes ------------------------------------------------------------------------------------------------------------


def _replace(node: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    node.target, node.args, node.kwargs = target, args, {}


def _described(like: fx.Node, node: fx.Node) -> dict[str, Any]:
    """The metadata of ``like``, with the value that ``node`` has."""
    source = source_of(node).meta["val"]
    sizes = [size.meta["val"] if isinstance(size, fx.Node) else size for size in argument_of(node, 1, "size", ())]
    return {**like.meta, "val": source.reshape(sizes)}
