"""YOLOX, up to the raw maps of boxes, scores and classes; decoding and suppression are left out."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "Ge et al. 2021, arXiv 2107.08430; github.com/Megvii-BaseDetection/YOLOX"
_SILU = "silu"
_CLASSES = 80


class Yolox:
    """Builds one YOLOX.

    Attributes:
        b: The builder.
        depth: Factor of repeats.
        width: Factor of channels.
        depthwise: Whether 3x3 convolutions are depthwise, with a pointwise one behind them.
    """

    def __init__(self, b: NetworkBuilder, depth: float, width: float, *, depthwise: bool) -> None:
        self.b = b
        self.depth = depth
        self.width = width
        self.depthwise = depthwise

    def table(self, resolution: int) -> OperatorTable:
        """The network for images of one resolution."""
        levels = self.neck(*self.backbone(self.b.input(3, resolution, resolution)))
        return self.b.table(*(output for x in levels for output in self.heads(x)))

    def conv(self, x: str, channels: int, stride: int = 1) -> str:
        """3x3, with its norm and activation."""
        if self.depthwise:
            x = self.b.conv(x, self.b.channels(x), 3, stride, groups=self.b.channels(x), padding=1, activation=_SILU)
            return self.b.conv(x, channels, activation=_SILU)
        return self.b.conv(x, channels, 3, stride, padding=1, activation=_SILU)

    def stage(self, x: str, channels: int, repeats: float, *, adds: bool = True) -> str:
        """Bottlenecks over half of the channels, a pointwise convolution for the other half."""
        b = self.b
        y, other = b.conv(x, channels // 2, activation=_SILU), b.conv(x, channels // 2, activation=_SILU)
        for _ in range(int(repeats)):
            z = self.conv(b.conv(y, channels // 2, activation=_SILU), channels // 2)
            y = b.add(z, y) if adds else z
        return b.conv(b.concat((y, other)), channels, activation=_SILU)

    def backbone(self, x: str) -> list[str]:
        """The outputs at an eighth, a sixteenth and a thirty-second of the image."""
        b, base, repeats = self.b, int(64 * self.width), max(round(self.depth * 3), 1)
        size = b.shape(x)[-1] // 2
        quarters = [b.copy(x, (3, size, size), "Slice") for _ in range(4)]
        x = b.conv(b.concat(quarters), base, 3, activation=_SILU)
        x = self.stage(self.conv(x, 2 * base, 2), 2 * base, repeats)
        fine = self.stage(self.conv(x, 4 * base, 2), 4 * base, 3 * repeats)
        middle = self.stage(self.conv(fine, 8 * base, 2), 8 * base, 3 * repeats)
        x = self.pyramid_pool(self.conv(middle, 16 * base, 2))
        return [fine, middle, self.stage(x, 16 * base, repeats, adds=False)]

    def pyramid_pool(self, x: str) -> str:
        """The largest values of three windows, next to each other."""
        b, channels = self.b, self.b.channels(x)
        y = b.conv(x, channels // 2, activation=_SILU)
        pools = [b.pool(y, "max", kernel, 1, kernel // 2) for kernel in (5, 9, 13)]
        return b.conv(b.concat((y, *pools)), channels, activation=_SILU)

    def neck(self, fine: str, middle: str, coarse: str) -> tuple[str, str, str]:
        """Mixes three resolutions, first down from the coarsest, then up again."""
        b, repeats = self.b, round(3 * self.depth)
        narrow, normal, wide = b.channels(fine), b.channels(middle), b.channels(coarse)
        low = b.conv(coarse, normal, activation=_SILU)
        x = self.stage(b.concat((b.resize(low, 2), middle)), normal, repeats, adds=False)
        mid = b.conv(x, narrow, activation=_SILU)
        first = self.stage(b.concat((b.resize(mid, 2), fine)), narrow, repeats, adds=False)
        second = self.stage(b.concat((self.conv(first, narrow, 2), mid)), normal, repeats, adds=False)
        return first, second, self.stage(b.concat((self.conv(second, normal, 2), low)), wide, repeats, adds=False)

    def heads(self, x: str) -> tuple[str, str, str]:
        """Boxes, scores and classes of one resolution."""
        b, width = self.b, int(256 * self.width)
        x = b.conv(x, width, activation=_SILU)
        classes = self.conv(self.conv(x, width), width)
        boxes = self.conv(self.conv(x, width), width)
        return b.conv(boxes, 4, norm=False), b.conv(boxes, 1, norm=False), b.conv(classes, _CLASSES, norm=False)


def yolox(b: NetworkBuilder, depth: float, width: float, resolution: int, *, depthwise: bool = False) -> OperatorTable:
    """YOLOX of a depth and a width, for 80 classes."""
    return Yolox(b, depth, width, depthwise=depthwise).table(resolution)


NETWORKS = (
    ZooNetwork(
        "YOLOX-Nano 416", "YOLOX", partial(yolox, depth=0.33, width=0.25, resolution=416, depthwise=True), _PAPER, (),
        0.91e6, 0.54e9, 0.04,
    ),
    ZooNetwork(
        "YOLOX-Tiny 416", "YOLOX", partial(yolox, depth=0.33, width=0.375, resolution=416), _PAPER, (), 5.06e6, 3.225e9
    ),
    ZooNetwork(
        "YOLOX-S 640", "YOLOX", partial(yolox, depth=0.33, width=0.5, resolution=640), _PAPER, (), 9.0e6, 13.4e9,
        note="the rows of OpenCV's zoo include resizing the image, decoding and suppression",
    ),
)  # fmt: skip
