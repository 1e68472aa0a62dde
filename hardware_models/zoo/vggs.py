"""AlexNet and the VGG networks: large linear layers behind plain convolutions."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_VGG = "Simonyan and Zisserman 2014, arXiv 1409.1556"

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Of each stage: table 1 of the paper, networks A, B, D and E."""


def vgg_features(b: NetworkBuilder, x: str, depth: int, *, norm: bool = False) -> list[str]:
    """The outputs of the five stages, each behind its pool."""
    outputs = []
    for repeats, channels in zip(_CONVOLUTIONS[depth], (64, 128, 256, 512, 512), strict=True):
        for _ in range(repeats):
            x = b.conv(x, channels, 3, padding=1, activation="relu", norm=norm)
        x = b.pool(x, "max", 2, 2)
        outputs.append(x)
    return outputs


def vgg(b: NetworkBuilder, depth: int, *, norm: bool = False) -> OperatorTable:
    """A VGG network for 1,000 classes at 224 pixels; ``norm``: batch normalization behind every convolution."""
    x = b.flatten(vgg_features(b, b.input(3, 224, 224), depth, norm=norm)[-1])
    x = b.linear(b.linear(x, 4096, activation="relu"), 4096, activation="relu")
    return b.table(b.linear(x, 1000))


def _plain(depth: int, parameters: float, macs: float, *aliases: str) -> ZooNetwork:
    return ZooNetwork(f"VGG-{depth} 224", "VGG", partial(vgg, depth=depth), _VGG, aliases, parameters, macs, 0.001)


def _normed(depth: int, parameters: float, macs: float) -> ZooNetwork:
    build = partial(vgg, depth=depth, norm=True)
    return ZooNetwork(f"vgg{depth}_bn 224", "VGG", build, _VGG, (), parameters, macs, 0.001)


NETWORKS = (
    _plain(11, 132_863_336, 7.609e9),
    _plain(13, 133_047_848, 11.308e9),
    _plain(16, 138_357_544, 15.470e9, "VGG16", "VGG16 (ONNX Model Zoo)"),
    _plain(19, 143_667_240, 19.632e9),
    _normed(11, 132_868_840, 7.609e9),
    _normed(13, 133_053_736, 11.308e9),
    _normed(16, 138_365_992, 15.470e9),
)
