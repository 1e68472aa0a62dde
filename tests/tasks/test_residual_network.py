from __future__ import annotations

import pytest
import torch
from torch import nn

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.residual_network import ResidualNet


def names(network: nn.Module) -> set[str]:
    return {name for name, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d)}


def test_the_names_of_a_shallow_network_are_among_those_of_a_deep_one() -> None:
    assert names(ResidualNet(2, 1)) < names(ResidualNet(4, 2)) < names(ResidualNet(2, 3))
    assert {"stem", "stages.0.0.conv1", "stages.1.0.shortcut.0", "head"} < names(ResidualNet(2, 1))


def test_logits_of_any_batch_size_and_resolution() -> None:
    network = ResidualNet(width=4, depth=2, channels=3, classes=7)
    assert network(torch.randn(5, 3, 12, 12)).shape == (5, 7)
    assert network.eval()(torch.randn(1, 3, 9, 9)).shape == (1, 7)


def test_convolutions_and_widths() -> None:
    network = ResidualNet(width=4, depth=2)
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == 1 + 3 * 2 * 2 + 2
    assert max(part.out_channels for part in convolutions) == 16


@pytest.mark.parametrize(("width", "depth"), [(0, 1), (4, 0)])
def test_nothing_is_refused(width: int, depth: int) -> None:
    with pytest.raises(TaskError, match=f"at least 1, got width {width} and depth {depth}"):
        ResidualNet(width, depth)
