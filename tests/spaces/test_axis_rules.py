from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.network import Network
from tests.spaces.cutting import assert_every_group_may_go

Forward = Callable[[Any, Tensor], Any]


class Body(nn.Module):
    """Two convolutions to 12 channels, a head on 12, and what a test puts between them."""

    def __init__(self, forward: Forward, entering: int = 12) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(3, 12, 3, padding=1)
        self.last = nn.Conv2d(entering, 6, 3, padding=1)
        self.head = nn.Linear(6, 2)
        self.gamma = nn.Parameter(torch.rand(12) + 0.5)
        self.between = forward

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.last(self.between(self, x))).mean((2, 3)))


IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def channel_shuffle(net: Any, x: Tensor) -> Any:
    n, c, h, w = (y := net.a(x)).shape
    return y.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)


def unequal_split(net: Any, x: Tensor) -> Any:
    first, second = net.a(x).split([5, 7], dim=1)
    return torch.cat([torch.relu(first), torch.sigmoid(second)], 1)


def chunks_of_pixels(net: Any, x: Tensor) -> Any:
    top, bottom = net.a(x).chunk(2, dim=2)
    return torch.cat([bottom, top], 2)


def stacked(net: Any, x: Tensor) -> Any:
    return torch.stack([net.a(x), net.b(x)], dim=1).amax(1)


def stacked_behind(net: Any, x: Tensor) -> Any:
    left, right = torch.stack([net.a(x), net.b(x)], dim=2).unbind(2)
    return torch.where(left > 0, right, left)


def padded(net: Any, x: Tensor) -> Any:
    return net.a(x) + F.pad(net.b(x)[:, :8], (0, 0, 0, 0, 2, 2))


def unflattened(net: Any, x: Tensor) -> Any:
    return net.a(x).flatten(1).unflatten(1, (12, 8, 8))


def copied_in_turns(net: Any, x: Tensor) -> Any:
    n, c, h, w = (y := net.a(x)).shape
    return y[:, :6].unsqueeze(1).expand(n, 2, 6, h, w).reshape(n, c, h, w)


def normed_rows(net: Any, x: Tensor) -> Any:
    return torch.softmax(net.a(x).flatten(2), -1).view(-1, 12, 8, 8).flip(-1).roll(1, 2)


def largest(net: Any, x: Tensor) -> Any:
    values, _ = net.a(x).max(dim=3)
    return values[..., None].expand(-1, -1, -1, 8) * F.adaptive_max_pool2d(net.b(x), 1)


def normalized(net: Any, x: Tensor) -> Any:
    deviation, mean = torch.std_mean(y := net.a(x), dim=(2, 3), keepdim=True)
    return (y - mean) / (deviation + 1)


def scaled_twice(net: Any, x: Tensor) -> Any:
    scale = net.gamma.view(-1, 1, 1)
    return net.a(x) * scale + scale


def sampled(net: Any, x: Tensor) -> Any:
    grid = F.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), [x.shape[0], 3, 4, 4], align_corners=False)
    return F.grid_sample(net.a(x), grid, align_corners=False)


def copied_shuffle(net: Any, x: Tensor) -> Any:
    n, c, h, w = (y := net.a(x)).shape
    return y.view(n, 3, c // 3, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def merged_batch(net: Any, x: Tensor) -> Any:
    n, c, h, w = x.shape
    return net.a(torch.stack([x, x], 1).view(n * 2, c, h, w)).view(n, 2, 12, h, w).mean(1)


CASES: dict[str, tuple[Forward, int, dict[str, int]]] = {
    "chunk": (lambda net, x: torch.mul(*net.a(x).chunk(2, 1)), 6, {"a": 6}),
    "glu": (lambda net, x: F.glu(net.a(x), 1), 6, {"a": 6}),
    "unequal split": (unequal_split, 12, {"a[0]": 5, "a[1]": 7}),
    "chunks of pixels": (chunks_of_pixels, 12, {"a": 12}),
    "slice": (lambda net, x: net.a(x)[:, 2:-3], 7, {"a[0]": 2, "a[1]": 7, "a[2]": 3}),
    "narrow": (lambda net, x: net.a(x).narrow(1, -4, 4), 4, {"a[0]": 8, "a[1]": 4}),
    "channel shuffle": (channel_shuffle, 12, {"a": 4}),
    "nn.ChannelShuffle": (lambda net, x: F.channel_shuffle(net.a(x), 2), 12, {"a": 6}),
    "pixel shuffle": (lambda net, x: F.pixel_shuffle(net.a(x), 2), 3, {"a": 3}),
    "pixel unshuffle": (lambda net, x: F.pixel_unshuffle(net.a(x), 2), 48, {"a": 12}),
    "stack": (stacked, 12, {"a": 12}),
    "stack behind": (stacked_behind, 12, {"a": 12}),
    "padded": (padded, 12, {"a": 8, "b": 4}),
    "unflatten": (unflattened, 12, {"a": 12}),
    "expand and merge": (copied_in_turns, 12, {"a[0]": 6, "a[1]": 6}),
    "along another axis": (normed_rows, 12, {"a": 12}),
    "maximum with its place": (largest, 12, {"a": 12}),
    "several operands": (lambda net, x: torch.addcmul(net.a(x), net.b(x), net.b(x)).clamp_min(0), 12, {"a": 12}),
    "concatenated pixels": (lambda net, x: torch.cat([net.a(x), net.b(x)], 3), 12, {"a": 12}),
    "select": (lambda net, x: net.a(x).select(3, 2).unsqueeze(3), 12, {"a": 12}),
    "the larger of two": (lambda net, x: torch.max(net.a(x), torch.min(net.a(x), net.b(x))), 12, {"a": 12}),
    "mean with its deviation": (normalized, 12, {"a": 12}),
    "movedim": (lambda net, x: (net.a(x).movedim(1, -1) * net.gamma).movedim(-1, 1), 12, {"a": 12}),
    "a stored vector as a view": (lambda net, x: net.a(x) * net.gamma.view(1, 12, 1, 1), 12, {"a": 12}),
    "a stored vector by indices": (lambda net, x: net.a(x) * net.gamma[None, :, None, None], 12, {"a": 12}),
    "a view read twice": (scaled_twice, 12, {"a": 12}),
    "tiles": (lambda net, x: net.a(x).tile(2, 2) + net.b(x).repeat(1, 1, 2, 2), 12, {"a": 12}),
    "new tensors": (lambda net, x: net.a(x) + x.new_ones(x.shape[0], 1, 8, 8), 12, {"a": 12}),
    "sampled pixels": (sampled, 12, {"a": 12}),
    "copied before it is viewed": (copied_shuffle, 12, {"a": 4}),
    "time and batch merged": (merged_batch, 12, {"a": 12}),
    "channel dropout": (lambda net, x: F.alpha_dropout(F.dropout2d(net.a(x), training=False)), 12, {"a": 12}),
    "norm over pixels": (lambda net, x: torch.linalg.vector_norm(net.a(x), dim=(2, 3), keepdim=True), 12, {"a": 12}),
}


@pytest.mark.parametrize("case", CASES)
def test_channels_follow_and_the_cut_network_equals_the_masked_one(case: str) -> None:
    forward, entering, groups = CASES[case]
    torch.manual_seed(0)
    network = Network(Body(forward, entering).eval(), IMAGE[:1])
    assert network.groups == {**groups, "last": 6}
    assert_every_group_may_go(network, IMAGE)


REFUSED: dict[str, tuple[Forward, int, str]] = {
    "softmax over channels": (lambda net, x: net.a(x).softmax(1), 12, "operator softmax mixes its channels"),
    "mean over channels": (lambda net, x: net.a(x) * net.a(x).mean(1, keepdim=True), 12, "it is summed up"),
    "deviation of everything": (lambda net, x: net.a(x) / (net.a(x).std(False) + 1), 12, "it is summed up"),
    "repeated channels": (lambda net, x: net.a(x).repeat(1, 2, 1, 1), 24, "its channels are repeated"),
    "a stored vector that is read elsewhere": (
        lambda net, x: net.a(x) * net.gamma.view(-1, 1, 1) * net.gamma.view(3, 4).sum(),
        12,
        "gamma is read by operator sum",
    ),
    "every other channel": (lambda net, x: net.a(x)[:, ::2], 6, "it is sliced in steps"),
    "one channel": (lambda net, x: net.a(x)[:, 3].unsqueeze(1) + net.b(x), 12, "single channels are picked"),
    "unbound channels": (lambda net, x: sum(net.a(x).unbind(1)).unsqueeze(1) + net.b(x), 12, "single channels"),
    "reflected channels": (
        lambda net, x: F.pad(net.a(x).permute(0, 2, 1, 3), (0, 0, 1, 1), mode="reflect").permute(0, 2, 1, 3)[:, 1:-1],
        12,
        "channels are added to it",
    ),
    "an unknown operator": (lambda net, x: net.a(x).cumsum(2).sort(1).values, 12, "operator sort is not known"),
    "across the batch": (
        lambda net, x: net.a(x).reshape(-1, 8, 8).reshape(-1, 12, 8, 8),
        12,
        "it is reshaped into the batch",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_mixes_channels_fixes_them_with_a_reason(case: str) -> None:
    forward, entering, reason = REFUSED[case]
    torch.manual_seed(0)
    network = Network(Body(forward, entering).eval(), IMAGE[:1])
    assert reason in network.flow.fixed["a"]
    assert_every_group_may_go(network, IMAGE)
