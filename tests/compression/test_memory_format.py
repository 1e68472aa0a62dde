from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kneepoint.compression.memory_format import channels_last, use_fastest_format_
from kneepoint.compression.simulation import simulate
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.quant_plan import QuantPlan


class Images(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.head = nn.Linear(8 * 36, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.middle(torch.relu(self.stem(x)))).flatten(1))


@pytest.mark.parametrize(("groups", "last"), [(8, True), (1, False)])
def test_depthwise_networks_compute_with_channels_last_and_others_as_they_are(groups: int, last: bool) -> None:
    model, x = Images(groups).eval(), torch.randn(4, 1, 6, 6)
    network = Network(model, x[:1])
    module = simulate(network, network.graph_module, QuantPlan.of(network, Policy()))
    use_fastest_format_(module, network)
    assert (module.get_buffer("stem.weight").stride()[1] == 1) == last
    torch.testing.assert_close(module(x), model(x))
    assert bool(module._forward_pre_hooks) == last


def test_values_stay_the_same_and_only_images_change() -> None:
    for shape in ((2, 1, 3, 4), (2, 5, 3, 4)):
        value = torch.randn(shape)
        assert torch.equal(channels_last(value), value)
        assert channels_last(value).stride()[1] == 1
    flat = torch.randn(2, 3)
    assert channels_last(flat) is flat
    assert channels_last("text") == "text"
