"""Operators that move nothing, or only move, and are left out of what is exported."""

from __future__ import annotations

from kneepoint.hardware_models import Operator, Tensor
from kneepoint.spaces.moves import tidied

SHAPES = {"x": (1, 2, 3), "a": (1, 3, 2), "b": (1, 2, 3), "c": (1, 6), "d": (6,), "y": (6,)}
TENSORS = {name: Tensor(name, shape) for name, shape in SHAPES.items()}


def test_a_transpose_of_a_transpose_is_one() -> None:
    first = Operator("a", "transpose", ("x",), "a", axes=(0, 2, 1))
    second = Operator("b", "transpose", ("a",), "b", axes=(1, 0, 2))
    (merged,) = tidied((first, second), TENSORS, ("b",))
    assert (merged.inputs, merged.axes) == (("x",), (2, 0, 1))
    assert len(tidied((first, second), TENSORS, ("a", "b"))) == 2


def test_a_view_of_a_view_is_one() -> None:
    first, second = (
        Operator("c", "view", ("x",), "c"),
        Operator("d", "view", ("c",), "d", function="squeeze", axes=(0,)),
    )
    (merged,) = tidied((first, second), TENSORS, ("d",))
    assert (merged.inputs, merged.function, merged.axes) == (("x",), "", ())


def test_a_view_of_the_same_shape_goes() -> None:
    idle, reader = Operator("b", "view", ("x",), "b"), Operator("c", "view", ("b",), "c")
    assert [operator.inputs for operator in tidied((idle, reader), TENSORS, ("c",))] == [("x",)]
    assert tidied((idle,), TENSORS, ("b",)) == (idle,)


def test_a_view_that_is_quantized_stays() -> None:
    tensors = {**TENSORS, "b": Tensor("b", SHAPES["b"], "uint8")}
    assert len(tidied((Operator("b", "view", ("x",), "b"), Operator("c", "view", ("b",), "c")), tensors, ("c",))) == 2
