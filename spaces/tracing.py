"""A user's module, unmodified, as a graph of ATen operators: ``torch.export`` with a free batch dimension."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx._lazy_graph_module import _LazyGraphModule

from kneepoint.spaces.export_errors import export_failure, quiet_export
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.modes import module_mode

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]
_TREE_MAP: Callable[..., Any] = torch.utils._pytree.tree_map
DROPOUTS = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
"""Operators that hand on their input at inference; their third argument says whether this is training."""
_NUMBERS = (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)


def trace(module: nn.Module, example_input: Inputs) -> fx.GraphModule:
    """The inference graph of ``module``; the module itself is left as it was.

    The batch dimension (0) of every input tensor is free in the graph, in-place operators are replaced by their
    functional forms, and the parameters are shared with ``module``, under the same names. State that the module
    changes while it runs (a counter) is read, and no longer written.

    Args:
        module: Any module that ``torch.export`` accepts.
        example_input: A tensor, a tuple of positional inputs or a dict of keyword inputs; batch first.

    Raises:
        SpaceError: If the module cannot be exported; the message says where in its code.
    """
    args, kwargs = split_inputs(example_input)
    args, kwargs = _at_least_two(args), _at_least_two(kwargs)
    try:
        with module_mode(module, training=False), quiet_export(), warnings.catch_warnings():
            # torch.export warns of what it deprecates in itself, which a user can do nothing about.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # A recurrent layer lists its own weights anew at every call.
            warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export", UserWarning)
            exported = torch.export.export(module, args, kwargs, dynamic_shapes=_free_batch(args, kwargs))
            graph_module = _functional(exported)
    except Exception as error:  # torch.export raises many unrelated types
        raise SpaceError(
            "the model must be traceable by torch.export with a free batch dimension; it said: "
            f"{export_failure(error)}; avoid Python control flow on tensor values and constants for the batch size"
        ) from error
    _tidy(graph_module.graph)
    graph_module.recompile()
    return graph_module


def split_inputs(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call with ``inputs``, as ``Task.call`` makes them."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), {}


def copy_graph_module(
    source: fx.GraphModule,
    edit: Callable[[fx.Graph], None] | None = None,
    tensors: Mapping[str, Any] | None = None,
    *,
    lazy: bool = False,
) -> fx.GraphModule:
    """A new module with a copy of ``source``'s graph.

    Args:
        source: Left untouched.
        edit: Changes the copied graph in place, before the module is built.
        tensors: Replaces parameters and buffers by name, and adds those the edit refers to; what is not here is
            shared with ``source``.
        lazy: Whether the graph becomes Python code at the first call only; half the time, where it is never called but
            copied again or interpreted. A lazy module does not show its signature, so that it cannot be exported.
    """
    graph = _copy_graph(source.graph)
    if edit is not None:
        edit(graph)
    remove_unread_(graph)
    given = tensors or {}
    used = sorted({str(node.target) for node in graph.nodes if node.op == "get_attr"})
    values = {name: given[name] if name in given else attribute_of(source, name) for name in used}
    return _LazyGraphModule(values, graph) if lazy else fx.GraphModule(values, graph)


def remove_unread_(graph: fx.Graph) -> None:
    """Remove what nothing reads, in place: a traced graph changes nothing but its values.

    Torch itself keeps every dropout, because it draws random numbers.
    """
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def input_names(module: fx.GraphModule) -> list[str]:
    """The names of a traced module's inputs in the order of its signature."""
    names: list[str] = list(module.graph._codegen.pytree_info.orig_args)  # type: ignore[attr-defined]  # what torch.export gives a module has it
    return [name for name in names if name != "self"]


def tensors_of(module: fx.GraphModule) -> dict[str, Tensor]:
    """Parameters, buffers and the constants that the graph reads, by name (shared, not copied)."""
    found: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    found.update(module.named_buffers(remove_duplicate=False))
    for node in module.graph.nodes:
        if node.op == "get_attr" and str(node.target) not in found:
            value = attribute_of(module, str(node.target))
            if isinstance(value, Tensor):
                found[str(node.target)] = value
    return found


def operator_name(node: fx.Node) -> str:
    """The ATen name of a call (``conv2d``), or an empty string for every other node."""
    if node.op != "call_function":
        return ""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket.__name__)
    return str(getattr(target, "__name__", ""))


def as_node(argument: object) -> fx.Node:
    """An argument that the operator's schema says is a tensor.

    Raises:
        TypeError: If it is a constant: the graph then breaks the schema.
    """
    if not isinstance(argument, fx.Node):
        raise TypeError(f"expected a node of the graph, found {argument!r}")
    return argument


def source_of(node: fx.Node) -> fx.Node:
    """The first argument of an operator: the tensor that it maps."""
    return as_node(node.args[0])


def set_argument(node: fx.Node, position: int, value: Any) -> None:
    """Replace a positional argument that the operator was given."""
    node.args = (*node.args[:position], value, *node.args[position + 1 :])


def argument_of(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """An argument given by position or by name, or what the operator takes where it is not given."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def is_tensor(node: fx.Node) -> bool:
    """Whether the node's value is one tensor."""
    return isinstance(node.meta.get("val"), Tensor)


def is_number(node: fx.Node) -> bool:
    """Whether the node's value is a number: arithmetic on sizes that depend on the batch."""
    return isinstance(node.meta.get("val"), _NUMBERS)


def shape_of(node: fx.Node, batch: int = 1) -> tuple[int, ...]:
    """The shape of a tensor node for ``batch`` samples."""
    return tuple(_size(size, batch) for size in node.meta["val"].shape)


def _size(size: Any, batch: int) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, batch)))


def _copy_graph(source: fx.Graph) -> fx.Graph:
    """As deepcopy, but sharing the (immutable) calling convention instead of copying its tree specification."""
    graph = fx.Graph()
    result = graph.graph_copy(source, val_map={}, return_output_node=True)
    if not isinstance(result, tuple):
        raise TypeError("an exported graph ends in an output node")
    value, output = result
    graph.output(value).meta = dict(output.meta)
    graph.set_codegen(source._codegen)
    return graph


def attribute_of(module: Any, name: str) -> Any:
    """What a ``get_attr`` node of a module reads, by its dotted name."""
    for part in name.split("."):
        module = getattr(module, part)
    return module


def set_attribute(module: Any, name: str, value: Any) -> None:
    """Replace what a ``get_attr`` node of a module reads, by its dotted name."""
    path, _, last = name.rpartition(".")
    setattr(attribute_of(module, path) if path else module, last, value)


def _at_least_two(inputs: Any) -> Any:
    """torch.export takes sizes 0 and 1 for constants, so an example of one sample is repeated."""
    return _TREE_MAP(lambda x: torch.cat([x, x]) if isinstance(x, Tensor) and x.dim() and len(x) == 1 else x, inputs)


def _free_batch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def free(x: Any) -> Any:
        return {0: torch.export.Dim.DYNAMIC} if isinstance(x, Tensor) and x.dim() else None

    return _TREE_MAP(free, kwargs if kwargs else args)


# --- in-place operators --------------------------------------------------------------------------------------------


def _functional(exported: torch.export.ExportedProgram) -> fx.GraphModule:
    """The program as a graph without in-place operators.

    Writing to a tensor is a new value that every later reader sees; that is a matter of renaming, unless the tensor
    shares memory with another one. Then torch's own functionalization is asked, which costs another pass.
    """
    module = _module(exported)
    if _rename_mutations(module.graph):
        return module
    module = _module(exported.run_decompositions({}))
    _restore_batch_norm(module.graph)
    if not _rename_mutations(module.graph):
        raise TypeError("it writes to tensors in a way that cannot be made functional")
    return module


def _module(exported: torch.export.ExportedProgram) -> fx.GraphModule:
    module = exported.module(check_guards=False)
    if not isinstance(module, fx.GraphModule):
        raise TypeError(f"torch.export gave a {type(module).__name__} where it promises a GraphModule")
    return module


def _restore_batch_norm(graph: fx.Graph) -> None:
    """Functionalization replaces this one operator, which everything downstream knows by its usual name."""
    for node in list(graph.nodes):
        if operator_name(node) != "_native_batch_norm_legit_no_training":
            continue
        *tensors, momentum, epsilon = node.args
        arguments = (*tensors, False, momentum, epsilon, False)
        for item in list(node.users):
            with graph.inserting_before(item):
                norm = graph.call_function(torch.ops.aten.batch_norm.default, arguments)
            norm.meta = dict(item.meta)
            item.replace_all_uses_with(norm)
            graph.erase_node(item)
        graph.erase_node(node)


def _rename_mutations(graph: fx.Graph) -> bool:
    """Replace ``relu_(x)`` by ``relu(x)`` and every later use of ``x`` by it, in place; False where that is unsafe."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    mutations = [node for node in graph.nodes if _is_mutation(node)]
    if any(_shares_memory(node, order) or _functional_form(node) is None for node in mutations):
        return False
    for node in mutations:
        node.target = _functional_form(node)
        changed = source_of(node)
        changed.replace_all_uses_with(node, delete_user_cb=lambda user, at=order[node]: order[user] > at)  # type: ignore[misc]  # mypy cannot infer a lambda that binds a value by default
    return True


def _is_mutation(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _functional_form(node: fx.Node) -> Any:
    """``aten.relu.default`` for ``aten.relu_.default``; None where there is none."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return None
    packet = getattr(torch.ops.aten, operator_name(node).removesuffix("_"), None)
    overload = getattr(packet, target._overloadname, None)
    return overload if isinstance(overload, torch._ops.OpOverload) and not overload._schema.is_mutable else None


def _shares_memory(mutation: fx.Node, order: Mapping[fx.Node, int]) -> bool:
    """Whether somebody may look at what ``mutation`` overwrites under another name, or at another part of it."""
    node = source_of(mutation)
    if any(_may_alias(user) for user in node.users if user is not mutation and order[user] < order[mutation]):
        return True
    while _may_alias(node):
        child, node = node, source_of(node)
        others = [user for user in node.users if user is not child]
        if any(order[user] > order[mutation] or _may_alias(user) for user in others):
            return True
    return False


def _may_alias(node: fx.Node) -> bool:
    """Whether the value may share memory with what it is computed from."""
    if node.op != "call_function" or _is_mutation(node):
        return False  # what an in-place operator returns is renamed like the tensor itself
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or operator_name(node) in DROPOUTS:
        return is_tensor(node)  # an element of a split; dropout hands its input on
    returned = [entry.alias_info for entry in target._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


def _tidy(graph: fx.Graph) -> None:
    """Remove the exporter's assertions, and what nothing reads (writes to the module's own state among it).

    A view is written as a reshape: it would ask for strides, which change where copies around it are left out.
    """
    for node in reversed(list(graph.nodes)):
        if operator_name(node) == "_assert_tensor_metadata":
            graph.erase_node(node)
        elif node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    remove_unread_(graph)
