from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from kneepoint.compression.batch_norm import fold
from kneepoint.compression.compressed import with_tensors
from kneepoint.compression.equalization import equalizable, equalize
from kneepoint.spaces.network import Network
from kneepoint.spaces.tracing import tensors_of


class Chains(nn.Module):
    """Pairs through ReLU, a depthwise layer, pooling, flattening and nothing; and those that must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, bias=False)
        self.point = nn.Conv2d(6, 4, 1)
        self.swish = nn.Conv2d(4, 4, 1)
        self.clipped = nn.Conv2d(4, 4, 1)
        self.branch = nn.Conv2d(4, 4, 1)
        self.late = nn.Conv2d(4, 5, 1)
        self.hidden = nn.Linear(20, 7)
        self.deeper = nn.Linear(7, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.point(F.leaky_relu(self.depthwise(F.relu(self.stem(x))), 0.2))
        x = F.relu6(self.clipped(F.hardswish(self.swish(F.relu(x)))))
        x = self.branch(x) + x
        x = F.max_pool2d(F.relu(self.late(x)), 3).flatten(1)
        return self.head(self.deeper(F.relu(self.hidden(x))))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 6)
        self.mix = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Any:
        return self.mix(self.down(F.relu(self.up(x))).transpose(1, 2))


def uneven(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            size = torch.exp(torch.randn(len(parameter)) * 1.5)
            parameter.mul_(size.view(-1, *[1] * (parameter.dim() - 1)))
    return module.eval()


def traced(module: nn.Module, x: Tensor) -> tuple[Network, fx.GraphModule]:
    network = Network(uneven(module), x[:1])
    return network, fold(network, network.graph_module)


def pairs_of(network: Network, folded: fx.GraphModule) -> set[tuple[str, str]]:
    return {(pair.weight.split(".")[0], pair.reader.split(".")[0]) for pair in equalizable(network, folded)}


def test_pairs_are_those_with_homogeneous_operators_between() -> None:
    network, folded = traced(Chains(), torch.randn(2, 1, 8, 8))
    assert pairs_of(network, folded) == {
        ("stem", "depthwise"),
        ("depthwise", "point"),
        ("point", "swish"),
        ("late", "hidden"),
        ("hidden", "deeper"),
        ("deeper", "head"),
    }


def test_a_linear_layer_that_reads_another_axis_is_no_partner() -> None:
    network, folded = traced(Tokens(), torch.randn(2, 5, 6))
    assert pairs_of(network, folded) == {("up", "down")}


def test_the_network_computes_the_same_to_the_last_bit() -> None:
    x = torch.randn(6, 1, 8, 8)
    network, folded = traced(Chains(), x)
    equalized = with_tensors(folded, equalize(network, folded))
    with torch.inference_mode():
        assert torch.equal(equalized(x), folded(x))


def test_ranges_of_the_channels_meet() -> None:
    network, folded = traced(Chains(), torch.randn(2, 1, 8, 8))
    before = dict(tensors_of(folded))
    after = equalize(network, folded)
    assert all(torch.equal(value, before[name]) for name, value in tensors_of(folded).items())
    written = after["point.weight"].flatten(1).abs().amax(1)
    read = after["swish.weight"].abs().amax((0, 2, 3))
    ratios = torch.log2(written / read).abs()
    assert float(ratios.max()) <= 1.0
    unequal = torch.log2(before["point.weight"].flatten(1).abs().amax(1) / before["swish.weight"].abs().amax((0, 2, 3)))
    assert float(unequal.abs().max()) > 1.0
    assert not {"clipped.weight", "branch.weight"} & after.keys()


def test_channels_without_weights_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    network, folded = traced(module, torch.randn(2, 3))
    with torch.no_grad():
        tensors_of(folded)["0.weight"][1] = 0
        tensors_of(folded)["2.weight"][:, 2] = 0
    after = equalize(network, folded)
    assert all(value.isfinite().all() for value in after.values())


def test_nothing_to_equalize() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    network, folded = traced(module, torch.randn(2, 3))
    assert equalize(network, folded) == {}
