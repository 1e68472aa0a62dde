"""Single-shot detectors, up to the raw maps of boxes and classes (Liu et al. 2015, arXiv 1512.02325).

Decoding boxes and suppressing those that overlap is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.mobilenets import mobilenet_v1_features
from kneepoint.hardware_models.zoo.network import ZooNetwork
from kneepoint.hardware_models.zoo.resnets import basic_block

_PAPER = "Liu et al. 2015, arXiv 1512.02325"
_COCO = 91
"""Classes and the background, as TensorFlow numbers them."""
_VOC = 21
_EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))
"""Channels of the two convolutions that halve a resolution, four times."""


def _maps(b: NetworkBuilder, x: str, anchors: int, classes: int, kernel: int = 1, stride: int = 1) -> list[str]:
    """Boxes and classes of one resolution."""
    padding = kernel // 2
    return [b.conv(x, anchors * per, kernel, stride, padding=padding, norm=False) for per in (4, classes)]


def _heads(b: NetworkBuilder, levels: Iterable[str], anchors: Sequence[int], classes: int) -> OperatorTable:
    maps = [_maps(b, x, count, classes) for x, count in zip(levels, anchors, strict=True)]
    return b.table(*(output for pair in maps for output in pair))


def ssd_mobilenet_v1(
    b: NetworkBuilder, resolution: int = 300, *, classes: int = _COCO, activation: str = "clip", norm: bool = True
) -> OperatorTable:
    """MobileNetV1 and four smaller resolutions behind it; pointwise heads of six resolutions.

    Args:
        b: The builder.
        resolution: Of the image.
        classes: The background included.
        activation: ``clip`` in TensorFlow's, ``relu`` in Caffe's.
        norm: Whether the convolutions behind MobileNetV1 have norms.
    """
    features = mobilenet_v1_features(b, b.input(3, resolution, resolution), activation=activation)
    x = features[13]
    levels = [features[11], x]
    for narrow, wide in _EXTRAS:
        x = b.conv(x, narrow, activation=activation, norm=norm)
        x = b.conv(x, wide, 3, 2, activation=activation, norm=norm)
        levels.append(x)
    return _heads(b, levels, (3, 6, 6, 6, 6, 6), classes)


def ssd_resnet34(b: NetworkBuilder, resolution: int = 1200, classes: int = 81) -> OperatorTable:
    """MLPerf's: ResNet-34 up to its third stage without a stride there, five smaller resolutions; heads of stride 3."""
    x = b.conv(b.input(3, resolution, resolution), 64, 7, 2, padding=3, activation="relu")
    x = b.pool(x, "max", 3, 2, 1)
    for width, repeats, first in ((64, 3, 1), (128, 4, 2), (256, 6, 1)):
        for stride in (first, *[1] * (repeats - 1)):
            x = basic_block(b, x, width, stride)
    levels = [x]
    for narrow, wide, stride, padding in (
        (256, 512, 2, 1), (256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 2, 0), (128, 256, 1, 0),
    ):  # fmt: skip
        x = b.conv(x, narrow, activation="relu", norm=False)
        x = b.conv(x, wide, 3, stride, padding=padding, activation="relu", norm=False)
        levels.append(x)
    anchors = (4, 6, 6, 6, 4, 4)
    maps = [_maps(b, x, count, classes, 3, 3) for x, count in zip(levels, anchors, strict=True)]
    return b.table(*(output for pair in maps for output in pair))


_DECODED = "published rows decode the boxes and suppress those that overlap, too"

NETWORKS = (
    ZooNetwork(
        "MobileNetV1-SSD 300", "SSD", partial(ssd_mobilenet_v1, classes=_VOC, activation="relu", norm=False),
        f"{_PAPER}; github.com/chuanqi305/MobileNet-SSD; ncnn's benchmark/mobilenet_ssd.param", (), 5.783e6, 1.158e9,
        note=_DECODED,
    ),
    ZooNetwork(
        "SSD-MobileNetV1 300", "SSD", ssd_mobilenet_v1,
        f"{_PAPER}; TensorFlow's ssd_mobilenet_v1_coco; figures of OpenVINO's Open Model Zoo",
        ("SSD MobileNet V1 (ONNX Model Zoo)", "ssd-mobilenet-non-quantized"), 6.807e6, 1.247e9, note=_DECODED,
    ),
    ZooNetwork(
        "MobileNetV1-SSD 224", "SSD", partial(ssd_mobilenet_v1, resolution=224), f"{_PAPER}; Coral's MobileNet v1 SSD",
        note=_DECODED,
    ),
    ZooNetwork(
        "SSD-ResNet34 1200", "SSD", ssd_resnet34,
        f"{_PAPER}; MLPerf Inference's SSD-ResNet34; figures of OpenVINO's Open Model Zoo", (), 20.058e6, 216.7e9,
        note=_DECODED,
    ),
)  # fmt: skip
