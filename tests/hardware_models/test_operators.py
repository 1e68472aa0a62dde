"""Rows of the operator table."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models import Bias, Operator, OperatorTable, Tensor, Weight


def test_a_tensor_takes_bytes_by_its_format() -> None:
    assert (Tensor("a", (2, 3, 4)).elements, Tensor("a", (2, 3, 4)).bytes) == (24, 96)
    assert Tensor("a", (2, 3, 4), "uint8").bytes == 24
    assert Tensor("a", (2, 3, 4), "uint16").bytes == 48


@pytest.mark.parametrize(("bits", "packed"), [(2, 3), (4, 5), (8, 9)])
def test_integer_weights_are_packed_with_their_scales(bits: int, packed: int) -> None:
    weight = Weight((1, 1, 3, 3), bits, "int8", channels=1, scales=1, zero_points=1)
    assert weight.stored_bytes == packed + 4 + 1
    assert weight.executed_bytes == 9


def test_float_weights_have_no_scales() -> None:
    assert Weight((4, 2), 16, "fp32", 4).stored_bytes == 16
    assert Weight((4, 2), 16, "fp32", 4).executed_bytes == 32


def test_a_table_adds_up_its_operators() -> None:
    weight, bias = Weight((4, 2), channels=4), Bias(4)
    operators = (Operator("a", "linear", ("x",), "y", 8, weight, bias=bias), Operator("b", "activation", ("y",), "z"))
    table = OperatorTable(operators, {}, ("x",), ("z",))
    assert (table.macs, table.storage_bytes, table.resident_bytes, table.layer_parameters) == (8, 48, 48, 12)


def test_what_calls_share_is_stored_once() -> None:
    weight = Weight((4, 2), 8, "int8", 4, "w", scales=4)
    biases = (Bias(4, "first", scales=4), Bias(4, "second", scales=4), Bias(4, "second", scales=4))
    operators = tuple(Operator(f"o{i}", "linear", ("x",), "y", 8, weight, bias=bias) for i, bias in enumerate(biases))
    table = OperatorTable(operators, {}, ("x",), ("y",))
    assert table.storage_bytes == 8 + 16 + 2 * 32
    assert table.layer_parameters == 8 + 2 * 4


@pytest.mark.parametrize(("bits", "features", "packed"), [(4, 40, 2 * 16), (2, 40, 2 * 8), (8, 64, 64), (4, 8, 16)])
def test_groups_are_filled_up_and_stay_packed(bits: int, features: int, packed: int) -> None:
    groups = -(-features // 32)
    weight = Weight((3, features), bits, "packed", 3, scales=3 * groups, group_size=32)
    assert weight.packed_bytes == 3 * packed
    assert weight.stored_bytes == weight.executed_bytes == 3 * (packed + 4 * groups)


def test_what_a_kernel_reads() -> None:
    read = {name: Weight((6, 2), 4, name).executed_bytes for name in ("fp32", "fp16", "int8")}
    assert read == {"fp32": 48, "fp16": 24, "int8": 12}


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="got 'convolution' for 'a'"):
        Operator("a", "convolution", ("x",), "y")
