"""How channels flow through products of activations: attention's heads, and whatever is looked up for each of them.

A product keeps the axes that both of its sides have, which are computed apart from each other; what lies along such an
axis varies together on all sides. What is summed over depends on everything that is summed, so that it stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from kneepoint.spaces.axis_rules import bind_expression, elementwise
from kneepoint.spaces.channel_sets import Runs
from kneepoint.spaces.einsum import Einsum
from kneepoint.spaces.flow_state import FlowState, Rule, layer_name
from kneepoint.spaces.head_axes import ATTENTION
from kneepoint.spaces.tracing import argument_of, as_node, operator_name, shape_of, source_of

_MASK, _GROUPED = 3, 7
"""Positions of arguments of torch.nn.functional.scaled_dot_product_attention."""
_MATRIX = 2


def attention(flow: FlowState, node: fx.Node) -> str:
    """Whole heads, with those of keys and values that they share, and their part of a mask that has one a head."""
    query, key, value = (as_node(side) for side in node.args[:3])
    rank = len(shape_of(node))
    heads = rank - 3
    known = [side for side in (query, key, value) if side in flow.values]
    if not known:
        return ""
    if heads < 1 or any(flow.values[side][0] + rank - len(shape_of(side)) != heads for side in known):
        return f"operator {operator_name(node)} compares along it ({node.name})"
    total = shape_of(query)[-3]
    sides = [_heads(flow, side, total) for side in (query, key, value)]
    why = f"it meets heads that are fixed ({node.name})"
    for side in sides[1:]:
        flow.sets.unite(sides[0], side, why)
    flow.values[node] = (heads, sides[0])
    return _mask(flow, node, sides[0])


def _heads(flow: FlowState, side: fx.Node, total: int) -> Runs:
    """The heads of query, key or value as those of the query: a shared one stands for several."""
    shape = shape_of(side)
    own = shape[-3] if len(shape) > _MATRIX else 1
    known = flow.values.get(side)
    if known is None or own == 1:
        return flow.sets.constant(total, f"it is fixed ({side.name})")
    return tuple(replace(run, repeat=run.repeat * (total // own)) for run in flow.sets.resolve(known[1]))


def _mask(flow: FlowState, node: fx.Node, heads: Runs) -> str:
    mask = argument_of(node, _MASK, "attn_mask", None)
    if not isinstance(mask, fx.Node) or len(shape_of(mask)) < 3 or shape_of(mask)[-3] == 1:
        return ""
    axis = len(shape_of(mask)) - 3
    if mask in flow.values and flow.values[mask][0] != axis:
        return f"operator {operator_name(node)} compares along it ({node.name})"
    if not bind_expression(flow, mask, axis, heads):
        return f"it meets a tensor whose channels are fixed ({node.name})"
    return ""


def product(flow: FlowState, node: fx.Node) -> str:
    """Two activations: an axis before the matrices, the rows of the first, or the columns of the second."""
    sides = [as_node(side) for side in node.args[:2]]
    rank = len(shape_of(node))
    places = {side: flow.values[side][0] + rank - len(shape_of(side)) for side in sides if side in flow.values}
    if not places:
        return ""
    if any(len(shape_of(side)) < _MATRIX for side in sides):
        return f"operator {operator_name(node)} works across it"
    if all(place < rank - _MATRIX for place in places.values()):
        return elementwise(flow, node)
    first, second = sides
    if places == {first: rank - _MATRIX} or places == {second: rank - 1}:
        flow.values[node] = next((place, flow.values[side][1]) for side, place in places.items())
        return ""
    return f"it is summed up, or lies across other channels ({node.name})"


def einsum(flow: FlowState, node: fx.Node) -> str:
    """As :func:`product`, by letters."""
    equation = Einsum.of(node)
    if equation is None:
        return f"operator einsum is not known to keep channels apart ({node.name})"
    known = [(place, *flow.values[side]) for place, side in enumerate(equation.operands) if side in flow.values]
    letters = {equation.letters[place][axis] for place, axis, _ in known}
    if not known:
        return ""
    letter = letters.pop()
    if letters or letter not in equation.result:
        return f"it is summed up, or lies across other channels ({node.name})"
    runs, why = known[0][2], f"it meets a tensor whose channels are fixed ({node.name})"
    for place, side in enumerate(equation.operands):
        axis = equation.axis_of(place, letter)
        if axis is None:
            continue
        if side not in flow.values:
            return why
        flow.sets.unite(runs, flow.values[side][1], why)
    flow.values[node] = (equation.result.index(letter), runs)
    return ""


def look_up(flow: FlowState, node: fx.Node) -> str:
    """Places of a stored table along one axis, such as a bias for every relative position: the other axis may vary."""
    table, listed = source_of(node), node.args[1]
    places = list(listed) if isinstance(listed, list | tuple) else []
    along = [axis for axis, place in enumerate(places) if place is not None]
    if table.op != "get_attr" or len(shape_of(table)) != _MATRIX or len(along) != 1:
        return f"operator index is not known to keep channels apart ({node.name})"
    name, axis = str(table.target), 1 - along[0]
    runs = flow.axes.get((name, axis)) or flow.sets.new(layer_name(name), shape_of(table)[axis])
    flow.bind(table, axis, runs)
    flow.values[node] = (axis and len(shape_of(node)) - 1, runs)
    return ""


ATTENTION_RULES: Mapping[str, Rule] = {
    ATTENTION: attention,
    "matmul": product,
    "bmm": product,
    "einsum": einsum,
    "index": look_up,
}
