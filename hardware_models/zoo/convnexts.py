"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545)."""

from __future__ import annotations

from collections.abc import Sequence

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork
from kneepoint.hardware_models.zoo.transformer_blocks import feed_forward


def _norm_of_channels(b: NetworkBuilder, x: str) -> str:
    return b.transpose(b.layer_norm(b.transpose(x, 0, 2, 3, 1)), 0, 3, 1, 2)


def _block(b: NetworkBuilder, x: str) -> str:
    """A depthwise convolution, a feed-forward network over every pixel, a factor for every channel."""
    channels = b.channels(x)
    y = b.conv(x, channels, 7, padding=3, groups=channels, norm=False)
    y = feed_forward(b, b.layer_norm(b.transpose(y, 0, 2, 3, 1)), 4 * channels)
    return b.add(x, b.transpose(b.mul_constant(y, channels), 0, 3, 1, 2))


def convnext(
    b: NetworkBuilder,
    resolution: int = 224,
    *,
    depths: Sequence[int] = (3, 3, 9, 3),
    widths: Sequence[int] = (96, 192, 384, 768),
    classes: int = 1000,
) -> OperatorTable:
    """ConvNeXt-Tiny, or one of other depths and widths of its stages."""
    x = _norm_of_channels(b, b.conv(b.input(3, resolution, resolution), widths[0], 4, 4, padding=0, norm=False))
    for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if index:
            x = b.conv(_norm_of_channels(b, x), width, 2, 2, padding=0, norm=False)
        for _ in range(depth):
            x = _block(b, x)
    return b.table(b.linear(b.layer_norm(b.flatten(b.global_avg_pool(x))), classes))


NETWORKS = (
    ZooNetwork(
        "ConvNext-Tiny", "ConvNeXt", convnext, "Liu et al. 2022, arXiv 2201.03545", ("ConvNeXt-Tiny 224",),
        28_589_128, 4.46e9, 0.005,
    ),
)  # fmt: skip
