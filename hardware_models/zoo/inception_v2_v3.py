"""Inception V2 and V3."""

from __future__ import annotations

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import conv_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.inception_blocks import Branch, chain, forked, module, reduction
from kneepoint.hardware_models.zoo.network import ZooNetwork

_V2_PAPER = "Ioffe and Szegedy 2015, arXiv 1502.03167; as in TensorFlow's research/slim"
_V3_PAPER = "Szegedy et al. 2015, arXiv 1512.00567; as in TensorFlow's research/slim"

_V2_MIDDLE: tuple[tuple[Branch, Branch, Branch, int], ...] = (
    ((224,), (64, (96, 3)), (96, (128, 3), (128, 3)), 128),
    ((192,), (96, (128, 3)), (96, (128, 3), (128, 3)), 128),
    ((160,), (128, (160, 3)), (128, (160, 3), (160, 3)), 96),
    ((96,), (128, (192, 3)), (160, (192, 3), (192, 3)), 96),
)
"""The branches of the modules at a sixteenth of the image, and the channels behind their pool."""


def inception_v2(b: NetworkBuilder) -> OperatorTable:
    """Inception V2 at 224 pixels, whose first convolution is depthwise, then pointwise."""
    x = b.conv(b.input(3, 224, 224), 24, 7, 2, groups=3, norm=False, bias=False)
    x = b.pool(chain(b, x, (64,)), "max", 3, 2, "same")
    x = b.pool(chain(b, x, (64, (192, 3))), "max", 3, 2, "same")
    x = module(b, x, (64,), (64, (64, 3)), (64, (96, 3), (96, 3)), projection=32)
    x = module(b, x, (64,), (64, (96, 3)), (64, (96, 3), (96, 3)), projection=64)
    x = reduction(b, x, (128, (160, 3, 2)), (64, (96, 3), (96, 3, 2)), padding="same")
    for *branches, projection in _V2_MIDDLE:
        x = module(b, x, *branches, projection=projection)
    x = reduction(b, x, (128, (192, 3, 2)), (192, (256, 3), (256, 3, 2)), padding="same")
    x = module(b, x, (352,), (192, (320, 3)), (160, (224, 3), (224, 3)), projection=128)
    x = module(b, x, (352,), (192, (320, 3)), (192, (224, 3), (224, 3)), pool="max", projection=128)
    return b.table(conv_classifier(b, x))


def inception_v3_stem(b: NetworkBuilder, x: str) -> str:
    """The plain convolutions in front of the modules, shared with Inception-ResNet-V2: to an eighth of the image."""
    x = b.conv(x, 32, 3, 2, padding=0, activation="relu")
    x = b.conv(x, 32, 3, padding=0, activation="relu")
    x = b.pool(chain(b, x, ((64, 3),)), "max", 3, 2)
    x = b.conv(chain(b, x, (80,)), 192, 3, padding=0, activation="relu")
    return b.pool(x, "max", 3, 2)


def inception_v3(b: NetworkBuilder) -> OperatorTable:
    """Inception V3 at 299 pixels, without the classifier that helps to train it."""
    x = inception_v3_stem(b, b.input(3, 299, 299))
    for projection in (32, 64, 64):
        x = module(b, x, (64,), (48, (64, 5)), (64, (96, 3), (96, 3)), projection=projection)
    x = reduction(b, x, ((384, 3, 2),), (64, (96, 3), (96, 3, 2)))
    for width in (128, 160, 160, 192):
        x = _factorized(b, x, width)
    x = reduction(b, x, (192, (320, 3, 2)), (192, (192, (1, 7)), (192, (7, 1)), (192, 3, 2)))
    for _ in range(2):
        x = _widened(b, x)
    return b.table(conv_classifier(b, x))


def _factorized(b: NetworkBuilder, x: str, width: int) -> str:
    """Figure 6 of the paper, n = 7."""
    short: Branch = (width, (width, (1, 7)), (192, (7, 1)))
    long: Branch = (width, (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7)))
    return module(b, x, (192,), short, long, projection=192)


def _widened(b: NetworkBuilder, x: str) -> str:
    """Figure 7 of the paper."""
    parts = (
        chain(b, x, (320,)),
        *forked(b, x, (384,), (384, (1, 3)), (384, (3, 1))),
        *forked(b, x, (448, (384, 3)), (384, (1, 3)), (384, (3, 1))),
        chain(b, b.pool(x, "avg", 3, 1, "same"), (192,)),
    )
    return b.concat(parts)


NETWORKS = (
    ZooNetwork("Inception V2 224", "Inception", inception_v2, _V2_PAPER, (), 11.2e6, 1.94e9),
    ZooNetwork("Inception V3 299", "Inception", inception_v3, _V3_PAPER, ("Inception-v3",), 23.83e6, 5.713e9, 0.005),
)
