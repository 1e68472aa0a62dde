"""Inception V4, and Inception-ResNet-V2 of the same paper."""

from __future__ import annotations

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import conv_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.inception_blocks import Branch, chain, forked, module, reduction
from kneepoint.hardware_models.zoo.inception_v2_v3 import inception_v3_stem
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "Szegedy et al. 2016, arXiv 1602.07261"

_BLOCK35: tuple[Branch, ...] = ((32,), (32, (32, 3)), (32, (48, 3), (64, 3)))
_BLOCK17: tuple[Branch, ...] = ((192,), (128, (160, (1, 7)), (192, (7, 1))))
_BLOCK8: tuple[Branch, ...] = ((192,), (192, (224, (1, 3)), (256, (3, 1))))


def _stem(b: NetworkBuilder, x: str) -> str:
    """Figure 3 of the paper: to an eighth of the image."""
    x = b.conv(x, 32, 3, 2, padding=0, activation="relu")
    x = b.conv(x, 32, 3, padding=0, activation="relu")
    x = reduction(b, chain(b, x, ((64, 3),)), ((96, 3, 2),))
    short = b.conv(chain(b, x, (64,)), 96, 3, padding=0, activation="relu")
    long = b.conv(chain(b, x, (64, (64, (1, 7)), (64, (7, 1)))), 96, 3, padding=0, activation="relu")
    return reduction(b, b.concat((short, long)), ((192, 3, 2),))


def inception_v4(b: NetworkBuilder) -> OperatorTable:
    """Inception V4 at 299 pixels."""
    x = _stem(b, b.input(3, 299, 299))
    for _ in range(4):
        x = module(b, x, (96,), (64, (96, 3)), (64, (96, 3), (96, 3)), projection=96)
    x = reduction(b, x, ((384, 3, 2),), (192, (224, 3), (256, 3, 2)))
    for _ in range(7):
        short: Branch = (192, (224, (1, 7)), (256, (7, 1)))
        long: Branch = (192, (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7)))
        x = module(b, x, (384,), short, long, projection=128)
    x = reduction(b, x, (192, (192, 3, 2)), (256, (256, (1, 7)), (320, (7, 1)), (320, 3, 2)))
    for _ in range(3):
        x = _widened(b, x)
    return b.table(conv_classifier(b, x))


def _widened(b: NetworkBuilder, x: str) -> str:
    """Figure 6 of the paper."""
    parts = (
        chain(b, x, (256,)),
        *forked(b, x, (384,), (256, (1, 3)), (256, (3, 1))),
        *forked(b, x, (384, (448, (3, 1)), (512, (1, 3))), (256, (1, 3)), (256, (3, 1))),
        chain(b, b.pool(x, "avg", 3, 1, "same"), (256,)),
    )
    return b.concat(parts)


def inception_resnet_v2(b: NetworkBuilder) -> OperatorTable:
    """Inception-ResNet-V2 at 299 pixels; the constants that scale its residuals are taken as part of their weights."""
    x = inception_v3_stem(b, b.input(3, 299, 299))
    x = module(b, x, (96,), (48, (64, 5)), (64, (96, 3), (96, 3)), projection=64)
    for _ in range(10):
        x = _residual(b, x, _BLOCK35)
    x = reduction(b, x, ((384, 3, 2),), (256, (256, 3), (384, 3, 2)))
    for _ in range(20):
        x = _residual(b, x, _BLOCK17)
    x = reduction(b, x, (256, (384, 3, 2)), (256, (288, 3, 2)), (256, (288, 3), (320, 3, 2)))
    for index in range(10):
        x = _residual(b, x, _BLOCK8, activation="relu" if index < 9 else "")
    return b.table(conv_classifier(b, chain(b, x, (1536,))))


def _residual(b: NetworkBuilder, x: str, branches: tuple[Branch, ...], activation: str = "relu") -> str:
    """Branches side by side, projected to the channels of ``x`` and added to it."""
    parts = b.concat([chain(b, x, branch) for branch in branches])
    return b.add(x, b.conv(parts, b.channels(x), norm=False), activation=activation)


NETWORKS = (
    ZooNetwork("Inception V4 299", "Inception", inception_v4, _PAPER, (), 42.68e6, 12.28e9, 0.005),
    ZooNetwork("Inception-ResNet-V2 299", "Inception", inception_resnet_v2, _PAPER, (), 55.84e6, 13.18e9, 0.005),
)
