from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from kneepoint.spaces.einsum import Einsum
from kneepoint.spaces.tracing import operator_name, trace


def einsum_of(equation: str, *shapes: tuple[int, ...]) -> Einsum | None:
    class Product(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Any:
            return torch.einsum(equation, first, second)

    graph = trace(Product(), tuple(torch.randn(2, *shape) for shape in shapes)).graph
    (node,) = (node for node in graph.nodes if operator_name(node) == "einsum")
    assert isinstance(node, fx.Node)
    return Einsum.of(node)


def test_letters_are_axes() -> None:
    found = einsum_of("bhtd,bhsd->bhts", (3, 4, 5), (3, 6, 5))
    assert found is not None
    assert (found.letters, found.result) == (("bhtd", "bhsd"), "bhts")
    assert found.axis_of(1, "s") == 2
    assert found.axis_of(0, "s") is None
    assert [axis for _, axis in found.shared_axes()] == [1, 1]


def test_without_an_arrow_the_letters_that_stand_once_remain_in_order() -> None:
    found = einsum_of("bij,bkj", (3, 4), (5, 4))
    assert found is not None
    assert found.result == "ik"


@pytest.mark.parametrize("equation", ["b...d,b...d->b...", "...ij,...jk->...ik"])
def test_an_ellipsis_is_not_read(equation: str) -> None:
    assert einsum_of(equation, (3, 3), (3, 3)) is None
