"""A network in the precision a runtime was given it in."""

from __future__ import annotations

from dataclasses import replace

from kneepoint.hardware_models.operators import Operator, OperatorTable


def quantized(table: OperatorTable) -> OperatorTable:
    """All activations in bytes, all weights in bytes with a scale for every output channel, biases in int32."""
    tensors = {name: replace(tensor, format="uint8") for name, tensor in table.tensors.items()}
    return replace(table, operators=tuple(map(_quantized, table.operators)), tensors=tensors)


def _quantized(operator: Operator) -> Operator:
    weight, bias = operator.weight, operator.bias
    if weight is None:
        return operator
    weight = replace(weight, stored_bits=8, format="int8", scales=weight.channels)
    return replace(operator, weight=weight, bias=replace(bias, scales=bias.channels) if bias else None)
