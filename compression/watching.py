"""Running a graph and looking at values on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import fx

from kneepoint.spaces.tracing import input_names, split_inputs

Visit = Callable[[fx.Node, tuple[Any, ...], Any], None]
"""Called for a watched node as (node, the values of its positional arguments, its own value)."""


def watch(module: fx.GraphModule, inputs: Iterable[Any], names: Collection[str], visit: Visit) -> None:
    """Run every batch through ``module``, without gradients, and show ``visit`` the nodes ``names``.

    Args:
        module: Left untouched.
        inputs: Batches of inputs.
        names: Nodes of the graph, by name.
        visit: Called in execution order; what it keeps of a value it has to copy or reduce.
    """
    watcher = _Watcher(module, frozenset(names), visit)
    with torch.no_grad():
        for batch in inputs:
            watcher.run(*in_signature_order(module, batch))


class _Watcher(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, names: frozenset[str], visit: Visit) -> None:
        super().__init__(module)
        self.names = names
        self.visit = visit

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            self.visit(n, arguments, value)
        return value


def in_signature_order(module: fx.GraphModule, inputs: Any) -> list[Any]:
    """The tensors of ``inputs`` in the order of the graph's placeholders, which is that of its signature."""
    args, kwargs = split_inputs(inputs)
    named = [kwargs[name] for name in input_names(module)[len(args) :] if name in kwargs]
    return list(torch.utils._pytree.tree_leaves([*args, *named]))
