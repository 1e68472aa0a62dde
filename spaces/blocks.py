"""Residual blocks that may be left out: y = a + f(a), where f(a) is computed for this addition alone.

Without the block, y is a. That is what the whole network computes when the block's output is zero, so that no other
part of the network has to know (Huang et al., "Deep networks with stochastic depth", ECCV 2016, drops blocks so in
training). A projection on the other side (y = g(a) + f(a)) is no such block: neither side can stand for the sum.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from kneepoint.spaces.axis_shapes import UNUSUAL_BATCH, is_identity
from kneepoint.spaces.tracing import argument_of, is_number, is_tensor, operator_name, shape_of, source_of


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        name: The module path that its layers share; that of the addition where they share none.
        addition: The node that adds.
        skip: The node whose value takes the place of the sum without the block.
        nodes: Names of everything that is computed for the block alone, the addition apart.
    """

    name: str
    addition: str
    skip: str
    nodes: frozenset[str]


def find_blocks(graph: fx.Graph, layers: Mapping[str, str]) -> dict[str, Block]:
    """The residual blocks of ``graph`` by name, in execution order.

    A block has at least one layer of its own, but not all there are, and shares none of f with others: otherwise the
    network without it would be none, would not be smaller, or would still compute f halfway. What it reads of a may
    have passed through operators without weights, or a norm that others read, too.

    Args:
        graph: A traced graph.
        layers: For every node that computes a layer, the layer's name.
    """
    found: dict[str, Block] = {}
    for node in graph.nodes:
        for skip, branch in _sides(node):
            region = _computed_for(node, branch)
            inside = list(dict.fromkeys(layers[part.name] for part in region if part.name in layers))
            if 0 < len(inside) < len(set(layers.values())) and _shares_no_layer(region, _origin(skip), layers):
                name = _unused_name(node, _common_path(inside), found)
                found[name] = Block(name, node.name, skip.name, frozenset(part.name for part in region))
    return found


def leave_out(graph: fx.Graph, blocks: Iterable[Block]) -> None:
    """Make every reader of a block's sum read the other side, in place; what then nothing reads is left behind."""
    nodes = {node.name: node for node in graph.nodes}
    order = {name: place for place, name in enumerate(nodes)}
    # Last first: one block's other side may be the sum of a block before it, which is then replaced in turn.
    for block in sorted(blocks, key=lambda block: order[block.addition], reverse=True):
        nodes[block.addition].replace_all_uses_with(nodes[block.skip])


def _sides(node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """(what would remain, what would go), either way round, for a plain sum of two tensors of its own shape."""
    if operator_name(node) != "add" or argument_of(node, 2, "alpha", 1) != 1:
        return []
    first, second = node.args[:2]
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or first is second:
        return []
    alike = all(is_tensor(side) and _signature(side) == _signature(node) for side in (first, second))
    return [(first, second), (second, first)] if alike else []


def _signature(node: fx.Node) -> tuple[tuple[int, ...], tuple[int, ...], torch.dtype]:
    return shape_of(node), shape_of(node, UNUSUAL_BATCH), node.meta["val"].dtype


def _computed_for(addition: fx.Node, branch: fx.Node) -> list[fx.Node]:
    """Every operator whose result reaches nothing but ``addition``, and that through ``branch``; from the last one."""
    region: dict[fx.Node, None] = {}
    pending = [branch]
    while pending:
        node = pending.pop()
        alone = all(user in region or (user is addition and node is branch) for user in node.users)
        if node.op == "call_function" and node not in region and alone:
            region[node] = None
            pending.extend(node.all_input_nodes)
    return list(region)


def _shares_no_layer(region: Collection[fx.Node], skip: fx.Node, layers: Collection[str]) -> bool:
    """Whether a region depends on ``skip``, and on no layer behind it but its own."""
    parts = set(region)
    read = {_origin(source) for part in region for source in part.all_input_nodes if source not in parts}
    before = {skip, *_computed_from([skip], layers)}
    shared = {user for node in before for user in node.users if user.name in layers}
    return not read.isdisjoint(before) and read.isdisjoint({*shared, *_computed_from(shared)})


def _computed_from(starts: Iterable[fx.Node], stop: Collection[str] = ()) -> set[fx.Node]:
    """Everything computed from the values of ``starts`` (their shapes do not count), up to nodes named in ``stop``."""
    found: set[fx.Node] = set()
    pending = list(starts)
    while pending:
        for user in pending.pop().users:
            if user not in found and user.name not in stop and not is_number(user):
                found.add(user)
                pending.append(user)
    return found


def _origin(node: fx.Node) -> fx.Node:
    """The node whose value ``node`` hands on."""
    while is_identity(node):
        node = source_of(node)
    return node


def _common_path(layers: Collection[str]) -> str:
    """``stages.0.1`` for its ``conv1`` and ``conv2``; a single layer's own name."""
    parts = [layer.split(".") for layer in layers]
    shared: list[str] = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)


def _unused_name(addition: fx.Node, path: str, taken: Collection[str]) -> str:
    """The path, unless it is empty or a block of shared layers has it already."""
    candidates = (path, addition.name, f"{path}.{addition.name}")
    return next(name for name in candidates if name and name not in taken)
