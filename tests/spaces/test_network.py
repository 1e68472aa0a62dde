from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.network import Layer, Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.errors import SpaceError

NetworkOf = Callable[[str], Network]


def test_batch_norm_behind_a_layer_disappears_and_in_front_of_one_stays(network_of: NetworkOf) -> None:
    assert list(network_of("residual").folds.values()) == ["conv2d"]
    assert network_of("dense").folds == {}
    assert [operation.kind for operation in network_of("dense").operations].count("batch_norm") == 2
    assert list(network_of("unet").folds.values()) == ["conv_transpose2d"]
    assert network_of("tokens").folds == {}  # it works across the linear layer's tokens


def test_batch_norm_without_statistics_cannot_be_folded() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 2, 3))
    assert Network(module, torch.randn(1, 1, 8, 8)).folds == {}


def test_what_does_nothing_is_left_out(network_of: NetworkOf) -> None:
    residual, mobile = network_of("residual"), network_of("mobile")
    assert [name.split("_")[0] for name in residual.identities] == ["dropout"]
    assert [name.split("_")[0] for name in mobile.identities] == ["slice"]
    assert {"dropout", "slice"}.isdisjoint(operation.name.split("_")[0] for operation in mobile.operations)


def test_every_input_of_an_operation_exists(name: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    known = set(network.inputs)
    for operation in network.operations:
        assert known.issuperset(operation.inputs), operation
        known.add(operation.name)
    assert known.issuperset(network.outputs)


def test_kinds_and_activations(network_of: NetworkOf) -> None:
    kinds = {operation.layer: operation.kind for operation in network_of("mobile").operations if operation.layer}
    assert kinds["expand"] == "conv"
    assert kinds["depthwise"] == "depthwise_conv"
    assert kinds["squeeze"] == "linear"
    functions = [op.function for op in network_of("mobile").operations if op.kind == "activation"]
    assert functions[:3] == ["hardswish", "clip", "relu"]
    pools = [op.kind for op in network_of("mobile").operations if "pool" in op.kind]
    assert pools == ["global_avg_pool"] * 4
    blocks = {operation.layer: operation.kind for operation in network_of("blocks").operations if operation.layer}
    assert (blocks["grouped"], blocks["transposed"]) == ("grouped_conv", "conv_transpose")


def test_a_layer_called_twice_is_one_layer(network_of: NetworkOf) -> None:
    assert len(network_of("sequence").layers["twice"].operations) == 2
    assert len(network_of("mobile").layers["squeeze"].operations) == 2


def test_grouped_transposed_convolutions_keep_their_bits_and_tied_embeddings_vary(network_of: NetworkOf) -> None:
    assert network_of("unet").layers["up"].kind == network_of("blocks").layers["transposed"].kind == "conv_transpose"
    assert "depth_up" not in network_of("blocks").layers
    text = network_of("text")
    tied = [operation for operation in text.operations if operation.weight == "head.weight"]
    assert [operation.kind for operation in tied] == ["embedding", "linear"]
    assert (text.layers["head"].kind, text.layers["head"].operations) == ("tied", tuple(entry.name for entry in tied))
    assert all(text.varies(operation) and text.is_tied(operation) for operation in tied)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("w4-g64", "w4-g64"),
        ("w4a8-dynamic-g32", "w4a8-dynamic-g32"),
        ("w4a8", "w4a8-dynamic-g32"),
        ("w3", "w3-g32"),
        ("w8a16", "w8-g32"),
        ("w16", "w32"),
    ],
)
def test_a_tied_weight_is_stored_in_groups(asked: str, given: str, network_of: NetworkOf) -> None:
    assert network_of("text").layers["head"].admit(LayerPolicy.parse(asked)).name == given


@pytest.mark.parametrize(("asked", "given"), [("w4-g64", "w4-g64"), ("w4a8-dynamic-g32", "w4-g32"), ("w4a8", "w4")])
def test_a_table_may_have_scales_of_groups(asked: str, given: str, network_of: NetworkOf) -> None:
    layer = Layer("words", "embedding", "words.weight", ("words",))
    assert layer.admit(LayerPolicy.parse(asked)).name == given


class SameTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.a(x)
        return (x + x) - x.sqrt() * 3


def test_a_value_read_twice_is_listed_twice_and_differences_are_told_from_sums() -> None:
    operations = Network(SameTwice(), torch.randn(1, 3)).operations
    add, sub = (operation for operation in operations if operation.kind == "add")
    assert add.inputs == ("linear", "linear")
    assert (add.function, sub.function) == ("", "sub")


def test_a_computed_weight_is_an_activation() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 3))
            self.k = nn.Parameter(torch.randn(2, 1, 3))
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            y = F.conv1d(x[:, None], self.k * 2)
            return self.head(F.linear(x, self.w.abs())) + y.mean(-1)

    network = Network(Computed(), torch.randn(1, 3))
    kinds = {operation.name: operation.kind for operation in network.operations}
    assert (kinds["linear"], kinds["conv1d"]) == ("matmul", "other")
    assert list(network.layers) == ["head"]


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(SpaceError, match="nothing to compress"):
        Network(nn.ReLU(), torch.randn(1, 3))


def test_a_policy_that_names_what_is_not_there_is_refused(network_of: NetworkOf) -> None:
    network = network_of("residual")
    with pytest.raises(SpaceError, match="it has no layer 'stom'"):
        network.check(Policy.build(layers={"stom": LayerPolicy.of_bits(8)}))
    with pytest.raises(SpaceError, match="it has no channel group 'b'"):
        network.check(Policy.build(keep={"b": 0.5}))


def test_kept_channels_are_rounded_and_never_none(network_of: NetworkOf) -> None:
    network = network_of("residual")
    assert network.channels(Policy.build()) == {"stem": 8, "a": 6, "c": 12}
    assert network.channels(Policy.build(keep={"stem": 0.3, "a": 0.01, "c": 0.125})) == {"stem": 2, "a": 1, "c": 2}


class Returns(nn.Module):
    """It has a layer, and returns something else, too."""

    def __init__(self, stored: bool) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.register_buffer("anchors", torch.ones(3))
        self.stored = stored

    def forward(self, x: Tensor) -> Any:
        return self.head(x), self.anchors if self.stored else x


@pytest.mark.parametrize(
    ("stored", "what"),
    [(True, "the stored tensor 'anchors', which does not depend on the input"), (False, "the input 'x' as it is")],
)
def test_an_output_that_nothing_computes_is_refused(stored: bool, what: str) -> None:
    with pytest.raises(SpaceError, match=f"output 1 is {what}: return it outside forward"):
        Network(Returns(stored).eval(), torch.randn(1, 4))


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_weights_that_are_not_float32_are_refused(kind: torch.dtype) -> None:
    with pytest.raises(SpaceError, match=r"weights must be float32; parameter '0.weight' is .*call model.float\(\)"):
        Network(nn.Sequential(nn.Linear(4, 2)).to(kind).eval(), torch.randn(1, 4, dtype=kind))
