from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.surgery import cut
from tests.spaces.cutting import assert_every_group_may_go

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def sequence(*layers: nn.Module) -> nn.Module:
    """The layers, then global pooling and a linear layer on as many channels as come out."""
    torch.manual_seed(0)
    body = nn.Sequential(*layers)
    with torch.no_grad():
        channels = body(IMAGE).shape[1]
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)).eval()


def conv(entering: int, leaving: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, padding=1, groups=groups)


CASES: dict[str, tuple[list[nn.Module], dict[str, int]]] = {
    "groups of a convolution": ([conv(3, 12), nn.ReLU(), conv(12, 12, 4)], {"0.0": 4}),
    "more leave than enter": ([conv(3, 8), conv(8, 24, 4), conv(24, 5)], {"0.0": 4, "0.2": 5}),
    "depthwise, three times": ([conv(3, 6), conv(6, 18, 6), nn.BatchNorm2d(18)], {"0.0": 6}),
    "groups of groups": ([conv(3, 24), conv(24, 24, 6), conv(24, 24, 4)], {"0.0": 2}),
    "grouped, transposed": ([conv(3, 8), nn.ConvTranspose2d(8, 12, 2, 2, groups=4)], {"0.0": 4}),
    "GroupNorm": ([conv(3, 12), nn.GroupNorm(3, 12), nn.SiLU(), conv(12, 4)], {"0.0": 3, "0.3": 4}),
    "GroupNorm on channels": ([conv(3, 6), nn.GroupNorm(6, 6), conv(6, 4)], {"0.0": 6, "0.2": 4}),
    "GroupNorm without weights": ([conv(3, 12), nn.GroupNorm(4, 12, affine=False)], {"0.0": 4}),
    "InstanceNorm": ([conv(3, 6), nn.InstanceNorm2d(6, affine=True), conv(6, 4)], {"0.0": 6, "0.2": 4}),
    "norm and groups": ([conv(3, 24), nn.GroupNorm(4, 24), conv(24, 24, 3), conv(24, 4)], {"0.3": 4}),
    "norm and finer groups": ([conv(3, 24), nn.GroupNorm(4, 24), conv(24, 24, 12)], {"0.0": 4}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_blocks_of_channels_go_together(case: str) -> None:
    layers, groups = CASES[case]
    network = Network(sequence(*layers), IMAGE[:1])
    assert network.groups == groups
    assert_every_group_may_go(network, IMAGE)


def test_a_norm_over_everything_is_fixed_and_says_so() -> None:
    network = Network(sequence(conv(3, 8), nn.GroupNorm(1, 8), conv(8, 4)), IMAGE[:1])
    assert network.groups == {"0.2": 4}
    assert network.flow.fixed["0.0"] == "operator group_norm takes one mean over all of it"


def test_groups_of_a_convolution_on_the_input_are_fixed() -> None:
    network = Network(sequence(conv(3, 6, 3), conv(6, 4)), IMAGE[:1])
    assert network.groups == {"0.1": 4}
    assert network.flow.fixed["0.0"].startswith("it depends on fixed channels")


class Mixed(nn.Module):
    """A GroupNorm whose groups lie across two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = conv(3, 6), conv(3, 4), nn.GroupNorm(2, 10)
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(torch.cat([self.a(x), self.b(x)], 1)).mean((2, 3)))


def test_a_norm_across_layers_is_fixed_and_says_so() -> None:
    network = Network(Mixed().eval(), IMAGE[:1])
    why = "operator group_norm takes one mean over groups of channels that come from several layers"
    assert network.flow.fixed == {"a": why, "b": why, "head": "it is an output of the network"}


class Words(nn.Module):
    """An embedding, read by a convolution; the same table turns features into words again."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.mix = nn.Conv1d(8, 6, 3, padding=1)
        self.back = nn.Linear(6, 8)

    def forward(self, ids: Tensor) -> Any:
        x = F.relu(self.mix(self.table(ids).transpose(1, 2))).transpose(1, 2)
        return F.linear(self.back(x), self.table.weight)


def test_the_features_of_an_embedding_may_go_and_its_words_stay() -> None:
    torch.manual_seed(0)
    network = Network(Words().eval(), torch.tensor([[1, 2, 3, 4, 5]]))
    assert network.groups == {"table": 8, "mix": 6}
    assert_every_group_may_go(network, torch.tensor([[1, 2, 3, 4, 5], [8, 0, 7, 7, 1]]))


def test_a_layer_norm_on_other_axes_lets_channels_pass() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.head = conv(3, 6), nn.LayerNorm((8, 8)), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.norm(self.a(x)).amax((2, 3)))

    network = Network(Rows().eval(), IMAGE[:1])
    assert network.groups == {"a": 6}
    assert_every_group_may_go(network, IMAGE)


def test_kept_fractions_count_blocks() -> None:
    network = Network(sequence(conv(3, 12), nn.GroupNorm(3, 12), conv(12, 12, 3)), IMAGE[:1])
    assert network.channels(Policy.build(keep={"0.0": 0.6})) == {"0.0": 2}
    small = cut(network, {"0.0": torch.tensor([0, 2])})
    numbers = {node.name: node.args for node in small.graph.nodes}
    assert numbers["group_norm"][1] == 2
    assert numbers["conv2d_1"][6] == 2
