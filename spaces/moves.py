"""Operators that only give elements other places: the exporter leaves out what it can, and so does pricing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kneepoint.hardware_models.operators import Operator, Tensor

_REMOVABLE = frozenset({"transpose", "view"})
_EXPAND = "Expand"


def tidied(
    operators: Iterable[Operator], tensors: Mapping[str, Tensor], outputs: Sequence[str]
) -> tuple[Operator, ...]:
    """Operators as they are exported.

    A transpose of a transpose, and a view of a view, read what the first one reads, which goes if nobody else needs it;
    a view, or an expansion, that gives the shape it finds goes, too.
    """
    before: dict[str, Operator] = {}
    alias: dict[str, str] = {}
    merged: list[Operator] = []
    for operator in operators:
        inputs = tuple(alias.get(name, name) for name in operator.inputs)
        operator = replace(operator, inputs=inputs) if inputs != operator.inputs else operator
        if len(inputs) == 1 and _is_idle(operator, tensors) and operator.output not in outputs:
            alias[operator.output] = inputs[0]
            continue
        if operator.kind in _REMOVABLE and len(inputs) == 1:
            operator = _merged(operator, before.get(inputs[0]), tensors)
            before[operator.output] = operator
        merged.append(operator)
    return _read_ones(merged, outputs)


def _is_idle(operator: Operator, tensors: Mapping[str, Tensor]) -> bool:
    if operator.kind != "view" and operator.function != _EXPAND:
        return False
    source, output = tensors[operator.inputs[0]], tensors[operator.output]
    return source.shape == output.shape and output.format in ("fp32", source.format)


def _merged(operator: Operator, first: Operator | None, tensors: Mapping[str, Tensor]) -> Operator:
    if first is None or first.kind != operator.kind or tensors[first.output].format != "fp32":
        return operator
    if operator.kind == "view":
        kept = tensors[operator.output].shape[:1] == tensors[first.inputs[0]].shape[:1]
        return replace(operator, inputs=first.inputs, function="", axes=(0,) if kept else ())
    axes = tuple(first.axes[axis] for axis in operator.axes)
    return replace(operator, inputs=first.inputs, axes=axes)


def _read_ones(operators: Sequence[Operator], outputs: Sequence[str]) -> tuple[Operator, ...]:
    """Those whose results lead to an output of the network."""
    read, kept = set(outputs), []
    for operator in reversed(operators):
        if operator.output in read:
            kept.append(operator)
            read.update(operator.inputs)
    return tuple(reversed(kept))
