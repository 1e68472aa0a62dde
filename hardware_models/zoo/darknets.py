"""Small detectors made in Darknet, up to their raw maps; decoding and suppression are left out."""

from __future__ import annotations

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_LEAKY = "leakyrelu"
_OUTPUTS = 255
"""Four sides, a score and 80 classes, for three anchors."""


def _conv(b: NetworkBuilder, x: str, channels: int, kernel: int = 1, stride: int = 1) -> str:
    return b.conv(x, channels, kernel, stride, padding=kernel // 2, activation=_LEAKY)


def _partial_stage(b: NetworkBuilder, x: str) -> tuple[str, str]:
    """Two convolutions over half of the channels and what is made of them, behind ``x`` and on its own."""
    channels = b.channels(x)
    first = _conv(b, b.slice(x, channels // 2), channels // 2, 3)
    second = _conv(b, first, channels // 2, 3)
    route = _conv(b, b.concat((second, first)), channels)
    return b.concat((x, route)), route


def yolov4_tiny(b: NetworkBuilder, resolution: int = 416) -> OperatorTable:
    """Maps at a thirty-second and at a sixteenth of the image."""
    x = _conv(b, _conv(b, b.input(3, resolution, resolution), 32, 3, 2), 64, 3, 2)
    route = x
    for channels in (64, 128, 256):
        x, route = _partial_stage(b, _conv(b, x, channels, 3))
        x = b.pool(x, "max", 2, 2)
    x = _conv(b, _conv(b, x, 512, 3), 256)
    coarse = b.conv(_conv(b, x, 512, 3), _OUTPUTS, norm=False)
    x = b.concat((b.resize(_conv(b, x, 128), 2), route))
    return b.table(coarse, b.conv(_conv(b, x, 256, 3), _OUTPUTS, norm=False))


NETWORKS = (
    ZooNetwork(
        "YOLOv4-tiny 416", "YOLOv4", yolov4_tiny, "Wang et al. 2020, arXiv 2011.08036; Darknet's cfg/yolov4-tiny.cfg",
        (), 6.06e6, 3.455e9, note="ncnn's rows decode the boxes and suppress those that overlap, too",
    ),
)  # fmt: skip
