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
_VD = f"{_PAPER}; vd: He et al. 2018, arXiv 1812.01187, ResNet-D; PaddlePaddle's resnet50_vd"
_V2 = "He et al. 2016, arXiv 1603.05027; as in Keras"
_WIDE = "Zagoruyko and Komodakis 2016, arXiv 1605.07146; as in PyTorch"
_REID = (
    f"{_PAPER}; github.com/TencentYoutuResearch/PersonReID-YouReID, models/baseline.py; parameters by OpenCV Zoo's file"
)

Version = Literal["v1", "v1.5", "vd"]
"""Where a bottleneck has its stride: in its first or its second convolution; and ``vd``, which has three small
convolutions for the first large one, and shrinks shortcuts by a pool."""

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each stage: table 1 of the paper."""
_BOTTLENECKED = 50
"""The shallowest network made of bottlenecks."""
_EXPANSION = 4


def resnet_features(
    b: NetworkBuilder, x: str, depth: int, version: Version = "v1.5", *, widening: int = 1, last_stride: int = 2
) -> list[str]:
    """The outputs of the four stages, at a quarter down to a thirty-second of the image.

    Args:
        b: The builder.
        x: The image.
        depth: Layers with weights.
        version: Of the blocks.
        widening: Of what lies inside bottlenecks.
        last_stride: Of the last stage.
    """
    x = b.pool(_stem(b, x, version), "max", 3, 2, 1)
    outputs, bottlenecked = [], depth >= _BOTTLENECKED
    for stage, (repeats, first) in enumerate(zip(_DEPTHS[depth], (1, 2, 2, last_stride), strict=True)):
        width = 64 * 2**stage
        for stride in (first, *[1] * (repeats - 1)):
            x = bottleneck(b, x, width, stride, version, widening) if bottlenecked else basic_block(b, x, width, stride)
        outputs.append(x)
    return outputs


def _stem(b: NetworkBuilder, x: str, version: Version) -> str:
    if version != "vd":
        return b.conv(x, 64, 7, 2, padding=3, activation="relu")
    for channels, stride in ((32, 2), (32, 1), (64, 1)):
        x = b.conv(x, channels, 3, stride, padding=1, activation="relu")
    return x


def basic_block(b: NetworkBuilder, x: str, width: int, stride: int = 1) -> str:
    """Two 3x3 convolutions and what they are added to."""
    y = b.conv(x, width, 3, stride, padding=1, activation="relu")
    y = b.conv(y, width, 3, padding=1)
    return b.add(y, _shortcut(b, x, width, stride), activation="relu")


def bottleneck(
    b: NetworkBuilder, x: str, width: int, stride: int = 1, version: Version = "v1.5", widening: int = 1
) -> str:
    """A 3x3 convolution between two pointwise ones and what they are added to."""
    first, second = (stride, 1) if version == "v1" else (1, stride)
    y = b.conv(x, widening * width, 1, first, padding=0, activation="relu")
    y = b.conv(y, widening * width, 3, second, padding=1, activation="relu")
    y = b.conv(y, _EXPANSION * width)
    return b.add(y, _shortcut(b, x, _EXPANSION * width, stride, version), activation="relu")


def _shortcut(b: NetworkBuilder, x: str, channels: int, stride: int, version: Version = "v1.5") -> str:
    if stride == 1 and b.channels(x) == channels:
        return x
    if version == "vd" and stride > 1:
        return b.conv(b.pool(x, "avg", stride, stride), channels)
    return b.conv(x, channels, 1, stride, padding=0)


def resnet(
    b: NetworkBuilder, depth: int, resolution: int = 224, version: Version = "v1.5", widening: int = 1
) -> OperatorTable:
    """A residual network for 1,000 classes."""
    x = b.input(3, resolution, resolution)
    return b.table(linear_classifier(b, resnet_features(b, x, depth, version, widening=widening)[-1]))


def resnet_v2(b: NetworkBuilder, depth: int, resolution: int = 224) -> OperatorTable:
    """A residual network whose norms and activations stand in front of the convolutions."""
    x = b.conv(b.input(3, resolution, resolution), 64, 7, 2, padding=3, norm=False)
    x = b.pool(x, "max", 3, 2, 1)
    for stage, repeats in enumerate(_DEPTHS[depth]):
        last = 1 if stage == len(_DEPTHS[depth]) - 1 else 2
        for index, stride in enumerate((*[1] * (repeats - 1), last)):
            x = _preactivated(b, x, 64 * 2**stage, stride, projects=not index)
    x = b.activation(b.batch_norm(x), "relu")
    return b.table(linear_classifier(b, x))


def _preactivated(b: NetworkBuilder, x: str, width: int, stride: int, *, projects: bool) -> str:
    """A bottleneck behind a norm, which no convolution can absorb."""
    activated = b.activation(b.batch_norm(x), "relu")
    if projects:
        shortcut = b.conv(activated, _EXPANSION * width, 1, stride, padding=0, norm=False)
    else:
        shortcut = b.pool(x, "max", 1, stride) if stride > 1 else x
    y = b.conv(activated, width, activation="relu")
    y = b.conv(y, width, 3, stride, padding=1, activation="relu")
    return b.add(shortcut, b.conv(y, _EXPANSION * width, norm=False))


def youtu_reid(b: NetworkBuilder) -> OperatorTable:
    """Tencent's baseline for person re-identification: both pools of ResNet-50 without its last stride."""
    x = resnet_features(b, b.input(3, 256, 128), 50, last_stride=1)[-1]
    pooled = b.concat((b.flatten(b.global_avg_pool(x)), b.reduce(x, (2, 3), "ReduceMax")))
    return b.table(b.linear(pooled, 768, norm=True, bias=not b.norms))


def _build(depth: int, version: Version = "v1.5", resolution: int = 224) -> partial[OperatorTable]:
    return partial(resnet, depth=depth, version=version, resolution=resolution)


def _second(depth: int, parameters: float) -> ZooNetwork:
    """``parameters`` as Keras counts them: four a norm, where a table has two."""
    build = partial(resnet_v2, depth=depth, resolution=299)
    aliases = (f"ResNet-V2-{depth} 299",)
    return ZooNetwork(f"ResNet-{depth} V2 299", "ResNet", build, _V2, aliases, parameters, 0, 0.005)


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
    ZooNetwork("ResNet-50 V1 299", "ResNet", _build(50, "v1", 299), _PAPER, (), 25_557_032, 0, 0.001),
    _second(50, 25_613_800),
    _second(101, 44_675_560),
    _second(152, 60_380_648),
    ZooNetwork(
        "WideResNet50 224", "ResNet", partial(resnet, depth=50, widening=2), _WIDE, ("WideResNet50",),
        68_883_240, 11.398e9, 0.001,
    ),
    ZooNetwork("PP-ResNet50 224", "ResNet", _build(50, "vd"), _VD, (), 25.58e6, 4.35e9, 0.01),
    ZooNetwork("YoutuReID ResNet50 128x256", "ResNet", youtu_reid, _REID, (), 106_878_407 / 4, 0, 0.005),
)  # fmt: skip
