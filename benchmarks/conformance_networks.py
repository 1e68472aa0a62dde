"""Networks as users write them, one for every way to write one, small and with random weights."""

# ruff: noqa: D102 - what forward does is said by its class
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Architecture:
    """One row of the conformance table.

    Attributes:
        family: Under which heading it stands.
        build: A new module, its weights drawn from torch's global generator.
        example: One input of one sample: a tensor, a tuple or a dict.
    """

    family: str
    build: Callable[[], nn.Module]
    example: Callable[[], Any]


def image(channels: int = 3, size: int = 16) -> Callable[[], Tensor]:
    """A maker of images."""
    return lambda: torch.randn(1, channels, size, size)


def block(channels_in: int, channels: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    convolution = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def head(channels: int, classes: int = 10) -> nn.Sequential:
    """Global pooling and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Residual(nn.Module):
    """Adds, one of them with a projected skip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.first = nn.Sequential(block(16, 12), nn.Conv2d(12, 16, 3, padding=1))
        self.second = nn.Sequential(block(16, 24, stride=2), nn.Conv2d(24, 32, 3, padding=1))
        self.skip = nn.Conv2d(16, 32, 1, stride=2)
        self.head = head(32)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = F.relu(x + self.first(x))
        return self.head(F.relu(self.second(x) + self.skip(x)))


class PaddedShortcut(nn.Module):
    """A residual add whose skip is padded with channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.body = nn.Sequential(block(8, 12), nn.Conv2d(12, 16, 3, padding=1))
        self.head = head(16)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        return self.head(F.relu(self.body(x) + F.pad(x, (0, 0, 0, 0, 4, 4))))


class Dense(nn.Module):
    """Every layer reads the concatenation of all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        widths = [8 + 6 * depth for depth in range(3)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.layers = nn.ModuleList(nn.Conv2d(width, 6, 3, padding=1) for width in widths)
        self.transition = nn.Sequential(nn.Conv2d(26, 12, 1), nn.AvgPool2d(2))
        self.head = head(12)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(F.relu(norm(x)))], dim=1)
        return self.head(F.relu(self.transition(x)))


class UNet(nn.Module):
    """Down and up again with a transposed convolution and bilinear resizing, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = block(1, 8), block(8, 16), block(16, 24)
        self.up2 = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.merge2 = block(32, 16)
        self.merge1 = block(24, 8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Any:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        y = self.bottom(F.max_pool2d(b, 2))
        y = self.merge2(torch.cat([self.up2(y), b], 1))
        y = F.interpolate(y, size=a.shape[-2:], mode="bilinear", align_corners=False)
        return self.out(self.merge1(torch.cat([y, a], 1)))


class InvertedResidual(nn.Module):
    """Depthwise convolutions, squeeze-and-excitation and Hardswish, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.expand = nn.Sequential(nn.Conv2d(16, 48, 1, bias=False), nn.BatchNorm2d(48), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(48, 48, 5, padding=2, groups=48, bias=False), nn.BatchNorm2d(48))
        self.squeeze, self.excite = nn.Conv2d(48, 12, 1), nn.Conv2d(12, 48, 1)
        self.project = nn.Sequential(nn.Conv2d(48, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = head(16)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = F.hardswish(self.depthwise(self.expand(x)))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.head(x + self.project(y))


class GroupedBottleneck(nn.Module):
    """ResNeXt: grouped convolutions between pointwise ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.reduce, self.grouped, self.expand = block(16, 24, 1), block(24, 24, groups=6), nn.Conv2d(24, 16, 1)
        self.wide = block(16, 32, groups=4)  # more channels leave each group than enter it
        self.head = head(32)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = F.relu(x + self.expand(self.grouped(self.reduce(x))))
        return self.head(self.wide(x))


class GroupNormNet(nn.Module):
    """GroupNorm behind every convolution, one of them with a residual add."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.b, self.norm_b = nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(8, 16)
        self.c, self.norm_c = nn.Conv2d(16, 24, 3, padding=1), nn.GroupNorm(4, 24)
        self.head = head(24)

    def forward(self, x: Tensor) -> Any:
        x = F.silu(self.norm_a(self.a(x)))
        x = x + F.silu(self.norm_b(self.b(x)))
        return self.head(F.silu(self.norm_c(self.c(x))))


class InstanceNormNet(nn.Module):
    """Style transfer: InstanceNorm, reflection padding, nearest resizing; the output is an image."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, 12, 3, stride=2), nn.InstanceNorm2d(12, affine=True), nn.ReLU()
        )
        self.middle = nn.Sequential(nn.Conv2d(12, 16, 3, padding=1), nn.InstanceNorm2d(16), nn.ReLU())
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(16, 3, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> Any:
        return self.up(self.middle(self.down(x)))


class ConvNeXtBlock(nn.Module):
    """LayerNorm over channels that were moved last, GELU, a scale a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.depthwise = nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.norm = nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.scale = nn.Parameter(torch.full((16,), 0.5))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)
        return self.head((x + y).mean((2, 3)))


class Decoder(nn.Module):
    """From a vector to an image through transposed convolutions, one of them depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(10, 24 * 16)
        self.up1, self.norm = nn.ConvTranspose2d(24, 16, 4, stride=2, padding=1), nn.BatchNorm2d(16)
        self.depthwise = nn.ConvTranspose2d(16, 16, 3, padding=1, groups=16)
        self.up2 = nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.lift(x)).view(-1, 24, 4, 4)
        return torch.sigmoid(self.up2(F.relu(self.depthwise(F.relu(self.norm(self.up1(x)))))))


class Keyword(nn.Module):
    """Keyword spotting on sound: 1-d convolutions, one dilated, mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(8, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(16, 24, 3, padding=2, dilation=2), nn.PReLU(24),
            nn.Conv1d(24, 24, 3, padding="same", groups=24), nn.Conv1d(24, 16, 1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layers(x).mean(-1))


class TextConvolution(nn.Module):
    """An embedding, convolutions of several widths over it, the largest response of each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.convolutions = nn.ModuleList(nn.Conv1d(16, 12, width, padding=1) for width in (3, 5))
        self.head = nn.Linear(24, 4)

    def forward(self, ids: Tensor) -> Any:
        x = self.embedding(ids).transpose(1, 2)
        return self.head(torch.cat([F.relu(layer(x)).max(dim=2).values for layer in self.convolutions], dim=1))


class TiedLanguageModel(nn.Module):
    """A table of words that is read at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.up, self.down = nn.Linear(16, 48), nn.Linear(48, 16)
        self.out = nn.Linear(16, 40, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Any:
        x = self.embedding(ids)
        return self.out(x + self.down(F.gelu(self.up(x))))


class CalledTwice(nn.Module):
    """One convolution applied again and again, and a head shared by two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.again = nn.Conv2d(16, 16, 3, padding=1)
        self.left, self.right = nn.Conv2d(16, 12, 1), nn.Conv2d(16, 12, 1)
        self.shared = nn.Linear(12, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        for _ in range(3):
            x = x + F.relu(self.again(x))
        left, right = (F.relu(layer(x)).mean((2, 3)) for layer in (self.left, self.right))
        return self.head(F.relu(self.shared(left)) * torch.sigmoid(self.shared(right)))


class Functional(nn.Module):
    """Functions on parameters of its own in place of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.randn(16, 3, 3, 3) / 5), nn.Parameter(torch.zeros(16))
        self.matrix = nn.Parameter(torch.randn(24, 16) / 4)
        self.last = nn.Parameter(torch.randn(5, 24) / 5)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(F.conv2d(x, self.kernel, self.shift, stride=2, padding=1))
        x = F.linear(F.avg_pool2d(x, 8).flatten(1), self.matrix)
        return F.linear(F.leaky_relu(x, 0.1), self.last)


class TwoInputs(nn.Module):
    """An image and a vector, positional."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(block(1, 12), nn.Conv2d(12, 16, 3, padding=1))
        self.vector = nn.Linear(6, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.head(F.relu(self.image(x).mean((2, 3)) + self.vector(y)))


class NamedInputs(nn.Module):
    """Numbers and categories, by keyword, as of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.categories = nn.ModuleList(nn.Embedding(size, 4) for size in (7, 12))
        self.hidden = nn.Linear(5 + 8, 32)
        self.norm = nn.BatchNorm1d(32)
        self.out = nn.Linear(32, 1)

    def forward(self, numbers: Tensor, codes: Tensor) -> Any:
        embedded = [table(codes[:, column]) for column, table in enumerate(self.categories)]
        return self.out(F.selu(self.norm(self.hidden(torch.cat([numbers, *embedded], 1)))))


class TwoOutputs(nn.Module):
    """A detector's heads: classes and boxes of every cell, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 16, stride=2), block(16, 24, stride=2))
        self.lateral = nn.Conv2d(24, 16, 1)
        self.smooth = block(32, 16)
        self.early = block(3, 16, stride=2)
        self.classes, self.boxes = nn.Conv2d(16, 5, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        top = F.interpolate(self.lateral(self.body(x)), scale_factor=2.0, mode="nearest")
        y = self.smooth(torch.cat([top, self.early(x)], 1))
        return {"classes": self.classes(y).flatten(2), "boxes": self.boxes(y).flatten(2).transpose(1, 2).exp()}


class NestedOutputs(nn.Module):
    """A prediction and the features it came from, as a tuple in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(block(3, 8), block(8, 12)), block(12, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        a = self.a(x)
        b = self.b(a).mean((2, 3))
        return self.head(b), (a.mean((2, 3)), b)


class Conditional(nn.Module):
    """torch.cond on the values of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.after = nn.Conv2d(16, 12, 3, padding=1)
        self.head = head(12)

    def forward(self, x: Tensor) -> Any:
        x = self.middle(self.stem(x))
        x = torch.cond(x.abs().mean() > 1.0, lambda y: y / 2.0, lambda y: y * 1.5, (x,))
        return self.head(F.relu(self.after(x)))


class Branching(nn.Module):
    """Python that looks at shapes and options, and a loop over a ModuleList."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.steps = nn.ModuleList(block(16, 16) for _ in range(3))
        self.residual = True
        self.head = head(16)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        if x.shape[-1] > 8:
            x = F.max_pool2d(x, 2)
        for number, step in enumerate(self.steps):
            x = x + step(x) if self.residual and number % 2 == 0 else step(x)
        return self.head(x)


class Gated(nn.Module):
    """Halves that gate each other, written with chunk and with GLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.glu = nn.Conv2d(12, 32, 3, padding=1)
        self.head = head(16)

    def forward(self, x: Tensor) -> Any:
        left, right = self.stem(x).chunk(2, dim=1)
        return self.head(F.glu(self.glu(left * torch.sigmoid(right)), dim=1))


class Shuffle(nn.Module):
    """ShuffleNetV2: half of the channels goes through a branch, then the two halves take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 32)
        self.branches = nn.ModuleList(
            nn.Sequential(
                block(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), block(16, 16, 1)
            )
            for _ in range(2)
        )
        self.head = head(32)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for branch in self.branches:
            left, right = x.chunk(2, dim=1)
            x = torch.cat([left, branch(right)], dim=1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x)


class SuperResolution(nn.Module):
    """Channels that become pixels, and pixels that become channels."""

    def __init__(self) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(2)
        self.first, self.second = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.up = nn.PixelShuffle(2)
        self.third, self.out = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        y = self.up(F.relu(self.second(F.relu(self.first(self.unshuffle(x))))))
        return x + self.out(F.relu(self.third(y)))


class Split(nn.Module):
    """CSP: a feature map split in unequal parts, one of them processed, all of them joined again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 24)
        self.part = nn.Sequential(block(16, 16), block(16, 12))
        self.join = block(8 + 16 + 12, 16, 1)
        self.head = head(16)

    def forward(self, x: Tensor) -> Any:
        first, second = self.stem(x).split([8, 16], dim=1)
        return self.head(self.join(torch.cat([first, second, self.part(second)], 1)))


class Flattened(nn.Module):
    """LeNet: a feature map flattened in front of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 3)
        self.c, self.d, self.e = nn.Linear(16 * 4, 32), nn.Linear(32, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool2d(F.relu(self.a(x)), 2)
        x = F.max_pool2d(F.relu(self.b(x)), 2)
        x = F.relu(self.c(x.view(x.size(0), -1)))
        return self.e(F.dropout(F.relu(self.d(x)), 0.5, self.training))


class Perceptron(nn.Module):
    """MLP-Mixer: linear layers across tokens and across features, LayerNorm before each."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.tokens = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.features = nn.Sequential(nn.Linear(16, 48), nn.GELU(), nn.Linear(48, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.features(self.norm2(x))
        return self.head(self.norm3(x).mean(1))


class Recurrent(nn.Module):
    """Convolutions in front of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv1d(16, 12, 3, padding=1))
        self.recurrent = nn.GRU(12, 16, batch_first=True)
        self.head = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Any:
        y, _ = self.recurrent(self.front(x).transpose(1, 2))
        return self.head(y[:, -1])


class Attention(nn.Module):
    """An image classifier with one block of self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, 16, 16) / 4)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class SpelledAttention(nn.Module):
    """Products and a softmax, keys and values from one layer, a learned bias for every head and distance."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 16)
        self.query, self.memory, self.out = nn.Linear(16, 16, bias=False), nn.Linear(16, 32), nn.Linear(16, 16)
        self.bias = nn.Parameter(torch.randn(4, 15))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        n, t, d = x.shape
        y = self.norm(x)
        q = self.query(y).reshape(n, t, 4, d // 4).transpose(1, 2)
        k, v = self.memory(y).chunk(2, dim=-1)
        k, v = (z.reshape(n, t, 4, d // 4).transpose(1, 2) for z in (k, v))
        distance = torch.arange(t)[:, None] - torch.arange(t)[None, :] + t - 1
        scores = q @ k.transpose(-2, -1) / (d // 4) ** 0.5 + self.bias[:, distance]
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return self.head(x.mean(1))


class EinsumAttention(nn.Module):
    """Attention in Einstein's notation, queries that share keys, and a gated feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Linear(12, 32), nn.RMSNorm(32), nn.RMSNorm(32)
        self.query, self.key, self.value = (nn.Linear(32, width, bias=False) for width in (32, 16, 16))
        self.out = nn.Linear(32, 32, bias=False)
        self.gate, self.up, self.down = nn.Linear(32, 48), nn.Linear(32, 48), nn.Linear(48, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        n, t, _ = x.shape
        y = self.norm1(x)
        q = self.query(y).view(n, t, 2, 2, 8)
        k, v = self.key(y).view(n, t, 2, 8), self.value(y).view(n, t, 2, 8)
        weights = torch.einsum("btkgd,bskd->bkgts", q, k).div(8**0.5).softmax(-1)
        x = x + self.out(torch.einsum("bkgts,bskd->btkgd", weights, v).reshape(n, t, 32))
        y = self.norm2(x)
        return self.head((x + self.down(F.silu(self.gate(y)) * self.up(y))).mean(1))


class Encoder(nn.Module):
    """PyTorch's own transformer encoder on patches of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class MultiheadAttention(nn.Module):
    """PyTorch's own attention layer, between linear ones."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(16, 4, batch_first=True), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


class Video(nn.Module):
    """Frames are merged into the batch for the convolutions, and told apart again behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(block(3, 16), block(16, 24))
        self.head = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Any:
        b, t, c, h, w = x.shape
        y = self.frame(x.view(b * t, c, h, w)).mean((2, 3))
        return self.head(y.view(b, t, -1).amax(1))


class ViewShuffle(nn.Module):
    """ShuffleNet's way to mix groups: view, transpose, contiguous, view."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(3, 16), block(16, 16, groups=16)
        self.third, self.head = block(16, 24), head(24)

    def forward(self, x: Tensor) -> Any:
        x = self.second(self.first(x))
        b, c, h, w = x.shape
        x = x.view(b, 4, c // 4, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
        return self.head(self.third(x))


class Maxout(nn.Module):
    """The larger of two convolutions, value by value."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.a, self.b = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1)
        self.head = head(24)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        return self.head(torch.max(self.a(x), self.b(x)))


class WeightNormed(nn.Module):
    """Weight normalization, which computes weights at every call, between ordinary layers."""

    def __init__(self) -> None:
        super().__init__()
        normed = nn.utils.parametrizations.weight_norm
        self.first = normed(nn.Conv2d(3, 16, 3, padding=1))
        self.second, self.third = block(16, 24), block(24, 24)
        self.head = head(24)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.third(self.second(F.relu(self.first(x)))))


def channel_dropout() -> nn.Module:
    """Dropout of whole channels, and one that keeps mean and variance."""
    return nn.Sequential(block(3, 16), nn.Dropout2d(0.2), block(16, 24), nn.AlphaDropout(0.1), head(24))


def depthwise_decoder() -> nn.Module:
    """Transposed convolutions with a group a channel enlarge a feature map."""
    up = nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1, groups=16)
    return nn.Sequential(block(3, 16), up, nn.ReLU(), nn.Conv2d(16, 2, 1))


USER_WRITTEN: Mapping[str, Architecture] = {
    name: Architecture("written by users", build, example)
    for name, build, example in (
        ("residual adds", Residual, image()),
        ("padded shortcut", PaddedShortcut, image()),
        ("dense concatenation", Dense, image()),
        ("U-Net", UNet, image(1)),
        ("inverted residual, SE, Hardswish", InvertedResidual, image()),
        ("grouped convolution", GroupedBottleneck, image()),
        ("GroupNorm, SiLU", GroupNormNet, image()),
        ("InstanceNorm, style transfer", InstanceNormNet, image()),
        ("LayerNorm, GELU, layer scale", ConvNeXtBlock, image()),
        ("transposed convolution decoder", Decoder, lambda: torch.randn(1, 10)),
        ("1-d convolution, PReLU", Keyword, lambda: torch.randn(1, 8, 32)),
        ("embedding, text convolution", TextConvolution, lambda: torch.randint(0, 50, (1, 12))),
        ("tied embedding", TiedLanguageModel, lambda: torch.randint(0, 40, (1, 8))),
        ("modules called twice", CalledTwice, image()),
        ("functional calls", Functional, image()),
        ("two inputs", TwoInputs, lambda: (torch.randn(1, 1, 8, 8), torch.randn(1, 6))),
        (
            "inputs by name",
            NamedInputs,
            lambda: {"numbers": torch.randn(1, 5), "codes": torch.randint(0, 7, (1, 2))},
        ),
        ("outputs by name", TwoOutputs, image()),
        ("nested outputs", NestedOutputs, image()),
        ("torch.cond", Conditional, image()),
        ("branches and loops", Branching, image()),
        ("gates: chunk, GLU", Gated, image()),
        ("channel shuffle", Shuffle, image()),
        ("pixel shuffle", SuperResolution, image(1)),
        ("split in parts", Split, image()),
        ("flattened feature map", Flattened, image(1)),
        ("MLP-Mixer", Perceptron, image()),
        ("GRU", Recurrent, lambda: torch.randn(1, 4, 12)),
        ("self-attention", Attention, image()),
        ("attention spelled out, relative positions", SpelledAttention, lambda: torch.randn(1, 8, 12)),
        ("attention by einsum, shared keys", EinsumAttention, lambda: torch.randn(1, 8, 12)),
        ("nn.TransformerEncoder", Encoder, image()),
        ("nn.MultiheadAttention", MultiheadAttention, lambda: torch.randn(1, 8, 16)),
        ("frames merged into the batch", Video, lambda: torch.randn(1, 4, 3, 8, 8)),
        ("shuffle by contiguous and view", ViewShuffle, image()),
        ("maxout of two convolutions", Maxout, image()),
        ("channel dropout", channel_dropout, image()),
        ("weight normalization", WeightNormed, image()),
        ("transposed depthwise convolution", depthwise_decoder, image()),
    )
}
