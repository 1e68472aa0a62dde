from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from kneepoint.compression.batch_norm import fold
from kneepoint.hardware_models.workload import Workload
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.ranking import best_channels, rank_channels
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import tensors_of
from kneepoint.tasks.errors import SpaceError

NetworkOf = Callable[[str], Network]
BatchOf = Callable[[str, int], tuple[tuple[Any, ...], dict[str, Any]]]


class Shapes(fx.Interpreter):
    """Runs a graph and notes every shape."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.seen[n.name] = tuple(value.shape)
        return value


def deployed(network: Network, policy: Policy) -> fx.GraphModule:
    kept = best_channels(rank_channels(network, network.tensors()), network.channels(policy))
    return fold(network, cut(network, kept))


def everywhere(network: Network, format_: str) -> Policy:
    return Policy.build(
        layers={name: layer.admit(LayerPolicy.parse(format_)) for name, layer in network.layers.items()}
    )


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("batch", [1, 3])
def test_shapes_are_those_of_the_cut_network(
    name: str, keep: float, batch: int, network_of: NetworkOf, batch_of: BatchOf
) -> None:
    network = network_of(name)
    policy = Policy.build(keep=dict.fromkeys(network.groups, keep))
    module = deployed(network, policy)
    args, kwargs = batch_of(name, batch)
    shapes = Shapes(module)
    shapes.run(*(list(args) or [kwargs[key] for key in ("ids", "input")]))
    table = lower(network, policy, batch)
    found = {key: tensor.shape for key, tensor in table.tensors.items() if ": " not in key}  # parts of attention apart
    assert found == {key: shapes.seen[key] for key in found}


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_parameters_are_those_of_the_cut_network(name: str, keep: float, network_of: NetworkOf) -> None:
    network = network_of(name)
    policy = Policy.build(keep=dict.fromkeys(network.groups, keep))
    stored = tensors_of(deployed(network, policy))
    counted = [value for key, value in stored.items() if "running_" not in key and value.dim()]
    expected = sum(value.numel() for value in counted)
    assert lower(network, policy).parameters == expected


def test_names_are_unique_and_those_of_layers(name: str, network_of: NetworkOf) -> None:
    names = [operator.name for operator in lower(network_of(name), Policy.build()).operators]
    assert len(set(names)) == len(names)
    assert set(network_of(name).layers) <= set(names)


def test_macs(network_of: NetworkOf) -> None:
    macs = {operator.name: operator.macs for operator in lower(network_of("residual"), Policy.build()).operators}
    assert macs["stem"] == 8 * 64 * 3 * 9
    assert macs["head"] == 60
    unet = {operator.name: operator.macs for operator in lower(network_of("unet"), Policy.build()).operators}
    assert unet["up"] == 8 * 16 * 5 * 4
    mobile = {operator.name: operator.macs for operator in lower(network_of("mobile"), Policy.build()).operators}
    assert mobile["depthwise"] == 10 * 64 * 9
    tokens = lower(network_of("text"), Policy.build())
    assert {operator.name: operator.macs for operator in tokens.operators}["up"] == 5 * 8 * 16


def test_macs_grow_with_the_batch(name: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    assert lower(network, Policy.build(), batch=4).macs == 4 * lower(network, Policy.build()).macs


def test_formats(network_of: NetworkOf) -> None:
    network = network_of("residual")
    policy = Policy.build(layers={"stem": LayerPolicy.of_bits(4), "b": LayerPolicy.of_bits(16)})
    table = lower(network, policy)
    weights = {operator.name: operator.weight for operator in table.operators if operator.weight}
    assert (weights["stem"].stored_bits, weights["stem"].format) == (4, "int8")
    assert (weights["b"].stored_bits, weights["b"].format) == (16, "fp32")
    assert (weights["a"].stored_bits, weights["a"].format) == (32, "fp32")
    assert {key for key, tensor in table.tensors.items() if tensor.format == "uint8"} == {"x", "relu_"}


def test_the_bytes_are_what_the_formula_says(network_of: NetworkOf) -> None:
    network = network_of("residual")
    policy = Policy.build(layers={layer: LayerPolicy.of_bits(4) for layer in network.layers})
    expected = sum(
        math.ceil(math.prod(network.parameter_shapes[layer.weight]) / 2)
        + 3 * 4 * network.parameter_shapes[layer.weight][0]
        for layer in network.layers.values()
    )
    zero_points = network.parameter_shapes["head.weight"][0]
    assert lower(network, policy).storage_bytes == expected + zero_points


def test_embeddings_and_norms_count(network_of: NetworkOf) -> None:
    table = lower(network_of("text"), Policy.build())
    assert [operator.weight is not None for operator in table.operators if operator.kind == "embedding"] == [True]
    norm = 2 * 8
    weights = sum(operator.weight.elements for operator in table.operators if operator.weight)
    dense = weights + sum(operator.bias.channels for operator in table.operators if operator.bias)
    assert table.parameters == dense - 11 * 8 + norm  # the tied weight counts once


def test_a_depthwise_convolution_of_one_channel_is_an_ordinary_one(network_of: NetworkOf) -> None:
    table = lower(network_of("mobile"), Policy.build(keep={"expand": 0.1}))
    assert {operator.name: operator.kind for operator in table.operators}["depthwise"] == "conv"


def test_a_table_becomes_a_workload(name: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    policy = everywhere(network, "w8a8")
    workload = Workload.of(lower(network, policy), ("activation", "residual"))
    assert len(workload) > 0
    assert int(workload.macs.sum()) == lower(network, policy).macs


def test_an_unknown_name_is_refused(network_of: NetworkOf) -> None:
    with pytest.raises(SpaceError, match="no layer 'nobody'"):
        lower(network_of("residual"), Policy.build(layers={"nobody": LayerPolicy.of_bits(8)}))


@pytest.mark.parametrize(
    ("format_", "stored_bits", "held", "scales", "zero_points"),
    [
        ("w3a8", 4, "int8", 16, 16),
        ("w8a8-dynamic", 8, "int8", 16, 0),
        ("w6", 8, "fp32", 16, 0),
        ("w1", 2, "fp32", 16, 0),
        ("w16", 16, "fp32", 0, 0),
        ("w4a16", 4, "fp32", 16, 0),
        ("w4-g32", 4, "packed", 16, 0),
    ],
)
def test_formats_of_a_linear_layer(
    network_of: NetworkOf, format_: str, stored_bits: int, held: str, scales: int, zero_points: int
) -> None:
    network = network_of("text")
    table = lower(network, Policy.build(layers={"up": LayerPolicy.parse(format_)}))
    (up,) = [operator for operator in table.operators if operator.name == "up"]
    assert up.weight is not None
    assert (up.weight.stored_bits, up.weight.format) == (stored_bits, held)
    assert (up.weight.scales, up.weight.zero_points) == (scales, zero_points)
    assert up.dynamic == ("dynamic" in format_)
    assert table.tensors[up.inputs[0]].format == {"w3a8": "uint8", "w4a16": "uint16"}.get(format_, "fp32")


@pytest.mark.parametrize(("format_", "held", "scales"), [("w4", "int8", 20), ("w16", "fp16", 0), ("w32", "fp32", 0)])
def test_formats_of_a_table(format_: str, held: str, scales: int) -> None:
    network = Network(Positions(), torch.zeros(2, 6, dtype=torch.long))
    words, *others = lower(network, Policy.build(layers={"words": LayerPolicy.parse(format_)})).operators
    assert words.weight is not None
    assert (words.weight.format, words.weight.scales) == (held, scales)
    assert others


class Positions(nn.Module):
    """Words at fixed places, and attention that sees the past alone."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.places = nn.Embedding(6, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        logits: Tensor = self.head(nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True))
        return logits


def test_what_depends_on_no_input_is_no_operator() -> None:
    network = Network(Positions(), torch.zeros(2, 6, dtype=torch.long))
    table = lower(network, everywhere(network, "w8"))
    assert [operator.kind for operator in table.operators] == [
        "embedding", "add", "mul", "transpose", "matmul", "add", "softmax", "matmul", "linear",
    ]  # fmt: skip
    (places,) = table.folded
    assert (places.name, places.stored_bytes) == ("places.weight", 6 * 8 + 4 * 6)
    assert table.parameters == 20 * 8 + 6 * 8 + 8 * 4 + 4
    assert table.storage_bytes == (20 * 8 + 4 * 20) + places.stored_bytes + (8 * 4 + 4 * 4 + 4 * 4)
    assert table.macs == 2 * 6 * 6 * 8 + 6 * 8 * 4


class RepeatedPositions(Positions):
    """Places are repeated for every sample, as Transformers does."""

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1]).expand(ids.shape[0], -1)
        logits: Tensor = self.head(self.words(ids) + self.places(places))
        return logits


def test_what_depends_on_no_input_is_the_same_for_every_sample() -> None:
    network = Network(RepeatedPositions(), torch.zeros(2, 6, dtype=torch.long))
    table = lower(network, everywhere(network, "w32"), batch=5)
    added = next(operator for operator in table.operators if operator.kind == "add")
    assert (table.tensors[added.output].shape, added.operand) == ((5, 6, 8), (1, 6, 8))
