from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, fx

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
    assert {key: shapes.seen[key] for key in table.tensors} == {key: t.shape for key, t in table.tensors.items()}


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
    dense = sum(math.prod(op.weight.shape) + op.weight.channels * op.weight.bias for op in table.operators if op.weight)
    assert table.parameters == dense - 11 * 8 + norm  # the tied weight counts once


def test_a_depthwise_convolution_of_one_channel_is_an_ordinary_one(network_of: NetworkOf) -> None:
    table = lower(network_of("mobile"), Policy.build(keep={"expand": 0.1}))
    assert {operator.name: operator.kind for operator in table.operators}["depthwise"] == "conv"


def test_a_table_becomes_a_workload(name: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    policy = Policy.build(layers={layer: LayerPolicy.of_bits(8) for layer in network.layers})
    workload = Workload.of(lower(network, policy), ("activation", "residual"))
    assert len(workload) > 0
    assert int(workload.macs.sum()) == lower(network, policy).macs


def test_an_unknown_name_is_refused(network_of: NetworkOf) -> None:
    with pytest.raises(SpaceError, match="no layer 'nobody'"):
        lower(network_of("residual"), Policy.build(layers={"nobody": LayerPolicy.of_bits(8)}))
