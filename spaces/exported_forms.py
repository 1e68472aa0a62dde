"""What the exporter writes in the place of one operator: several, another, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace

from kneepoint.hardware_models.operators import ONNX_KINDS, Operator, Tensor
from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.tracing import operator_name, source_of

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


def _reciprocal_root(
    _: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]
) -> _Rows:
    """ONNX has a root and a reciprocal."""
    yield replace(_before(operator, tensors, "root", "Sqrt"), function="sqrt")
    inputs = (f"{operation.name}: root",)
    yield replace(operator, inputs=inputs, kind="activation", function="reciprocal")


def _rows(_: Network, operation: Operation, operator: Operator, tensors: MutableMapping[str, Tensor]) -> _Rows:
    """What rows are filled up with is cut off behind a lookup."""
    weight, shape = operator.weight, tensors[operator.output].shape
    if weight is None or weight.format != "packed" or weight.shape[1] == shape[-1]:
        yield operator
        return
    filled = f"{operation.name}: filled"
    tensors[filled] = Tensor(filled, (*shape[:-1], weight.shape[1]))
    yield replace(operator, output=filled)
    yield Operator(f"{operator.name}: cut", ONNX_KINDS["Slice"], (filled,), operator.output, function="Slice")


def _before(operator: Operator, tensors: MutableMapping[str, Tensor], part: str, function: str) -> Operator:
    """An operator of the same shape, which reads what ``operator`` read."""
    output = f"{operator.output}: {part}"
    tensors[output] = Tensor(output, tensors[operator.output].shape)
    kind = ONNX_KINDS.get(function, "activation")
    return replace(operator, name=f"{operator.name}: {part}", kind=kind, output=output, function=function)


_Rows = Iterator[Operator]
_Rule = Callable[[Network, Operation, Operator, MutableMapping[str, Tensor]], _Rows]
_RULES: Mapping[str, _Rule] = {
    "ne": _unequal,
    "rsqrt": _reciprocal_root,
    "embedding": _rows,
    "cumsum": _running_sum,
    "type_as": _converted,
    **dict.fromkeys(_NEUTRAL, _combined),
}
