"""MobileNets 1, 2 and 3 of every width and resolution."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import conv_classifier, divisible, inverted_residual
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_V1_PAPER = "Howard et al. 2017, arXiv 1704.04861"
_V2_PAPER = "Sandler et al. 2018, arXiv 1801.04381"
_SFACE = "Zhong et al. 2021, doi 10.1109/TIP.2020.3048632; as in OpenCV Zoo; parameters by its file"
_V3_PAPER = "Howard et al. 2019, arXiv 1905.02244"

_V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1),
)  # fmt: skip
"""Channels and stride; table 1 of the paper, with the stride that its last block really has."""

_V2_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats and first stride: table 2 of the paper."""

_V3_LARGE = (
    (3, 16, 16, False, "relu", 1), (3, 64, 24, False, "relu", 2), (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2), (5, 120, 40, True, "relu", 1), (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2), (3, 200, 80, False, "hardswish", 1), (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1), (3, 480, 112, True, "hardswish", 1), (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2), (5, 960, 160, True, "hardswish", 1), (5, 960, 160, True, "hardswish", 1),
)  # fmt: skip
"""Kernel, expanded channels, channels, squeeze-and-excitation, activation, stride: table 1 of the paper."""

_V3_SMALL = (
    (3, 16, 16, True, "relu", 2), (3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2), (5, 240, 40, True, "hardswish", 1), (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1), (5, 144, 48, True, "hardswish", 1), (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1), (5, 576, 96, True, "hardswish", 1),
)  # fmt: skip
"""The same: table 2 of the paper."""


def mobilenet_v1_features(
    b: NetworkBuilder, x: str, width: float = 1.0, activation: str = "clip", *, stride: int = 2
) -> list[str]:
    """The 14 outputs of MobileNetV1's convolutions, the first with ``stride``; detectors take some of them."""
    x = b.conv(x, _v1_width(32, width), 3, stride, activation=activation)
    outputs = [x]
    for channels, step in _V1_BLOCKS:
        x = b.conv(x, b.channels(x), 3, step, groups=b.channels(x), activation=activation)
        x = b.conv(x, _v1_width(channels, width), activation=activation)
        outputs.append(x)
    return outputs


def _v1_width(channels: int, width: float) -> int:
    return max(int(channels * width), 8)


def mobilenet_v1(
    b: NetworkBuilder, width: float, resolution: int, classes: int = 1001, colours: int = 3
) -> OperatorTable:
    """TensorFlow's MobileNetV1, whose classes have one for the background."""
    x = mobilenet_v1_features(b, b.input(colours, resolution, resolution), width)[-1]
    return b.table(conv_classifier(b, x, classes))


def sface(b: NetworkBuilder) -> OperatorTable:
    """A face of 112 pixels as 128 features: MobileNetV1 without its first stride, then one large linear layer."""
    x = mobilenet_v1_features(b, b.input(3, 112, 112), activation="prelu", stride=1)[-1]
    return b.table(b.linear(b.flatten(x), 128, norm=True))


def mobilenet_v2_features(b: NetworkBuilder, x: str, width: float = 1.0) -> list[str]:
    """The 19 outputs of MobileNetV2's blocks, the first and the last convolution included."""
    x = b.conv(x, divisible(32 * width), 3, 2, activation="clip")
    outputs = [x]
    for expansion, channels, repeats, first in _V2_BLOCKS:
        for stride in (first, *[1] * (repeats - 1)):
            x = inverted_residual(b, x, divisible(channels * width), expansion * b.channels(x), 3, stride)
            outputs.append(x)
    outputs.append(b.conv(x, divisible(1280 * max(width, 1.0)), activation="clip"))
    return outputs


def mobilenet_v2(b: NetworkBuilder, width: float, resolution: int, classes: int = 1001) -> OperatorTable:
    """TensorFlow's MobileNetV2, whose classes have one for the background."""
    x = mobilenet_v2_features(b, b.input(3, resolution, resolution), width)[-1]
    return b.table(conv_classifier(b, x, classes))


def mobilenet_v3_features(b: NetworkBuilder, x: str, *, large: bool = True) -> list[str]:
    """The outputs of MobileNetV3's blocks, the first and the last convolution included."""
    x = b.conv(x, 16, 3, 2, padding=1, activation="hardswish")
    outputs = [x]
    for kernel, expanded, channels, squeezes, activation, stride in _V3_LARGE if large else _V3_SMALL:
        x = inverted_residual(
            b, x, channels, expanded, kernel, stride, activation=activation, gate="hardsigmoid",
            squeezed=divisible(expanded / 4) if squeezes else 0, squeeze_activation="relu", padding=kernel // 2,
        )  # fmt: skip
        outputs.append(x)
    outputs.append(b.conv(x, 6 * b.channels(x), activation="hardswish"))
    return outputs


def mobilenet_v3(b: NetworkBuilder, *, large: bool) -> OperatorTable:
    """MobileNetV3 at 224 pixels; the layers behind the pool are linear, as in PyTorch's."""
    x = mobilenet_v3_features(b, b.input(3, 224, 224), large=large)[-1]
    x = b.linear(b.flatten(b.global_avg_pool(x)), 1280 if large else 1024, activation="hardswish")
    return b.table(b.linear(x, 1000))


_V1_WIDTHS = {1.0: 4.24e6, 0.75: 2.59e6, 0.5: 1.34e6, 0.25: 0.47e6}
"""Parameters by width, of the checkpoints in TensorFlow's research/slim."""
_V1_RESOLUTIONS = (224, 192, 160, 128)
_V1_MACS = {
    (1.0, 224): 569e6, (0.75, 224): 325e6, (0.5, 224): 149e6, (0.25, 224): 41e6,
    (1.0, 192): 418e6, (1.0, 160): 290e6, (1.0, 128): 186e6,
}  # fmt: skip
"""By width and resolution: tables 6 and 7 of the paper."""

_V2_PUBLISHED = {
    (1.4, 224): (6.06e6, 582e6), (1.3, 224): (5.34e6, 509e6), (1.0, 224): (3.47e6, 300e6), (1.0, 192): (3.47e6, 221e6),
    (1.0, 160): (3.47e6, 154e6), (1.0, 128): (3.47e6, 99e6), (1.0, 96): (3.47e6, 56e6), (0.75, 224): (2.61e6, 209e6),
    (0.75, 192): (2.61e6, 153e6), (0.75, 160): (2.61e6, 107e6), (0.75, 128): (2.61e6, 69e6), (0.75, 96): (2.61e6, 39e6),
    (0.5, 224): (1.95e6, 97e6), (0.5, 192): (1.95e6, 71e6), (0.5, 160): (1.95e6, 50e6), (0.5, 128): (1.95e6, 32e6),
    (0.5, 96): (1.95e6, 18e6), (0.35, 224): (1.66e6, 59e6), (0.35, 192): (1.66e6, 43e6), (0.35, 160): (1.66e6, 30e6),
    (0.35, 128): (1.66e6, 20e6), (0.35, 96): (1.66e6, 11e6),
}  # fmt: skip
"""Parameters and MACs by width and resolution, from the README of TensorFlow's research/slim/nets/mobilenet, which
rounds MACs down to millions."""


def _v1(width: float, resolution: int) -> ZooNetwork:
    name = f"MobileNetV1 {width} {resolution}"
    macs = _V1_MACS.get((width, resolution), 0)
    aliases = (f"MobileNet v1 {width}X {resolution}", f"{name} ImageNet")
    build = partial(mobilenet_v1, width=width, resolution=resolution)
    return ZooNetwork(name, "MobileNetV1", build, _V1_PAPER, aliases, _V1_WIDTHS[width], macs, 0.01)


def _v2(width: float, resolution: int) -> ZooNetwork:
    name = f"MobileNetV2 {width} {resolution}"
    parameters, macs = _V2_PUBLISHED[width, resolution]
    own = ("MobileNet-v2",) if (width, resolution) == (1.0, 224) else ()
    aliases = (f"MobileNet v2 {width}X {resolution}", f"{name} ImageNet", *own)
    build = partial(mobilenet_v2, width=width, resolution=resolution)
    return ZooNetwork(name, "MobileNetV2", build, _V2_PAPER, aliases, parameters, macs, 0.02 if macs >= 50e6 else 0.1)


def _v1_flowers(width: float, resolution: int, colours: int = 3) -> ZooNetwork:
    name = f"MobileNetV1 {width} {resolution}{' gray' if colours == 1 else ''} (5 cls)"
    build = partial(mobilenet_v1, width=width, resolution=resolution, classes=5, colours=colours)
    return ZooNetwork(name, "MobileNetV1", build, _V1_PAPER)


def _v2_flowers(width: float, resolution: int) -> ZooNetwork:
    build = partial(mobilenet_v2, width=width, resolution=resolution, classes=5)
    return ZooNetwork(f"MobileNetV2 {width} {resolution} (5 cls)", "MobileNetV2", build, _V2_PAPER)


NETWORKS = (
    *(_v1(width, resolution) for width in _V1_WIDTHS for resolution in _V1_RESOLUTIONS),
    *(_v2(width, resolution) for width, resolution in _V2_PUBLISHED),
    _v1_flowers(0.25, 224),
    _v1_flowers(0.5, 224),
    _v1_flowers(0.25, 96),
    _v1_flowers(0.25, 96, colours=1),
    _v2_flowers(0.35, 128),
    _v2_flowers(0.35, 224),
    ZooNetwork("SFace 112", "MobileNetV1", sface, _SFACE, (), 38_696_353 / 4, 0, 0.005),
    ZooNetwork(
        "MobileNet-v3-Large", "MobileNetV3", partial(mobilenet_v3, large=True), _V3_PAPER,
        ("MobileNetV3 Large 224", "MobileNetV3-Large 1.0 224", "MobileNet v3 Large 1.0X 224"), 5.4e6, 219e6,
    ),
    ZooNetwork(
        "MobileNet-v3-Small", "MobileNetV3", partial(mobilenet_v3, large=False), _V3_PAPER,
        ("MobileNetV3 Small 224", "MobileNetV3-Small 1.0 224", "MobileNet v3 Small 1.0X 224"), 2.54e6, 56e6,
    ),
)  # fmt: skip
