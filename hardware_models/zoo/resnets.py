"""Residual networks."""

from __future__ import annotations

from functools import partial
from typing import Literal

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import linear_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "He et al. 2015, arXiv 1512.03385"
_V15 = f"{_PAPER}; v1.5: the stride in the 3x3 convolution, as in Facebook's and PyTorch's"

Version = Literal["v1", "v1.5"]

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each stage: table 1 of the paper."""
_BOTTLENECKED = 50
"""The shallowest network made of bottlenecks."""
_EXPANSION = 4


def resnet_features(b: NetworkBuilder, x: str, depth: int, version: Version = "v1.5") -> list[str]:
    """The outputs of the four stages, at a quarter down to a thirty-second of the image."""
    x = b.conv(x, 64, 7, 2, padding=3, activation="relu")
    x = b.pool(x, "max", 3, 2, 1)
    outputs, bottlenecked = [], depth >= _BOTTLENECKED
    for stage, repeats in enumerate(_DEPTHS[depth]):
        width = 64 * 2**stage
        for index in range(repeats):
            stride = 2 if stage and not index else 1
            x = bottleneck(b, x, width, stride, version) if bottlenecked else basic_block(b, x, width, stride)
        outputs.append(x)
    return outputs


def basic_block(b: NetworkBuilder, x: str, width: int, stride: int = 1) -> str:
    """Two 3x3 convolutions and what they are added to."""
    y = b.conv(x, width, 3, stride, padding=1, activation="relu")
    y = b.conv(y, width, 3, padding=1)
    return b.add(_shortcut(b, x, width, stride), y, activation="relu")


def bottleneck(b: NetworkBuilder, x: str, width: int, stride: int = 1, version: Version = "v1.5") -> str:
    """A 3x3 convolution between two pointwise ones and what they are added to."""
    first, second = (stride, 1) if version == "v1" else (1, stride)
    y = b.conv(x, width, 1, first, padding=0, activation="relu")
    y = b.conv(y, width, 3, second, padding=1, activation="relu")
    y = b.conv(y, _EXPANSION * width)
    return b.add(_shortcut(b, x, _EXPANSION * width, stride), y, activation="relu")


def _shortcut(b: NetworkBuilder, x: str, channels: int, stride: int) -> str:
    if stride == 1 and b.channels(x) == channels:
        return x
    return b.conv(x, channels, 1, stride, padding=0)


def resnet(
    b: NetworkBuilder, depth: int, size: tuple[int, int] = (224, 224), version: Version = "v1.5"
) -> OperatorTable:
    """A residual network for 1,000 classes."""
    return b.table(linear_classifier(b, resnet_features(b, b.input(3, *size), depth, version)[-1]))


def _build(depth: int, version: Version = "v1.5") -> partial[OperatorTable]:
    return partial(resnet, depth=depth, version=version)


NETWORKS = (
    ZooNetwork("ResNet-18 224", "ResNet", _build(18), _PAPER, ("ResNet18",), 11_689_512, 1.814e9, 0.001),
    ZooNetwork("ResNet-34 224", "ResNet", _build(34), _PAPER, ("ResNet34",), 21_797_672, 3.664e9, 0.001),
    ZooNetwork("ResNet-50 224", "ResNet", _build(50, "v1"), _PAPER, ("ResNet-50 v1 224",), 25_557_032, 3.86e9, 0.01),
    ZooNetwork(
        "ResNet-50 v1.5 224", "ResNet", _build(50), _V15,
        ("ResNet50", "ResNet50 V1.5", "ResNet50 V1.5 MLPerf", "ResNet50 V1.5 (ONNX Model Zoo)"),
        25_557_032, 4.089e9, 0.001,
    ),
    ZooNetwork("ResNet-101 224", "ResNet", _build(101), _V15, ("ResNet101",), 44_549_160, 7.801e9, 0.001),
    ZooNetwork("ResNet-152 224", "ResNet", _build(152), _V15, ("ResNet152",), 60_192_808, 11.514e9, 0.001),
)  # fmt: skip
