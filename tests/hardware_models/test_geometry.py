"""The sizes that kernels are described by."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.hardware_models import FUSION_RULES, Kernel, Operator, OperatorTable, Tensor, Weight, fuse
from kneepoint.hardware_models.kernels import GEOMETRY


def kernel(operator: Operator, *, out: tuple[int, ...], **given: tuple[int, ...]) -> Kernel:
    """The kernel of one operator, which reads values of the given shapes."""
    tensors = {name: Tensor(name, shape) for name, shape in {**given, "y": out}.items()}
    (found,) = [entry for entry in fuse(OperatorTable((operator,), tensors, tuple(given), ("y",))) if entry.operators]
    return found


def sizes(operator: Operator, *, out: tuple[int, ...], **given: tuple[int, ...]) -> dict[str, int]:
    """The sizes that are not 0."""
    geometry = kernel(operator, out=out, **given).geometry
    return {name: size for name, size in zip(GEOMETRY, geometry, strict=True) if size}


def test_a_convolution_counts_whole_channels() -> None:
    weight = Weight((12, 4, 3, 5), channels=12)
    operator = Operator("c", "grouped_conv", ("x",), "y", 1, weight, kernel=(3, 5), stride=2)
    assert kernel(operator, x=(2, 8, 10, 20), out=(2, 12, 5, 10)).geometry == (2, 8, 12, 2, 10, 20, 5, 10, 3, 5, 2, 0)


def test_a_convolution_of_one_dimension_has_a_height_of_1() -> None:
    operator = Operator("c", "conv", ("x",), "y", 1, Weight((6, 4, 5), channels=6), kernel=(5,), stride=1)
    assert kernel(operator, x=(2, 4, 30), out=(2, 6, 26)).geometry == (2, 4, 6, 1, 1, 30, 1, 26, 1, 5, 1, 0)


def test_windows_of_pools_end_at_the_image() -> None:
    operator = Operator("p", "avg_pool", ("x",), "y", kernel=(64, 64), stride=64)
    found = sizes(operator, x=(1, 8, 4, 4), out=(1, 8, 1, 1))
    assert (found["kernel_height"], found["kernel_width"], found["groups"]) == (4, 4, 8)


@pytest.mark.parametrize(
    ("kind", "x", "out", "macs", "expected"),
    [
        ("linear", (2, 7, 16), (2, 7, 4), 2 * 7 * 16 * 4, {"batch": 1, "in_height": 14, "in_channels": 16}),
        ("linear", (2, 16), (2, 4), 2 * 16 * 4, {"batch": 1, "in_height": 2, "in_channels": 16}),
    ],
)
def test_rows_of_a_linear_layer_are_all_its_leading_axes(
    kind: str, x: tuple[int, ...], out: tuple[int, ...], macs: int, expected: dict[str, int]
) -> None:
    operator = Operator("l", kind, ("x",), "y", macs, Weight((4, 16), channels=4))
    assert sizes(operator, x=x, out=out) == {**expected, "out_channels": 4}


def test_a_product_of_activations_is_many_products() -> None:
    operator = Operator("m", "matmul", ("a", "b"), "y", 2 * 3 * 5 * 7 * 4)
    found = sizes(operator, a=(2, 3, 5, 7), b=(2, 3, 7, 4), out=(2, 3, 5, 4))
    assert found == {"batch": 6, "in_height": 5, "in_channels": 7, "out_channels": 4}


@pytest.mark.parametrize(
    ("axes", "out", "expected"),
    [
        ((2, 3), (2, 5), {"batch": 10, "in_channels": 21, "span": 1}),
        ((1,), (2, 3, 7), {"batch": 2, "in_channels": 5, "span": 21}),
        ((3,), (2, 5, 3, 1), {"batch": 30, "in_channels": 7, "span": 1}),
    ],
)
def test_a_reduction_sees_outer_along_and_inner(
    axes: tuple[int, ...], out: tuple[int, ...], expected: dict[str, int]
) -> None:
    operator = Operator("r", "reduce", ("x",), "y", function="ReduceMean", axes=axes)
    assert sizes(operator, x=(2, 5, 3, 7), out=out) == expected


@pytest.mark.parametrize(
    ("operand", "expected"),
    [
        ((), {"batch": 1, "in_channels": 1, "span": 210}),
        ((7,), {"batch": 30, "in_channels": 7, "span": 7}),
        ((5, 1, 1), {"batch": 10, "in_channels": 5, "span": 21}),
        ((2, 5, 3, 7), {"batch": 1, "in_channels": 210, "span": 210}),
        ((2, 1, 3, 7), {"batch": 10, "in_channels": 42, "span": 21}),
    ],
)
def test_runs_in_which_both_operands_advance_alike(operand: tuple[int, ...], expected: dict[str, int]) -> None:
    operator = Operator("a", "add", ("x",), "y", operand=operand)
    assert sizes(operator, x=(2, 5, 3, 7), out=(2, 5, 3, 7)) == expected


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ((0, 2, 3, 1), {"batch": 2, "in_channels": 5, "out_channels": 21, "groups": 2, "out_height": 5, "span": 1}),
        ((0, 3, 1, 2), {"batch": 2, "in_channels": 15, "out_channels": 7, "groups": 2, "out_height": 15, "span": 1}),
        ((0, 2, 1, 3), {"batch": 2, "in_channels": 5, "out_channels": 3, "groups": 2, "out_height": 7, "span": 7}),
        ((3, 1, 2, 0), {"batch": 1, "in_channels": 2, "out_channels": 105, "groups": 2, "out_height": 2, "span": 1}),
        ((0, 1, 2, 3), {"batch": 1, "span": 210}),
    ],
)
def test_axes_that_change_places_in_a_transpose(axes: tuple[int, ...], expected: dict[str, int]) -> None:
    shape = (2, 5, 3, 7)
    operator = Operator("t", "transpose", ("x",), "y", axes=axes)
    found = sizes(operator, x=shape, out=tuple(shape[axis] for axis in axes))
    assert {name: size for name, size in found.items() if not name.startswith("kernel")} == expected


@pytest.mark.parametrize(("axes", "counts"), [((0, 2, 3, 1), (1, 2)), ((0, 3, 1, 2), (2, 1)), ((0, 1, 3, 2), (1, 1))])
def test_a_transpose_says_how_many_axes_change_places(axes: tuple[int, ...], counts: tuple[int, int]) -> None:
    shape = (2, 5, 3, 7)
    operator = Operator("t", "transpose", ("x",), "y", axes=axes)
    found = sizes(operator, x=shape, out=tuple(shape[axis] for axis in axes))
    assert (found["kernel_height"], found["kernel_width"]) == counts


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@given(SHAPES, st.data())
def test_runs_fill_the_result(shape: tuple[int, ...], data: st.DataObject) -> None:
    operand = tuple(data.draw(st.sampled_from((1, size))) for size in shape)
    operator = Operator("m", "mul", ("x",), "y", operand=operand)
    found = kernel(operator, x=shape, out=shape)
    assert found.geometry[0] * found.geometry[-1] == found.elements == math.prod(shape)


@given(SHAPES, st.data())
def test_what_a_transpose_moves_is_all_there_is(shape: tuple[int, ...], data: st.DataObject) -> None:
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    operator = Operator("t", "transpose", ("x",), "y", axes=axes)
    batch, first, second, *_, span = kernel(operator, x=shape, out=tuple(shape[axis] for axis in axes)).geometry
    assert batch * max(first, 1) * max(second, 1) * span == math.prod(shape)


def test_every_sort_of_kernel_has_as_many_sizes() -> None:
    operator = Operator("o", "other", ("x",), "y", function="Foreign")
    found = fuse(OperatorTable((operator,), {n: Tensor(n, (1, 4)) for n in "xy"}, ("x",), ("y",)), FUSION_RULES)
    assert [len(entry.geometry) for entry in found] == [len(GEOMETRY)]
