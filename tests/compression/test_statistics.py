from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression.batch_norm import fold
from kneepoint.compression.statistics import InputStatistics, cut_statistics, input_statistics
from kneepoint.spaces.network import Network

CONVOLUTIONS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "plain": (nn.Conv2d(4, 6, 3), (4, 7, 5)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (4, 7, 5)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=2), (4, 7, 5)),
    "same": (nn.Conv2d(4, 6, (5, 3), padding="same"), (4, 7, 5)),
    "valid": (nn.Conv2d(4, 6, 2, padding="valid"), (4, 7, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 7, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, padding=1, groups=4), (4, 7, 5)),
    "one-dimensional": (nn.Conv1d(4, 6, 3, padding=1), (4, 9)),
    "three-dimensional": (nn.Conv3d(2, 3, 2, stride=2), (2, 4, 5, 4)),
    "linear": (nn.Linear(5, 3), (7, 5)),
}


class Behind(nn.Module):
    """A layer whose output somebody reads."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return F.relu(self.layer(x))


def gathered(module: nn.Module, inputs: list[Any], **options: int) -> dict[str, InputStatistics]:
    network = Network(module.eval(), inputs[0][:1])
    return input_statistics(network, fold(network, network.graph_module), inputs, **options)


@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_products_of_patches_are_the_layer_s_outputs(name: str) -> None:
    """The mean of a layer without bias is its weight times the mean patch, and the same for squares and products."""
    layer, shape = CONVOLUTIONS[name]
    torch.manual_seed(0)
    inputs = [torch.randn(6, *shape) + 0.5 for _ in range(3)]
    known = gathered(Behind(layer), inputs, rows=10**6)["layer"]
    weight, groups = layer.weight.detach().flatten(1), len(known.mean)
    outputs = layer(torch.cat(inputs)).detach()
    if name != "linear":
        outputs = outputs.movedim(1, -1)
    outputs = (outputs - layer.bias.detach()).flatten(0, -2)
    grouped = weight.unflatten(0, (groups, -1))
    mean = torch.bmm(grouped, known.mean.unsqueeze(2)).flatten()
    torch.testing.assert_close(mean, outputs.mean(0), rtol=1e-4, atol=1e-5)
    assert known.moment is not None
    square = (torch.bmm(grouped, known.moment) * grouped).sum(2).flatten()
    torch.testing.assert_close(square, outputs.square().mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(known.moment.diagonal(dim1=1, dim2=2), known.square, rtol=1e-4, atol=1e-5)


def test_a_sample_of_rows_stands_for_all_of_them() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1)
    inputs = [torch.randn(32, 2, 8, 8) for _ in range(4)]
    some, every = (gathered(Behind(layer), inputs, rows=rows)["layer"] for rows in (2000, 10**6))
    assert torch.equal(some.mean, every.mean)
    assert some.covariance is not None
    assert every.covariance is not None
    assert not torch.equal(some.covariance, every.covariance)
    assert float((some.covariance - every.covariance).abs().max()) < 0.15
    assert float(torch.linalg.eigvalsh(some.covariance).min()) > -1e-6


def test_patches_too_wide_have_no_covariance() -> None:
    known = gathered(Behind(nn.Linear(8, 3)), [torch.randn(4, 8)], widest=7)["layer"]
    assert known.covariance is None
    assert known.moment is None
    assert known.square.shape == (1, 8)
    assert known.of_channels(torch.tensor([1, 5])).square.shape == (1, 2)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.up = nn.ConvTranspose1d(1, 2, 2)

    def forward(self, x: Tensor) -> Any:
        return self.up(self.layer(self.layer(x) * 2).unsqueeze(1))


def test_calls_of_one_layer_are_taken_together_and_transposed_ones_left_out() -> None:
    torch.manual_seed(0)
    module, x = Twice(), torch.randn(16, 4)
    found = gathered(module, [x])
    assert list(found) == ["layer"]
    second = module.layer(x).detach() * 2
    torch.testing.assert_close(found["layer"].mean[0], torch.cat([x, second]).mean(0), rtol=1e-4, atol=1e-6)


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.point = nn.Conv2d(4, 6, 2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.point(F.relu(self.depthwise(F.relu(self.stem(x)))))).mean((2, 3)))


def test_a_narrower_network_takes_its_part() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(5, 1, 8, 8) for _ in range(2)]
    network = Network(Chain().eval(), inputs[0][:1])
    full = input_statistics(network, network.graph_module, inputs)
    cut = cut_statistics(network, full, {"stem": torch.tensor([1, 3])})
    assert cut["stem"] is full["stem"]
    assert cut["head"] is full["head"]
    assert torch.equal(cut["depthwise"].mean, full["depthwise"].mean[[1, 3]])
    columns = [4, 5, 6, 7, 12, 13, 14, 15]
    assert cut["point"].covariance is not None
    assert full["point"].covariance is not None
    assert torch.equal(cut["point"].covariance, full["point"].covariance[:, columns][:, :, columns])
    assert torch.equal(cut["point"].square, full["point"].square[:, columns])


def test_a_layer_that_reads_infinities_has_no_statistics() -> None:
    assert gathered(Behind(nn.Linear(4, 2)), [torch.full((2, 4), torch.inf)]) == {}


def test_a_small_spread_around_a_large_mean_is_not_lost() -> None:
    torch.manual_seed(0)
    known = gathered(Behind(nn.Linear(6, 3)), [torch.randn(200, 6) + 3000 for _ in range(4)])["layer"]
    assert known.covariance is not None
    torch.testing.assert_close(known.covariance[0], torch.eye(6), rtol=0.15, atol=0.15)
