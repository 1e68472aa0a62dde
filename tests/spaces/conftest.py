"""Small networks, one for every way in which channels flow, each traced once a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.network import Network


def image(channels: int = 3, size: int = 8, batch: int = 1) -> Tensor:
    return torch.randn(batch, channels, size, size)


class Residual(nn.Module):
    """Residual adds, in place; one side projected."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.a = nn.Conv2d(8, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 8, 1)
        self.c = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.skip = nn.Conv2d(8, 12, 1, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.act(self.norm(self.stem(x)))
        y = self.b(self.act(self.a(x)))
        y += x
        z = self.c(F.relu(y))
        z += self.skip(y)
        return self.head(self.drop(F.adaptive_avg_pool2d(F.relu_(z), 1).flatten(1)))


class FixedSide(nn.Module):
    """A residual add whose other side is the network's input, and one attention map for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 4, 3, padding=1)
        self.map = nn.Conv2d(4, 1, 1)
        self.c = nn.Conv2d(4, 7, 1)
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Any:
        x = x + self.b(F.relu(self.a(x)))
        x = torch.sigmoid(self.map(x)) * x
        return self.head(torch.tanh(self.c(x)).mean(dim=(2, 3)))


class Mobile(nn.Module):
    """Inverted residual with a depthwise convolution and squeeze-and-excitation, written three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 10, 1, bias=False)
        self.norm = nn.BatchNorm2d(10)
        self.depthwise = nn.Conv2d(10, 10, 3, padding=1, groups=10, bias=False)
        self.norm2 = nn.BatchNorm2d(10)
        self.squeeze = nn.Linear(10, 4)
        self.excite = nn.Linear(4, 10)
        self.squeeze2 = nn.Conv2d(10, 3, 1)
        self.excite2 = nn.Conv2d(3, 10, 1)
        self.project = nn.Conv2d(10, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.hardswish(self.norm(self.expand(x)))
        x = F.relu6(self.norm2(self.depthwise(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1).flatten(1)))))
        x = x * gate.view(gate.shape[0], gate.shape[1], 1, 1)
        gate = F.hardsigmoid(self.excite2(F.relu(self.squeeze2(x.mean((2, 3), keepdim=True)))))
        x *= gate
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(x.mean((2, 3))))))
        return self.head(self.project(x * gate[:, :, None, None]).mean((2, 3)))


class Dense(nn.Module):
    """DenseNet: every layer reads all before it; BatchNorm stands in front."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv1 = nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(13)
        self.conv2 = nn.Conv2d(13, 5, 1)
        self.depthwise = nn.Conv2d(18, 18, 3, padding=1, groups=18)
        self.head = nn.Linear(18 * 16, 3)

    def forward(self, x: Tensor) -> Any:
        a = self.stem(x)
        b = self.conv1(F.relu(self.norm1(a)))
        c = torch.cat([a, b, x], dim=1)
        d = torch.cat([c, self.conv2(F.gelu(self.norm2(c)))], 1)
        return self.head(F.max_pool2d(F.elu(self.depthwise(d)), 2).flatten(1))


class UNet(nn.Module):
    """Transposed convolution, up-sampling and skips; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(1, 4, 3, padding=1)
        self.down2 = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 5, 2, stride=2)
        self.norm = nn.BatchNorm2d(5)
        self.merge = nn.Conv2d(9, 6, 3, padding=1)
        self.wide = nn.Conv2d(14, 3, 3, padding=1)
        self.pooled = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = F.leaky_relu(self.down1(x))
        b = F.relu(self.down2(a))
        merged = F.relu(self.merge(torch.cat([a, F.relu(self.norm(self.up(b)))], 1)))
        up = F.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)
        return {"map": self.wide(torch.cat([merged, up], 1)), "class": self.pooled(b.amax((2, 3)))}


class Flattened(nn.Module):
    """A feature map flattened in front of linear layers, written three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.a = nn.Linear(4 * 9, 6)
        self.b = nn.Linear(4 * 9, 6)
        self.c = nn.Linear(9, 2)
        self.mixed = nn.Conv2d(1, 3, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.max_pool2d(F.relu(self.conv(x)), 2)
        hidden = self.a(y.view(y.size(0), -1)) + self.b(y.reshape(-1, 36))
        rows = self.c(F.max_pool2d(self.mixed(x), 2).flatten(2))
        return self.head(F.relu6(hidden)), rows[..., :1].squeeze(-1)


class Sequence1d(nn.Module):
    """conv1d with ``same`` padding, a module called twice, a buffer that scales channels; two positional inputs."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 4, 3, padding="same")
        self.again = nn.Conv1d(4, 4, 3, padding="same")
        self.lift = nn.Conv1d(4, 6, 1)
        self.side = nn.Conv1d(2, 6, 1)
        self.twice = nn.Conv1d(6, 6, 3, padding=1)
        self.slope = nn.PReLU(6)
        self.register_buffer("scale", torch.rand(6, 1))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        x = self.first(self.first(x)) + self.again(x)
        z = self.lift(x) * self.scale + self.side(y)
        z = self.slope(self.twice(F.relu(self.twice(z))))
        return self.head(F.max_pool1d(z, 2).mean(-1))


class Text(nn.Module):
    """A transformer block with a tied embedding, on keyword inputs; only its feed-forward width is free."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor, input: Tensor) -> Any:  # noqa: A002 - users name arguments so
        x = self.embedding(ids) + input[:, None]
        n, t, d = x.shape
        q, k, v = (layer(x).view(n, t, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mask = (ids > 1) & (ids < 10)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :] | mask[:, None, :, None])
        x = self.norm(x + self.o(mixed.nan_to_num().transpose(1, 2).reshape(n, t, d)))
        x = x + self.down(F.gelu(self.up(x.flatten(0, 1)))).view(n, t, d)
        return self.head(x)


class Functional(nn.Module):
    """Functions on the root's own parameters, keyword arguments, a BatchNorm behind them."""

    constant: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 2, 3, 3))
        self.shift = nn.Parameter(torch.randn(6))
        self.norm = nn.BatchNorm2d(6, affine=False)
        self.matrix = nn.Parameter(torch.randn(5, 6))
        self.head = nn.Linear(5, 2)
        self.constant = torch.rand(5)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(F.conv2d(x, weight=self.weight, bias=self.shift, padding=1))
        x = F.linear(torch.mean(F.relu(x), dim=(2, 3)), self.matrix)
        return self.head(x * self.constant * torch.tensor(2.0))


class Blocks(nn.Module):
    """Channels that go in blocks: grouped convolutions, GroupNorm, chunks; LayerNorm, which none can go through."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2)
        self.free = nn.Conv2d(12, 9, 1)
        self.to_norm = nn.Conv2d(9, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.to_split = nn.Conv2d(4, 6, 1)
        self.shared = nn.Conv2d(3, 6, 1)
        self.last_norm = nn.LayerNorm(6)
        self.tail = nn.Linear(6, 5)
        self.transposed = nn.ConvTranspose2d(5, 4, 2, groups=1)
        self.depth_up = nn.ConvTranspose2d(4, 4, 2, groups=4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.norm(self.to_norm(F.relu(self.free(self.grouped(self.stem(x))))))
        left, right = self.to_split(y).chunk(2, dim=1)
        y = F.relu(self.shared(left * right)).permute(0, 2, 3, 1)
        y = F.relu(self.tail(self.last_norm(y))).permute(0, 3, 1, 2)
        return self.head(self.depth_up(F.relu(self.transposed(y))).mean((2, 3)))


class Tokens(nn.Module):
    """Linear layers on (N, T, C), a BatchNorm and a pooling across the wrong axis, transposing."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.b = nn.Linear(8, 6)
        self.across = nn.Linear(6, 7)
        self.norm = nn.BatchNorm1d(5)
        self.c = nn.Linear(7, 6)
        self.mix = nn.Conv1d(6, 9, 1)
        self.pooled = nn.Linear(9, 10)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.b(F.silu(self.a(x)))
        x = self.c(F.relu(self.norm(self.across(x))))
        x = F.relu(self.mix(x.transpose(1, 2))).transpose(1, 2)
        return self.head(F.max_pool1d(self.pooled(x), 2).mean(1))


class Views(nn.Module):
    """In-place writes to views, a counter, dropout that hands on its input."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.next = nn.Conv2d(6, 4, 3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        self.count += 1
        x = self.norm(self.conv(x))
        part = x[:, :2]
        part.relu_()
        x[:, 3] = 0
        x = self.drop(self.next(x))
        x = F.relu_(x)
        flat = x.view(x.shape[0], 4, -1)
        flat.add_(1.0)
        return self.head(x.mean((2, 3)))


Example = tuple[nn.Module, Any]
EXAMPLES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "residual": (Residual, image),
    "fixed side": (FixedSide, lambda: image(4)),
    "mobile": (Mobile, image),
    "dense": (Dense, image),
    "unet": (UNet, lambda: image(1)),
    "flattened": (Flattened, lambda: image(1)),
    "sequence": (Sequence1d, lambda: (torch.randn(1, 4, 8), torch.randn(1, 2, 8))),
    "text": (Text, lambda: {"ids": torch.randint(2, 9, (1, 5)), "input": torch.randn(1, 8)}),
    "functional": (Functional, lambda: image(2)),
    "blocks": (Blocks, image),
    "tokens": (Tokens, lambda: torch.randn(1, 5, 6)),
    "views": (Views, lambda: image(1)),
}


def unusual_statistics(module: nn.Module) -> None:
    """BatchNorm that would show it if it was left out."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 2.0)
                nn.init.normal_(part.bias)


@pytest.fixture(scope="session")
def example_of() -> Callable[[str], Example]:
    """A module in eval mode and an input, by name; the same ones at every call."""
    made: dict[str, Example] = {}

    def make(name: str) -> Example:
        if name not in made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                build, example_input = EXAMPLES[name]
                module = build()
                with torch.no_grad():
                    unusual_statistics(module)
                made[name] = module.eval(), example_input()
        return made[name]

    return make


@pytest.fixture(scope="session")
def network_of(example_of: Callable[[str], Example]) -> Callable[[str], Network]:
    """The traced network of an example."""
    made: dict[str, Network] = {}

    def make(name: str) -> Network:
        if name not in made:
            made[name] = Network(*example_of(name))
        return made[name]

    return make


@pytest.fixture(params=list(EXAMPLES))
def name(request: pytest.FixtureRequest) -> str:
    """The name of every example in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def batch_of() -> Callable[[str, int], tuple[tuple[Any, ...], dict[str, Any]]]:
    """Fresh inputs of an example for several samples, as positional and keyword arguments."""

    def make(name: str, size: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        samples = [EXAMPLES[name][1]() for _ in range(size)]
        if isinstance(samples[0], dict):
            return (), {key: torch.cat([sample[key] for sample in samples]) for key in samples[0]}
        columns = zip(*samples, strict=True) if isinstance(samples[0], tuple) else [samples]
        return tuple(torch.cat(list(column)) for column in columns), {}

    return make
