"""What the exporter writes in the place of one operator: several, another, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace

from torch import fx

from kneepoint.hardware_models.operators import ONNX_KINDS, Operator, Tensor
from kneepoint.spaces.axis_shapes import is_identity, keeps_first_axis
from kneepoint.spaces.constant_folding import constant_value
from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.tracing import argument_of, is_number, operator_name, shape_of, source_of

_NEUTRAL: Mapping[str, float] = {"add": 0, "sub": 0, "mul": 1, "div": 1}


def exported_forms(
    network: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]
) -> Iterator[Operator]:
    """The operators that are exported for ``operation``, in order.

    Args:
        network: Knows how the operator was called.
        operation: In the traced graph.
        operator: Its row, if it were exported as it is.
        tensors: The activations between several operators are added.
    """
    rule = _RULES.get(operator_name(network.node(operation)))
    return rule(network, operation, operator, tensors) if rule is not None else iter((operator,))


def _unequal(_: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]) -> _Rows:
    """ONNX has Equal alone."""
    yield _before(operator, tensors, "equal", "Equal")
    yield replace(operator, inputs=(f"{operation.name}: equal",))


def _running_sum(
    network: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]
) -> _Rows:
    """Of whole numbers it is taken in 64 bits."""
    node = network.node(operation)
    if node.meta["val"].dtype != source_of(node).meta["val"].dtype:
        yield _before(operator, tensors, "wide", "Cast")
        operator = replace(operator, inputs=(f"{operation.name}: wide",))
    yield operator


def _converted(_: Network, __: Operation, operator: Operator, ___: MutableMapping[str, Tensor]) -> _Rows:
    """To the type of another tensor, which the exporter knows."""
    yield replace(operator, inputs=operator.inputs[:1])


def _combined(network: Network, operation: Operation, operator: Operator, _: MutableMapping[str, Tensor]) -> _Rows:
    """Nothing happens to what zero is added to, or what is multiplied by one."""
    neutral = _NEUTRAL[operator_name(network.node(operation))]
    other = network.argument(operation, 1, "other", None)
    if isinstance(other, int | float) and other == neutral and len(operator.inputs) == 1:
        operator = replace(operator, kind="view", function="", operand=None)
    yield operator


def _root_below(_: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]) -> _Rows:
    """ONNX has no reciprocal of a root."""
    yield replace(_before(operator, tensors, "root"), kind="activation", function="sqrt")
    yield replace(operator, kind="activation", function="reciprocal", inputs=(f"{operation.name}: root",))


def _root_mean_square(
    network: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]
) -> _Rows:
    """RMSNorm in parts: x / sqrt(mean(x^2) + epsilon) times its gain (Zhang & Sennrich, NeurIPS 2019, equation 4)."""
    rank = len(tensors[operator.output].shape)
    normalized = len(network.argument(operation, 1, "normalized_shape", ()))
    axes, shape = tuple(range(rank - normalized, rank)), tensors[operator.output].shape
    narrow = (*shape[: rank - normalized], *[1] * normalized)
    yield (square := replace(_before(operator, tensors, "square"), kind="activation", function="pow"))
    steps = (("mean", "reduce", "ReduceMean"), ("sum", "add", ""), ("root", "activation", "sqrt"))
    last = square.output
    for part, kind, function in (*steps, ("inverse", "activation", "reciprocal")):
        made = replace(_before(operator, tensors, part), kind=kind, function=function, inputs=(last,), operand=None)
        tensors[made.output], last = Tensor(made.output, narrow), made.output
        yield replace(made, axes=axes if kind == "reduce" else (), operand=() if kind == "add" else None)
    gain = network.constants_of(operation)
    scaled = operator if not gain else _before(operator, tensors, "scaled")
    yield replace(scaled, kind="mul", function="", axes=(), inputs=(*operator.inputs, last), operand=None)
    if gain:
        stored = tuple(shape[axis] for axis in axes)
        yield replace(operator, kind="mul", function="", axes=(), inputs=(scaled.output,), operand=stored)


def _piece(network: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]) -> _Rows:
    """What is unbound is sliced, and the axis of one element that is left goes."""
    listed = source_of(network.node(operation))
    if operator_name(listed) != "unbind":
        yield operator
        return
    axis = argument_of(listed, 1, "dim", 0) % len(shape_of(source_of(listed)))
    slice_ = _before(operator, tensors, "slice", "Slice")
    shape = tensors[operator.output].shape
    tensors[slice_.output] = Tensor(slice_.output, (*shape[:axis], 1, *shape[axis:]))
    yield replace(slice_, axes=(axis,))
    yield replace(operator, kind="view", function="squeeze", inputs=(slice_.output,), axes=(axis,))


def _rows(network: Network, operation: Operation, operator: Operator, _: MutableMapping[str, Tensor]) -> _Rows:
    """Every sample's row from its start to its end is the row itself, with other axes around it."""
    node = network.node(operation)
    if is_every_row(network, node):
        axes = (0,) if keeps_first_axis(node) else ()
        operator = replace(operator, kind="view", function="", inputs=operator.inputs[:1], axes=axes)
    yield operator


def is_every_row(network: Network, node: fx.Node) -> bool:
    """Whether ``x[arange(samples)[:, None], arange(length)]`` reads all of ``x``, of shape (samples, length)."""
    source, listed = source_of(node), node.args[1]
    if not isinstance(listed, list | tuple) or len(listed) != 2 or len(shape_of(source)) != 2:
        return False
    numbers, columns = listed
    while isinstance(numbers, fx.Node) and (operator_name(numbers) == "unsqueeze" or is_identity(numbers)):
        numbers = source_of(numbers)
    if not isinstance(numbers, fx.Node) or not isinstance(columns, fx.Node) or operator_name(numbers) != "arange":
        return False
    counted = numbers.args[0]
    if not isinstance(counted, fx.Node) or not is_number(counted) or not _depends_on_nothing(columns):
        return False
    order = constant_value(network, columns).flatten()
    return order.tolist() == list(range(shape_of(source)[1]))


def _depends_on_nothing(node: fx.Node) -> bool:
    """Whether a node is the same for all inputs and all batches."""
    return node.op == "call_function" and all(map(_depends_on_nothing, node.all_input_nodes))


def _cut_rows(_: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]) -> _Rows:
    """What rows are filled up with is cut off behind a lookup."""
    weight, shape = operator.weight, tensors[operator.output].shape
    if weight is None or weight.format != "packed" or weight.shape[1] == shape[-1]:
        yield operator
        return
    filled = f"{operation.name}: filled"
    tensors[filled] = Tensor(filled, (*shape[:-1], weight.shape[1]))
    yield replace(operator, output=filled)
    yield Operator(f"{operator.name}: cut", ONNX_KINDS["Slice"], (filled,), operator.output, function="Slice")


def _before(operator: Operator, tensors: MutableMapping[str, Tensor], part: str, function: str = "") -> Operator:
    """An operator of the same shape, which reads what ``operator`` read."""
    output = f"{operator.output}: {part}"
    tensors[output] = Tensor(output, tensors[operator.output].shape)
    kind = ONNX_KINDS[function] if function else operator.kind
    return replace(operator, name=f"{operator.name}: {part}", kind=kind, output=output, function=function)


_Rows = Iterator[Operator]
_Rule = Callable[[Network, Operation, Operator, MutableMapping[str, Tensor]], _Rows]
_RULES: Mapping[str, _Rule] = {
    "ne": _unequal,
    "rsqrt": _root_below,
    "rms_norm": _root_mean_square,
    "getitem": _piece,
    "index": _rows,
    "embedding": _cut_rows,
    "cumsum": _running_sum,
    "type_as": _converted,
    **dict.fromkeys(_NEUTRAL, _combined),
}
