"""Small networks for phones that are not MobileNets."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import inverted_residual, linear_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_SQUEEZENET = "Iandola et al. 2016, arXiv 1602.07360"
_SHUFFLENET = "Ma et al. 2018, arXiv 1807.11164"
_PROXYLESS = "Cai et al. 2018, arXiv 1812.00332"
_PROXYLESS_NCNN = f"{_PROXYLESS}; github.com/Tencent/ncnn, benchmark/proxylessnasnet.param"

_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Channels of each fire module's squeeze, and of either half of its expansion: table 1 of the paper."""


def fire(b: NetworkBuilder, x: str, squeezed: int, expanded: int) -> str:
    """A pointwise convolution, then pointwise and 3x3 ones side by side."""
    x = b.conv(x, squeezed, activation="relu", norm=False)
    narrow = b.conv(x, expanded, activation="relu", norm=False)
    return b.concat((narrow, b.conv(x, expanded, 3, padding=1, activation="relu", norm=False)))


def squeezenet(b: NetworkBuilder, resolution: int, *, pooled: tuple[int, int], first: tuple[int, int]) -> OperatorTable:
    """SqueezeNet for 1,000 classes.

    Args:
        b: The builder.
        resolution: Of the image.
        pooled: In front of which fire modules a pool stands: counted from 0.
        first: Channels and kernel of the first convolution.
    """
    x = b.conv(b.input(3, resolution, resolution), *first, 2, padding=0, activation="relu", norm=False)
    x = b.pool(x, "max", 3, 2, rounds_up=True)
    for index, (squeezed, expanded) in enumerate(_FIRES):
        if index in pooled:
            x = b.pool(x, "max", 3, 2, rounds_up=True)
        x = fire(b, x, squeezed, expanded)
    x = b.conv(x, 1000, activation="relu", norm=False)
    return b.table(b.flatten(b.global_avg_pool(x)))


_SHUFFLED = ((116, 4), (232, 8), (464, 4))
"""Channels and units of the stages of ShuffleNetV2 1x: table 5 of the paper."""

_PROXYLESS_BLOCKS = (
    (5, 3, 32, 2), (3, 3, 32, 1),
    (7, 3, 40, 2), (3, 3, 40, 1), (5, 3, 40, 1), (5, 3, 40, 1),
    (7, 6, 80, 2), (5, 3, 80, 1), (5, 3, 80, 1), (5, 3, 80, 1),
    (5, 6, 96, 1), (5, 3, 96, 1), (5, 3, 96, 1), (5, 3, 96, 1),
    (7, 6, 192, 2), (7, 6, 192, 1), (7, 3, 192, 1), (7, 3, 192, 1), (7, 6, 320, 1),
)  # fmt: skip
"""Kernel, expansion, channels and stride of ProxylessNAS (mobile) behind its first block: figure 4 of the paper."""


def shuffled(b: NetworkBuilder, x: str, groups: int = 2) -> str:
    """Every second channel, then all others."""
    channels, *sizes = b.shape(x)[1:]
    x = b.transpose(b.view(x, groups, channels // groups, *sizes), 0, 2, 1, 3, 4)
    return b.view(x, channels, *sizes)


def shuffle_unit(b: NetworkBuilder, x: str, channels: int, stride: int, activation: str = "relu") -> str:
    """Figure 3 of the paper: half of the channels pass untouched, or, with a stride, through a branch of their own."""
    half = channels // 2
    if stride == 1:
        left, right = b.halves(x)
    else:
        left = b.conv(_depthwise(b, x, stride), half, activation=activation)
        right = x
    right = b.conv(right, half, activation=activation)
    right = b.conv(_depthwise(b, right, stride), half, activation=activation)
    return shuffled(b, b.concat((left, right)))


def _depthwise(b: NetworkBuilder, x: str, stride: int) -> str:
    return b.conv(x, b.channels(x), 3, stride, padding=1, groups=b.channels(x))


def shufflenet_v2_features(b: NetworkBuilder, x: str, activation: str = "relu") -> list[str]:
    """The outputs of the three stages of ShuffleNetV2 1x, at an eighth down to a thirty-second of the image."""
    x = b.pool(b.conv(x, 24, 3, 2, padding=1, activation=activation), "max", 3, 2, 1)
    outputs = []
    for channels, units in _SHUFFLED:
        for stride in (2, *[1] * (units - 1)):
            x = shuffle_unit(b, x, channels, stride, activation)
        outputs.append(x)
    return outputs


def shufflenet_v2(b: NetworkBuilder) -> OperatorTable:
    """ShuffleNetV2 1x for 1,000 classes at 224 pixels."""
    x = shufflenet_v2_features(b, b.input(3, 224, 224))[-1]
    return b.table(linear_classifier(b, b.conv(x, 1024, activation="relu")))


def proxyless_nas(b: NetworkBuilder, first: int = 16) -> OperatorTable:
    """ProxylessNAS (mobile) for 1,000 classes; ``first``: channels of the first block, 16 in the paper."""
    x = b.conv(b.input(3, 224, 224), 32, 3, 2, padding=1, activation="clip")
    x = b.conv(b.conv(x, 32, 3, padding=1, groups=32, activation="clip"), first)
    inputs = 16  # what the second block expands, however many channels it is given
    for kernel, expansion, channels, stride in _PROXYLESS_BLOCKS:
        x = inverted_residual(b, x, channels, expansion * inputs, kernel, stride, padding=kernel // 2)
        inputs = channels
    return b.table(linear_classifier(b, b.conv(x, 1280, activation="clip")))


def _squeezenet(version: str, resolution: int) -> partial[OperatorTable]:
    if version == "1.0":
        return partial(squeezenet, resolution=resolution, pooled=(3, 7), first=(96, 7))
    return partial(squeezenet, resolution=resolution, pooled=(2, 4), first=(64, 3))


NETWORKS = (
    ZooNetwork(
        "SqueezeNet v1.0 224", "SqueezeNet", _squeezenet("1.0", 224), _SQUEEZENET,
        ("squeezenet1_0 224", "SqueezeNet 224", "SqueezeNet (ONNX Model Zoo)"), 1_248_424, 0.818e9, 0.01,
    ),
    ZooNetwork(
        "SqueezeNet v1.1 224", "SqueezeNet", _squeezenet("1.1", 224), _SQUEEZENET,
        ("squeezenet1_1 224", "SqueezeNet-1.1"), 1_235_496, 0.349e9, 0.01,
    ),
    ZooNetwork("SqueezeNet v1.1 227", "SqueezeNet", _squeezenet("1.1", 227), _SQUEEZENET),
    ZooNetwork(
        "ShuffleNetV2 224", "ShuffleNet", shufflenet_v2, _SHUFFLENET,
        ("ShuffleNet-v2", "ShuffleNet V2 (ONNX Model Zoo)"), 2_278_604, 146e6, 0.01,
    ),
    ZooNetwork("ProxylessNAS 224", "ProxylessNAS", partial(proxyless_nas, first=32), _PROXYLESS_NCNN),
    ZooNetwork("ProxylessNAS mobile 224", "ProxylessNAS", proxyless_nas, _PROXYLESS, (), 4.08e6, 320e6),
)  # fmt: skip
