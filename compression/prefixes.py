"""Outputs of networks that differ from one another here or there: what they share is computed once.

The values that a graph computes before its first difference from a graph that ran before are those of that graph; so
are those beside it, in branches that the difference does not reach. A change near the output costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from kneepoint.compression.watching import in_signature_order
from kneepoint.spaces.tracing import attribute_of

MOST_KEPT = 2**29
"""Bytes of values that are kept; batches beyond it are computed from their beginning."""


class SharedPrefixes:
    """A network that ran on a few batches, and its values.

    Args:
        module: A traced graph, or one made from it, so that nodes of one name stand for the same step.
        batches: Inputs.
        most_kept: Bytes of its values that are kept.

    Attributes:
        outputs: Of the network itself, a batch each.
    """

    def __init__(self, module: fx.GraphModule, batches: Sequence[Any], most_kept: int = MOST_KEPT) -> None:
        self._module = module
        self._arguments = [in_signature_order(module, batch) for batch in batches]
        self._values: list[Mapping[str, Any]] = []
        self._room = most_kept
        self.outputs = [self._run(arguments) for arguments in self._arguments]

    def outputs_of(self, module: fx.GraphModule) -> list[Any]:
        """What another network of the same origin computes of the same batches, without gradients."""
        same = _unchanged(module, self._module)
        found = []
        for arguments, values in zip(self._arguments, self._values, strict=True):
            known = {node: values[node.name] for node in same} if values else {}
            with torch.no_grad():
                found.append(fx.Interpreter(module).run(*arguments, initial_env=known))
        return found

    def _run(self, arguments: Sequence[Tensor]) -> Any:
        """The outputs of the network itself; its values are kept while there is room."""
        keeper = _Keeper(self._module, self._room)
        with torch.no_grad():
            outputs = keeper.run(*arguments)
        self._room = keeper.room
        self._values.append({node.name: value for node, value in keeper.env.items()} if keeper.room >= 0 else {})
        return outputs


class _Keeper(fx.Interpreter):
    """Keeps all values, until there is no room for them: then it lets go of what nobody reads any more.

    Args:
        module: To run.
        room: Bytes.
    """

    def __init__(self, module: fx.GraphModule, room: int) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.garbage_collect_values = room < 0
        self.room = room

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.room -= value.nbytes if isinstance(value, Tensor) else 0
        if self.room < 0 and not self.garbage_collect_values:
            self.garbage_collect_values = True
            for node in [node for node in self.env if all(user in self.env for user in node.users)]:
                del self.env[node]
        return value


def _unchanged(module: fx.GraphModule, other: fx.GraphModule) -> list[fx.Node]:
    """The nodes of ``module`` whose values are those of the nodes of the same names in ``other``."""
    known = {node.name: node for node in other.graph.nodes}
    same: dict[str, fx.Node] = {}
    for node in module.graph.nodes:
        twin = known.get(node.name)
        if twin is None or node.op == "output" or any(entry.name not in same for entry in node.all_input_nodes):
            continue
        if _step(node) == _step(twin) and (node.op != "get_attr" or _is_same_attribute(module, other, node)):
            same[node.name] = node
    return list(same.values())


def _step(node: fx.Node) -> tuple[Any, ...]:
    """What a node does, with the names of what it reads."""
    args, kwargs = (fx.map_arg(part, lambda read: f"%{read.name}") for part in (node.args, node.kwargs))
    return node.op, node.target, args, kwargs


def _is_same_attribute(module: fx.GraphModule, other: fx.GraphModule, node: fx.Node) -> bool:
    mine, theirs = (attribute_of(owner, str(node.target)) for owner in (module, other))
    if not isinstance(mine, Tensor) or not isinstance(theirs, Tensor):
        return bool(mine is theirs)
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return False
    return mine.data_ptr() == theirs.data_ptr() or torch.equal(mine, theirs)
