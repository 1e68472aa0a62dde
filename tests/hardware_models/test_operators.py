"""Rows of the operator table."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models import Operator, OperatorTable, Tensor, Weight


def test_a_tensor_takes_bytes_by_its_format() -> None:
    assert (Tensor("a", (2, 3, 4)).elements, Tensor("a", (2, 3, 4)).bytes) == (24, 96)
    assert Tensor("a", (2, 3, 4), "uint8").bytes == 24


@pytest.mark.parametrize(("bits", "packed"), [(2, 3), (4, 5), (8, 9)])
def test_integer_weights_are_packed_with_their_scales(bits: int, packed: int) -> None:
    weight = Weight((1, 1, 3, 3), bits, "int8", channels=1, bias=True)
    assert weight.stored_bytes == packed + 4 + 8
    assert weight.executed_bytes == 9


def test_float_weights_have_no_scales() -> None:
    assert Weight((4, 2), 16, "fp32", 4).stored_bytes == 16
    assert Weight((4, 2), 16, "fp32", 4).executed_bytes == 32


def test_a_table_adds_up_its_operators() -> None:
    weight = Weight((4, 2), channels=4, bias=True)
    operators = (Operator("a", "linear", ("x",), "y", 8, weight), Operator("b", "activation", ("y",), "z"))
    table = OperatorTable(operators, {}, ("x",), ("z",))
    assert (table.macs, table.storage_bytes) == (8, 48)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="got 'convolution' for 'a'"):
        Operator("a", "convolution", ("x",), "y")
