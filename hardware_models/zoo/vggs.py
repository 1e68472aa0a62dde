"""AlexNet and the VGG networks: large linear layers behind plain convolutions."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_ALEXNET = "Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks; as in Caffe"
_ONE_TOWER = "Krizhevsky 2014, arXiv 1404.5997; as in PyTorch"
_VGG = "Simonyan and Zisserman 2014, arXiv 1409.1556"

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Of each stage: table 1 of the paper, networks A, B, D and E."""


def alexnet(b: NetworkBuilder) -> OperatorTable:
    """AlexNet at 227 pixels, with the two groups of channels that once were two GPUs."""
    conv = partial(b.conv, activation="relu", norm=False)
    x = b.local_response_norm(conv(b.input(3, 227, 227), 96, 11, 4, padding=0))
    x = b.local_response_norm(conv(b.pool(x, "max", 3, 2), 256, 5, padding=2, groups=2))
    x = conv(b.pool(x, "max", 3, 2), 384, 3, padding=1)
    x = conv(conv(x, 384, 3, padding=1, groups=2), 256, 3, padding=1, groups=2)
    return b.table(_linear_classifier(b, b.pool(x, "max", 3, 2)))


def one_tower_alexnet(b: NetworkBuilder) -> OperatorTable:
    """AlexNet at 224 pixels, narrower and without groups or local response norms."""
    conv = partial(b.conv, activation="relu", norm=False)
    x = b.pool(conv(b.input(3, 224, 224), 64, 11, 4, padding=2), "max", 3, 2)
    x = b.pool(conv(x, 192, 5, padding=2), "max", 3, 2)
    for channels in (384, 256, 256):
        x = conv(x, channels, 3, padding=1)
    return b.table(_linear_classifier(b, b.pool(x, "max", 3, 2)))


def _linear_classifier(b: NetworkBuilder, x: str) -> str:
    x = b.linear(b.linear(b.flatten(x), 4096, activation="relu"), 4096, activation="relu")
    return b.linear(x, 1000)


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
    return b.table(_linear_classifier(b, vgg_features(b, b.input(3, 224, 224), depth, norm=norm)[-1]))


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
    ZooNetwork("AlexNet 227", "AlexNet", alexnet, _ALEXNET, (), 60_965_224, 724e6, 0.001),
    ZooNetwork("alexnet 224", "AlexNet", one_tower_alexnet, _ONE_TOWER, (), 61_100_840, 714e6, 0.001),
    _normed(11, 132_868_840, 7.609e9),
    _normed(13, 133_053_736, 11.308e9),
    _normed(16, 138_365_992, 15.470e9),
)
