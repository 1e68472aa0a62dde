"""What depends on no input is computed for one sample: masks, positions, token types, rotary tables.

Networks repeat such values to the batch's size, and a runtime that does not know the batch repeats them, and all that
is computed from them, at every inference. Computed for one sample they are constants, and broadcasting does the rest.
Where a reader cannot broadcast (a class token is concatenated), the value is repeated in front of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from kneepoint.spaces.axis_shapes import is_identity
from kneepoint.spaces.tracing import argument_of, is_number, is_tensor, operator_name, set_argument, source_of

_POINTWISE = frozenset({
    "__and__", "__or__", "add", "alias", "bitwise_and", "bitwise_not", "bitwise_or", "clone", "contiguous", "cos",
    "detach", "div", "eq", "exp", "ge", "gt", "le", "log", "logical_and", "logical_not", "logical_or", "lt",
    "masked_fill", "maximum", "minimum", "mul", "ne", "neg", "pow", "rsub", "sin", "sub", "to", "where",
})  # fmt: skip
_AXES: Mapping[str, tuple[tuple[int, str, int], ...]] = {
    "cat": ((1, "dim", 0),),
    "cumsum": ((1, "dim", 0),),
    "diff": ((2, "dim", -1),),
    "gather": ((1, "dim", 0),),
    "slice": ((1, "dim", 0),),
    "transpose": ((1, "dim0", 0), (2, "dim1", 0)),
    "unsqueeze": ((1, "dim", 0),),
}
"""Operators that work along axes, and the arguments that name them: position, name, default."""
_SIZED = frozenset({"expand", "reshape", "view"})
_PRODUCTS = frozenset({"bmm", "matmul"})
_MATRIX = 2
_STACK = 3
"""Axes of the smallest stack of matrices."""
_MASK = 3
"""Position of the argument of torch.nn.functional.scaled_dot_product_attention."""


def compute_once(graph: fx.Graph, state: Mapping[str, Tensor]) -> None:
    """Compute for one sample what depends on no input of a traced graph, in place.

    Args:
        graph: As ``torch.export`` gives it, its nodes with their values; nodes that change keep their old ones.
        state: The stored tensors, by name.
    """
    search = _Repeated(graph)
    for node in search.counted:
        _drop_index(node, state)
    for node in search.size_of:
        _take_one_sample(graph, node)
    for node, size in search.size_of.items():
        for reader in [user for user in node.users if user not in search.size_of]:
            if not search.broadcasts(reader, node):
                _repeat(graph, node, reader, size)


def constant_value(node: fx.Node, state: Mapping[str, Tensor]) -> Tensor | None:
    """The value of a node that depends neither on inputs, nor on the batch, nor on floats that training may change.

    None for every other node.
    """
    needed = _with_sources(node)
    if not all(_is_constant(entry, state) for entry in needed):
        return None
    values: dict[fx.Node, Any] = {}
    for entry in node.graph.nodes:
        if entry in needed:
            values[entry] = _evaluated(entry, values, state)
    value: Tensor = values[node]
    return value


class _Repeated:
    """The nodes of a graph that are equal for all samples.

    Attributes:
        size_of: To each of them the size of the batch, which it depends on.
        numbers: Numbers of samples from 0, with any axes of one element behind: they choose each sample's own row.
        counted: Reads with such numbers from what does depend on the inputs.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.fixed: set[fx.Node] = set()
        self.size_of: dict[fx.Node, fx.Node] = {}
        self.numbers: set[fx.Node] = set()
        self.counted: list[fx.Node] = []
        for node in graph.nodes:
            self._visit(node)

    def broadcasts(self, reader: fx.Node, node: fx.Node) -> bool:
        """Whether ``reader``, which is not equal for all samples, gives the same if ``node`` is of one sample."""
        name = operator_name(reader)
        if name == "scaled_dot_product_attention":
            others: tuple[Any, ...] = reader.args[:1]
            only_mask = argument_of(reader, _MASK, "attn_mask", None) is node and node not in reader.args[:_MASK]
        else:
            others, only_mask = tuple(reader.all_input_nodes), True
        axes = node.meta["val"].dim()
        whole = any(x not in self.size_of and _leads_with_batch(x) and x.meta["val"].dim() == axes for x in others)
        return (name in _POINTWISE or name == "scaled_dot_product_attention") and only_mask and whole

    def _visit(self, node: fx.Node) -> None:
        sources = [entry for entry in node.all_input_nodes if entry not in self.fixed]
        if node.op == "get_attr" or (node.op == "call_function" and not sources):
            self.fixed.add(node)
        elif node.op != "call_function" or not _leads_with_batch(node):
            return
        elif self._counts(node, sources):
            self.numbers.add(node)
        elif operator_name(node) == "index" and self._chooses_rows(node):
            if source_of(node) in self.size_of:
                self.size_of[node] = self.size_of[source_of(node)]
            elif source_of(node) not in self.fixed:
                self.counted.append(node)
        elif all(entry in self.size_of or _is_batch(entry) for entry in sources) and self._is_separate(node, sources):
            self.size_of[node] = self.size_of.get(sources[0], sources[0])

    def _counts(self, node: fx.Node, sources: list[fx.Node]) -> bool:
        if node.target is torch.ops.aten.arange.default:
            return _is_batch(sources[0])
        return node.all_input_nodes[0] in self.numbers and (operator_name(node) == "unsqueeze" or is_identity(node))

    def _chooses_rows(self, node: fx.Node) -> bool:
        first, *others = node.args[1] if isinstance(node.args[1], list | tuple) else (None,)
        return first in self.numbers and all(entry in self.fixed for entry in others)

    def _is_separate(self, node: fx.Node, sources: list[fx.Node]) -> bool:
        """Whether the operator computes each sample's part of the result from that sample's parts of its sources."""
        name = operator_name(node)
        tensors = [entry for entry in sources if entry in self.size_of]
        if name in _SIZED or is_identity(node):
            return True
        if len(tensors) < len(sources):
            return False
        if name in _AXES:
            axes = [argument_of(node, *given) for given in _AXES[name]]
            return all(axis % node.meta["val"].dim() for axis in axes)
        if name == "embedding":
            return True
        same = all(entry.meta["val"].dim() == node.meta["val"].dim() for entry in tensors)
        return same and (name in _POINTWISE or (name in _PRODUCTS and node.meta["val"].dim() >= _STACK))


def _leads_with_batch(node: fx.Node) -> bool:
    """Whether the value is a tensor whose first axis, and no other, depends on the batch, and is just its size."""
    sizes: list[Any] = list(node.meta["val"].shape) if is_tensor(node) else []
    return bool(sizes) and _is_symbol(sizes[0]) and all(isinstance(size, int) for size in sizes[1:])


def _is_batch(node: fx.Node) -> bool:
    return is_number(node) and _is_symbol(node.meta["val"])


def _is_symbol(size: Any) -> bool:
    return isinstance(size, torch.SymInt) and bool(size.node.expr.is_Symbol)


def _take_one_sample(graph: fx.Graph, node: fx.Node) -> None:
    name = operator_name(node)
    if name in _SIZED:
        node.args = torch.fx.map_arg(node.args, lambda entry: 1 if is_number(entry) else entry)
    elif name == "index":
        indices: list[fx.Node] = argument_of(node, 1, "indices", [])
        sizes = [1] * indices[0].meta["val"].dim()
        with graph.inserting_before(node):
            first = graph.call_function(torch.ops.aten.zeros.default, (sizes,), {"dtype": torch.int64})
        set_argument(node, 1, [first, *indices[1:]])


def _repeat(graph: fx.Graph, node: fx.Node, reader: fx.Node, size: fx.Node) -> None:
    """``reader`` reads ``node`` as it was."""
    sizes = [size, *node.meta["val"].shape[1:]]
    with graph.inserting_before(reader):
        whole = graph.call_function(torch.ops.aten.expand.default, (node, sizes))
    whole.meta = dict(node.meta)
    reader.replace_input_with(node, whole)


def _drop_index(node: fx.Node, state: Mapping[str, Tensor]) -> None:
    """Every sample's row read from its start to its end is the row itself, with other axes around it."""
    indices: list[fx.Node] = argument_of(node, 1, "indices", [])
    source, columns = source_of(node), indices[1:]
    sizes = list(node.meta["val"].shape[1:])
    order = constant_value(columns[0], state) if len(columns) == 1 else None
    if order is None or source.meta["val"].dim() != _MATRIX:
        return
    length = source.meta["val"].shape[1]
    if math.prod(sizes) == length and torch.equal(order.flatten(), torch.arange(length)):
        node.target, node.args = torch.ops.aten.reshape.default, (source, [-1, *sizes])


# --- constants -----------------------------------------------------------------------------------------------------


def _with_sources(node: fx.Node) -> set[fx.Node]:
    """The node and all that it is computed from."""
    found: set[fx.Node] = set()
    unseen = [node]
    while unseen:
        entry = unseen.pop()
        if entry not in found:
            found.add(entry)
            unseen.extend(entry.all_input_nodes)
    return found


def _is_constant(node: fx.Node, state: Mapping[str, Tensor]) -> bool:
    if node.op == "get_attr":
        return not state[str(node.target)].is_floating_point()
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in target.tags


def _evaluated(node: fx.Node, values: Mapping[fx.Node, Any], state: Mapping[str, Tensor]) -> Any:
    if node.op == "get_attr":
        return state[str(node.target)]
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
    assert callable(node.target)  # noqa: S101 - an operator
    return node.target(*args, **kwargs)
