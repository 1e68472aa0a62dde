"""EfficientNets: B0 to B4, their Lite versions without squeeze-and-excitation, and those with a wide one."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import divisible, inverted_residual, linear_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "Tan and Le 2019, arXiv 1905.11946"
_LITE = f"{_PAPER}; Lite: Liu 2020, github.com/tensorflow/tpu, models/official/efficientnet/lite"
_EDGETPU = f"{_PAPER}; EdgeTPU: Gupta and Tan 2019, github.com/tensorflow/tpu, models/official/efficientnet/edgetpu"
_WIDE = f"{_PAPER}; wide squeeze: NVIDIA 2021, DeepLearningExamples, PyTorch/Classification/ConvNets/efficientnet"

Squeeze = Literal["none", "narrow", "wide"]

_BLOCKS = (
    (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1),
)  # fmt: skip
"""Expansion, kernel, channels, repeats and first stride: table 1 of the paper."""

_SCALES = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260), 3: (1.2, 1.4, 300), 4: (1.4, 1.8, 380)}
"""Width, depth and resolution of B0 to B4."""

_EDGETPU_BLOCKS = (
    (True, 3, 24, 1, 1, 4), (True, 3, 32, 2, 2, 8), (True, 3, 48, 4, 2, 8),
    (False, 5, 96, 5, 2, 8), (False, 5, 144, 4, 1, 8), (False, 5, 192, 2, 2, 8),
)  # fmt: skip
"""Whether expansion and filter are one full convolution; kernel, channels, repeats, first stride, expansion."""

_EDGETPU_SCALES = {"S": (1.0, 1.0, 224), "M": (1.0, 1.1, 240), "L": (1.2, 1.4, 300)}
"""Width, depth and resolution."""

_PROFILED = 0.06
"""Tolerance of the Lite versions' MACs: TensorFlow's profiler counts norms and activations as well."""
_LITE_RESOLUTIONS = {0: 224, 1: 240, 2: 260, 3: 280, 4: 300}


def efficientnet_features(
    b: NetworkBuilder, x: str, width: float, depth: float, *, squeeze: Squeeze = "narrow"
) -> list[str]:
    """The outputs of an EfficientNet's stages, the first and the last convolution included.

    Args:
        b: The builder.
        x: The image.
        width: Multiplier of channels.
        depth: Multiplier of repeats.
        squeeze: ``narrow``: a squeeze to a quarter of a block's input; ``wide``: of its depthwise convolution;
            ``none``: the Lite version, whose first and last stages are never scaled.
    """
    lite = squeeze == "none"
    activation = "clip" if lite else "silu"
    x = b.conv(x, 32 if lite else divisible(32 * width), 3, 2, activation=activation)
    outputs = [x]
    for stage, (expansion, kernel, channels, repeats, first) in enumerate(_BLOCKS):
        fixed = lite and stage in (0, len(_BLOCKS) - 1)
        deepened = repeats if fixed else math.ceil(repeats * depth)
        for stride in (first, *[1] * (deepened - 1)):
            inputs = b.channels(x)
            squeezed = {"none": 0, "narrow": inputs // 4, "wide": expansion * inputs // 4}[squeeze]
            x = inverted_residual(
                b, x, divisible(channels * width), expansion * inputs, kernel, stride, activation=activation,
                squeezed=squeezed,
            )  # fmt: skip
        outputs.append(x)
    outputs.append(b.conv(x, 1280 if lite else divisible(1280 * width), activation=activation))
    return outputs


def efficientnet(
    b: NetworkBuilder, width: float, depth: float, resolution: int, squeeze: Squeeze = "narrow"
) -> OperatorTable:
    """An EfficientNet for 1,000 classes."""
    x = efficientnet_features(b, b.input(3, resolution, resolution), width, depth, squeeze=squeeze)[-1]
    x = linear_classifier(b, x)
    return b.table(b.softmax(x) if squeeze == "none" else x)


def efficientnet_edgetpu(b: NetworkBuilder, width: float, depth: float, resolution: int) -> OperatorTable:
    """An EfficientNet of what an Edge TPU is fast at: full convolutions at first, no squeeze-and-excitation."""
    x = b.conv(b.input(3, resolution, resolution), divisible(32 * width), 3, 2, activation="relu")
    inputs = divisible(24 * width)  # the first block expands these, though it is given more
    for fused, kernel, channels, repeats, first, expansion in _EDGETPU_BLOCKS:
        block = fused_residual if fused else partial(inverted_residual, activation="relu")
        outputs = divisible(channels * width)
        for stride in (first, *[1] * (math.ceil(repeats * depth) - 1)):
            x = block(b, x, outputs, expansion * inputs, kernel, stride)
            inputs = outputs
    x = b.conv(x, divisible(1280 * width), activation="relu")
    return b.table(b.softmax(linear_classifier(b, x, 1001)))


def fused_residual(b: NetworkBuilder, x: str, channels: int, expanded: int, kernel: int, stride: int) -> str:
    """An inverted residual whose expansion and depthwise convolution are one full convolution."""
    y = b.conv(b.conv(x, expanded, kernel, stride, activation="relu"), channels)
    return b.add(x, y) if stride == 1 and channels == b.channels(x) else y


def _build(size: int, resolution: int = 0, squeeze: Squeeze = "narrow") -> partial[OperatorTable]:
    width, depth, own = _SCALES[size]
    return partial(efficientnet, width=width, depth=depth, resolution=resolution or own, squeeze=squeeze)


def _lite(size: int, parameters: float, macs: float) -> ZooNetwork:
    resolution = _LITE_RESOLUTIONS[size]
    build = _build(size, resolution, "none")
    name = f"EfficientNet-Lite{size} {resolution}"
    aliases = (f"EfficientNet-Lite{size}",)
    return ZooNetwork(name, "EfficientNet-Lite", build, _LITE, aliases, parameters, macs, _PROFILED)


def _scaled(size: int, parameters: float, macs: float, *aliases: str) -> ZooNetwork:
    name = f"EfficientNet-B{size} {_SCALES[size][2]}"
    return ZooNetwork(name, "EfficientNet", _build(size), _PAPER, aliases, parameters, macs, 0.05)


def _small(size: int) -> ZooNetwork:
    return ZooNetwork(f"EfficientNet-B{size} 224", "EfficientNet", _build(size, 224), _PAPER)


def _edgetpu(size: str, parameters: float, macs: float) -> ZooNetwork:
    width, depth, resolution = _EDGETPU_SCALES[size]
    build = partial(efficientnet_edgetpu, width=width, depth=depth, resolution=resolution)
    name = f"EfficientNet-EdgeTPU-{size}"
    return ZooNetwork(name, "EfficientNet-EdgeTPU", build, _EDGETPU, (), parameters, macs)


def _wide(size: int) -> ZooNetwork:
    name = f"efficientnet-widese-b{size} {_SCALES[size][2]}"
    return ZooNetwork(name, "EfficientNet", _build(size, squeeze="wide"), _WIDE)


NETWORKS = (
    _lite(0, 4.7e6, 407e6),
    _lite(1, 5.4e6, 631e6),
    _lite(2, 6.1e6, 899e6),
    _lite(3, 8.2e6, 1.44e9),
    _lite(4, 13.0e6, 2.64e9),
    _scaled(0, 5.3e6, 0.39e9, "EfficientNet-B0"),
    _scaled(1, 7.8e6, 0.70e9),
    _scaled(2, 9.2e6, 1.0e9),
    _scaled(3, 12e6, 1.8e9),
    _scaled(4, 19e6, 4.2e9, "EfficientNet-B4"),
    ZooNetwork(
        "EfficientNet-Lite4 224",
        "EfficientNet-Lite",
        _build(4, 224, "none"),
        f"{_LITE}; at the ONNX Model Zoo's size",
        ("EfficientNet (ONNX Model Zoo)",),
        13.0e6,
    ),
    _edgetpu("S", 5.44e6, 1.81e9),
    _edgetpu("M", 6.90e6, 3.04e9),
    _edgetpu("L", 10.59e6, 8.00e9),
    *(_small(size) for size in (1, 2, 3)),
    *(_wide(size) for size in (0, 4)),
)
