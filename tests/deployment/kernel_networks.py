"""Small networks with what real ones are made of: residuals, gates, norms over channels, attention, branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]


def _block(inner: int, outer: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer))


class Gated(nn.Module):
    """Inverted residuals with squeeze-and-excitation (Hu et al., CVPR 2018), as in MobileNetV3 and EfficientNet."""

    def __init__(self, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.activation, self.gate = activation, gate
        self.stem = _block(3, 16, 3, 2)
        self.expand = _block(16, 48, 1)
        self.depthwise = _block(48, 48, 3, groups=48)
        self.down, self.up = nn.Conv2d(48, 16, 1), nn.Conv2d(16, 48, 1)
        self.project = _block(48, 16, 1)
        self.last = _block(16, 32, 1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.stem(x))
        y = self.activation(self.depthwise(self.activation(self.expand(x))))
        weights = self.gate(self.up(self.activation(self.down(y.mean((2, 3), keepdim=True)))))
        x = self.activation(self.last(x + self.project(y * weights)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class ChannelsLast(nn.Module):
    """Depthwise convolutions between linear layers over channels, as in ConvNeXt (Liu et al., CVPR 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 2, 2)
        self.depthwise = nn.ModuleList(nn.Conv2d(16, 16, 5, padding=2, groups=16) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(16, 32) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(32, 16) for _ in range(2))
        self.scales = nn.ParameterList(nn.Parameter(torch.full((16,), 0.5)) for _ in range(2))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for depthwise, norm, up, down, scale in zip(
            self.depthwise, self.norms, self.up, self.down, self.scales, strict=False
        ):
            y = norm(depthwise(x).permute(0, 2, 3, 1))
            x = x + (down(F.gelu(up(y))) * scale).permute(0, 3, 1, 2)
        logits: Tensor = self.head(self.norms[2](x.mean((2, 3))))
        return logits


class Transformer(nn.Module):
    """Attention and feed-forward blocks, the norm before them (Vision) or behind them (Text)."""

    def __init__(self, *, before: bool) -> None:
        super().__init__()
        self.before = before
        self.queries, self.keys, self.values, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self.attend(self.first(x))
            return x + self.think(self.second(x))
        x = self.first(self.attend(x) + x)
        normed: Tensor = self.second(self.think(x) + x)
        return normed

    def attend(self, x: Tensor) -> Tensor:
        heads = (
            layer(x).view(x.shape[0], -1, 2, 8).transpose(1, 2) for layer in (self.queries, self.keys, self.values)
        )
        mixed = F.scaled_dot_product_attention(*heads)
        attended: Tensor = self.out(mixed.transpose(1, 2).reshape(x.shape[0], -1, 16))
        return attended

    def think(self, x: Tensor) -> Tensor:
        thought: Tensor = self.down(F.gelu(self.up(x)))
        return thought


class Vision(nn.Module):
    """Patches as tokens, behind a token for the class (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.blocks = nn.Sequential(Transformer(before=True), Transformer(before=True))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


class Text(nn.Module):
    """Words at learned places (Devlin et al., NAACL 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(6, 16)
        self.norm = nn.LayerNorm(16)
        self.blocks = nn.Sequential(Transformer(before=False), Transformer(before=False))
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.places(torch.arange(6)))
        logits: Tensor = self.head(self.blocks(x).mean(1))
        return logits


class Numbered(nn.Module):
    """Words at places that are counted from the first one that is no padding, as in RoBERTa (Liu et al., 2019)."""

    kind_of: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(20, 16), nn.Embedding(8, 16), nn.Embedding(2, 16)
        self.register_buffer("kind_of", torch.zeros(1, 12, dtype=torch.long))
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        real = ids.ne(1).int()
        places = ((torch.cumsum(real, dim=1).type_as(real) + 0) * real).long() + 1
        kinds = torch.gather(self.kind_of.expand(ids.shape[0], -1), 1, places).expand(ids.shape[0], 6)
        logits: Tensor = self.head((self.words(ids) + self.kinds(kinds) + self.places(places)).mean(1))
        return logits


class Branches(nn.Module):
    """Pools, a concatenation, an upsampled path, groups, and a plain head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 16, 3)
        self.left, self.right = _block(16, 16, 3), _block(16, 16, 1)
        self.joined = _block(32, 32, 3, groups=2)
        self.skip = _block(16, 32, 1)
        self.head = nn.Linear(32 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        small = F.interpolate(F.relu(self.left(F.avg_pool2d(x, 2))), scale_factor=2)
        y = torch.cat((small, F.relu(self.right(x))), 1)
        y = F.relu(self.joined(y) + self.skip(x))
        logits: Tensor = self.head(F.max_pool2d(y, 2).flatten(1))
        return logits


def _plain() -> nn.Module:
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


KERNEL_NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "plain": (_plain, lambda n: torch.randn(n, 1, 12, 12)),
    "hardswish": (lambda: Gated(F.hardswish, F.hardsigmoid), lambda n: torch.randn(n, 3, 16, 16)),
    "silu": (lambda: Gated(F.silu, torch.sigmoid), lambda n: torch.randn(n, 3, 16, 16)),
    "channels_last": (ChannelsLast, lambda n: torch.randn(n, 3, 16, 16)),
    "vision": (Vision, lambda n: torch.randn(n, 3, 16, 16)),
    "text": (Text, lambda n: torch.randint(0, 20, (n, 6))),
    "numbered": (Numbered, lambda n: torch.randint(0, 20, (n, 6))),
    "branches": (Branches, lambda n: torch.randn(n, 3, 8, 8)),
}
