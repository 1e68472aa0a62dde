from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.network import LAYER_KINDS, Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.quant_plan import ActivationQuant, QuantPlan

NetworkOf = Callable[[str], Network]


def uniform(network: Network, bits: int = 8) -> QuantPlan:
    layers = {name: layer.admit(LayerPolicy.of_bits(bits)) for name, layer in network.layers.items()}
    return QuantPlan.of(network, Policy.build(layers=layers))


def test_every_variable_layer_has_an_entry_and_its_container(network_of: NetworkOf) -> None:
    network = network_of("residual")
    for bits, container in ((2, "int2"), (4, "int4"), (8, "int8"), (16, "float16"), (32, "float32")):
        weights = uniform(network, bits).weights
        assert weights.keys() == network.layers.keys()
        assert {quant.container for quant in weights.values()} == {container}
    assert (uniform(network, 8).weights["a"].limit, uniform(network, 2).weights["a"].limit) == (127, 1)


@pytest.mark.parametrize("bits", [16, 32])
def test_float_layers_leave_all_values_alone(name: str, bits: int, network_of: NetworkOf) -> None:
    assert uniform(network_of(name), bits).activations == {}


def test_what_an_integer_layer_reads_is_quantized_unless_it_is_an_output(name: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    quantized = set(uniform(network).activations)
    for operation in network.operations:
        if network.varies(operation) and operation.kind in LAYER_KINDS - {"conv_transpose"}:
            assert network.is_tied(operation) or operation.inputs[0] in quantized | set(network.outputs)
    assert quantized.isdisjoint(network.outputs)


def test_only_floats_are_quantized(network_of: NetworkOf) -> None:
    text = network_of("text")
    assert "ids" not in uniform(text).activations
    assert "embedding" not in uniform(text).activations  # "add" is what the layers read


def test_values_between_a_convolution_and_its_clamp_do_not_exist(network_of: NetworkOf) -> None:
    quantized = uniform(network_of("residual")).activations
    assert "conv2d" not in quantized
    assert {"x", "relu_", "conv2d_2", "add_"} <= set(quantized)


class Chain(nn.Module):
    """One of every neighbour that a quantized layer may have."""

    def __init__(self) -> None:
        super().__init__()
        self.swish = nn.Conv2d(1, 4, 3, padding=1)
        self.next = nn.Conv2d(4, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 1)
        self.hidden = nn.Linear(8 * 16, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.hardswish(self.swish(x))
        x = self.next(x)
        left = self.left(x)
        x = torch.cat([F.max_pool2d(x + left, 2), F.max_pool2d(x - left, 2)], 1).flatten(1)
        hidden = F.relu(self.hidden(x))
        return self.head(hidden), hidden, left


@pytest.fixture(scope="module")
def chain() -> Network:
    return Network(Chain(), torch.randn(1, 1, 8, 8))


def test_an_activation_that_is_no_clamp_stands_between_two_quantizers(chain: Network) -> None:
    assert {"conv2d", "hardswish"} <= set(uniform(chain).activations)


def test_sums_follow_their_inputs_and_differences_do_not(chain: Network) -> None:
    quantized = uniform(chain).activations
    assert "conv2d_2" not in quantized  # the left branch is also an output of the network
    assert "add" not in quantized
    assert "sub" not in quantized
    alone = QuantPlan.of(chain, Policy.build(layers={"next": LayerPolicy.of_bits(8)}))
    assert set(alone.activations) == {"hardswish", "conv2d_1"}


def test_a_linear_layer_may_write_floats(chain: Network) -> None:
    quantized = uniform(chain).activations
    assert {"linear", "linear_1", "relu"}.isdisjoint(quantized)  # relu is an output too
    assert "flatten" in quantized


def test_scales_are_filled_in(network_of: NetworkOf) -> None:
    plan = uniform(network_of("residual"))
    filled = plan.with_scales({"a": torch.ones(6)}, {"x": ActivationQuant(0.5, 3)})
    assert filled.weights["a"].scale is not None
    assert filled.weights["b"].scale is None
    assert filled.activations["x"] == ActivationQuant(0.5, 3)
    assert filled.activations.keys() == plan.activations.keys()
    assert plan.weights["a"].scale is None


def test_an_activation_fused_behind_an_integer_linear_layer_is_quantized_too() -> None:
    class Perceptron(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.second(F.relu(self.first(x)))
            return hidden

    network = Network(Perceptron(), torch.randn(2, 6))
    integer_then_float = Policy.build(layers={"first": LayerPolicy.of_bits(8), "second": LayerPolicy.of_bits(16)})
    assert set(QuantPlan.of(network, integer_then_float).activations) == {"x", "relu"}  # a float FusedGemm otherwise
