"""Inception networks, from GoogLeNet on."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import conv_classifier, linear_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_V1_PAPER = "Szegedy et al. 2014, arXiv 1409.4842"
_V1_NORMED = f"{_V1_PAPER}; with batch normalization, and 3x3 convolutions for the 5x5 ones"

_V1_MODULES = (
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
)  # fmt: skip
"""Channels of 1x1; 3x3's reduction, 3x3; 5x5's reduction, 5x5; pool's projection: table 1 of the paper."""
_V1_POOLED = (2, 7)
"""In front of which modules a pool stands."""


def googlenet_module(
    b: NetworkBuilder, x: str, channels: tuple[int, ...], kernel: int = 5, *, norm: bool = False
) -> str:
    """Four branches side by side; ``kernel``: of the one with the largest."""
    one, before_three, three, before_five, five, pool = channels
    conv = partial(b.conv, activation="relu", norm=norm)
    branches = (
        conv(x, one),
        conv(conv(x, before_three), three, 3),
        conv(conv(x, before_five), five, kernel),
        conv(b.pool(x, "max", 3, 1, 1), pool),
    )
    return b.concat(branches)


def googlenet_features(b: NetworkBuilder, x: str, *, normed: bool = False) -> str:
    """GoogLeNet up to its last module.

    Args:
        b: The builder.
        x: The image.
        normed: As it is trained since: batch normalization for local response normalization, and 3x3 convolutions
            where the paper has 5x5 ones.
    """
    conv = partial(b.conv, activation="relu", norm=normed)
    x = b.pool(conv(x, 64, 7, 2, padding=3), "max", 3, 2, rounds_up=True)
    x = x if normed else b.local_response_norm(x)
    x = conv(conv(x, 64), 192, 3)
    x = x if normed else b.local_response_norm(x)
    x = b.pool(x, "max", 3, 2, rounds_up=True)
    for index, channels in enumerate(_V1_MODULES):
        if index in _V1_POOLED:
            x = b.pool(x, "max", 3, 2, rounds_up=True)
        x = googlenet_module(b, x, channels, 3 if normed else 5, norm=normed)
    return x


def googlenet(b: NetworkBuilder, *, normed: bool = False) -> OperatorTable:
    """GoogLeNet for 1,000 classes at 224 pixels, without the classifiers that help to train it."""
    return b.table(linear_classifier(b, googlenet_features(b, b.input(3, 224, 224), normed=normed)))


def inception_v1(b: NetworkBuilder) -> OperatorTable:
    """TensorFlow's Inception V1, whose classes have one for the background."""
    return b.table(conv_classifier(b, googlenet_features(b, b.input(3, 224, 224), normed=True)))


NETWORKS = (
    ZooNetwork("GoogLeNet 224", "Inception", googlenet, _V1_PAPER, (), 6_998_552, 1.58e9, 0.01),
    ZooNetwork("GoogLeNet", "Inception", partial(googlenet, normed=True), _V1_NORMED, (), 6_624_904, 1.498e9, 0.01),
    ZooNetwork("Inception V1 224", "Inception", inception_v1, _V1_NORMED, (), 6.6e6, 1.5e9),
)
