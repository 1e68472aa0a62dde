from __future__ import annotations

import pytest
import torch
from torch import nn

from kneepoint.spaces.separable import apart, separable_layers, separate, separated_size
from kneepoint.spaces.tracing import tensors_of, trace


def test_a_separable_weight_is_taken_apart_exactly() -> None:
    filters, mixture = torch.randn(6, 1, 3, 3), torch.randn(4, 6, 1, 1)
    full = mixture * filters.squeeze(1)
    found = apart(full)
    torch.testing.assert_close(found[1] * found[0].squeeze(1), full)
    assert separated_size(tuple(full.shape)) == found[0].numel() + found[1].numel()


def test_any_other_one_by_its_largest_singular_value() -> None:
    full = torch.randn(4, 6, 3, 3)
    filters, mixture = apart(full)
    rest = (full - mixture * filters.squeeze(1)).square().sum()
    values = torch.linalg.svdvals(full.transpose(0, 1).reshape(6, 4, 9))
    torch.testing.assert_close(rest, values[:, 1:].square().sum())


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(8, 12, 3, stride=2, padding=1, dilation=2), torch.randn(2, 8, 9, 9)),
        (nn.Conv2d(8, 4, (1, 3), padding="same", bias=False), torch.randn(2, 8, 5, 6)),
        (nn.Conv1d(8, 4, 5), torch.randn(2, 8, 9)),
    ],
)
def test_two_convolutions_take_the_place_of_one(layer: nn.Module, x: torch.Tensor) -> None:
    source = trace(nn.Sequential(layer).eval(), x)
    separated = separate(source)
    assert separated(x).shape == source(x).shape
    names = tensors_of(separated)
    assert {"0.weight", "0.depthwise.weight"} <= names.keys()
    assert names["0.depthwise.weight"].shape[:2] == (8, 1)
    assert set(names["0.weight"].shape[2:]) == {1}
    assert "0.depthwise.weight" not in tensors_of(source)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8)],
    ids=["few", "pointwise", "depthwise"],
)
def test_others_stay(layer: nn.Conv2d) -> None:
    source = trace(layer, torch.randn(2, layer.in_channels, 6, 6))
    shapes = {name: tuple(value.shape) for name, value in tensors_of(source).items()}
    assert separable_layers(source.graph, shapes) == []
    assert tensors_of(separate(source)).keys() == tensors_of(source).keys()
