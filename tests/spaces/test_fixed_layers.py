from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.fixed_layers import fixed_layers
from kneepoint.spaces.network import Network

NetworkOf = Callable[[str], Network]


class Odd(nn.Module):
    """A weight that is computed, one that is added and one that another operator reads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 6))
        self.free = nn.Linear(6, 6)
        self.read_twice = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.randn(6))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.free(x + self.position)
        x = F.linear(x, self.head.weight.tanh().repeat(3, 1))
        return self.head(self.read_twice(x) * self.scale + self.read_twice.weight.sum())


class Tied(nn.Module):
    """An embedding whose weight is the last layer's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Any:
        return self.head(self.body(self.embedding(ids)))


@pytest.fixture(scope="module")
def odd() -> dict[str, str]:
    """The reasons of the odd network."""
    return fixed_layers(Network(Odd().eval(), torch.randn(1, 6)))


def test_every_layer_either_varies_or_has_a_reason(name: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    fixed = fixed_layers(network)
    assert fixed.keys().isdisjoint(network.layers)
    for operation in network.operations:
        assert not operation.weight or operation.layer in network.layers or fixed[operation.layer]


def test_a_tied_embedding_varies() -> None:
    assert not fixed_layers(Network(Tied().eval(), torch.zeros(1, 3, dtype=torch.int64)))


class Both(nn.Module):
    """A kernel that is a convolution's and a transposed convolution's."""

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Any:
        return F.conv_transpose2d(F.relu(self.there(x)), self.there.weight)


def test_a_weight_of_several_kinds_is_fixed_and_says_by_what() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), Both()).eval()
    (why,) = fixed_layers(Network(module, torch.zeros(1, 4, 3, 3))).values()
    assert why == "its weight is stored once, for operators of several kinds (conv, conv_transpose)"


def test_groups_of_a_transposed_convolution_are_fixed() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 4, 2, groups=2))
    fixed = fixed_layers(Network(module.eval(), torch.randn(1, 1, 6, 6)))
    assert fixed == {"1": "the groups of a transposed convolution lie along two axes of its weight"}


def test_a_weight_that_another_operator_reads_is_fixed(odd: dict[str, str]) -> None:
    assert odd["read_twice"] == "operator ReduceSum reads its weight, too, as floats"
    assert odd["position"] == "operator add runs in float"


def test_a_computed_weight_has_no_layer(odd: dict[str, str]) -> None:
    (why,) = [why for name, why in odd.items() if name.startswith("linear")]
    assert why == "its weight is computed, so nothing is stored"
    assert "scale" not in odd  # a vector
    assert "free" not in odd


def test_a_layer_with_a_computed_weight_has_one_name() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    depthwise = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, groups=4))
    network = Network(nn.Sequential(normed, depthwise, nn.Conv2d(4, 5, 1)).eval(), torch.randn(1, 3, 8, 8))
    fixed = fixed_layers(network)
    assert fixed["0"] == fixed["1"] == "its weight is computed, so nothing is stored"
    assert list(network.flow.fixed) == ["0", "1", "2"]
    assert network.flow.fixed["0"].startswith("its weight is computed")
