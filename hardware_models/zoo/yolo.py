"""YOLOv5 and YOLOv8 by Ultralytics, up to the raw maps of boxes and classes.

Decoding boxes and suppressing those that overlap is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_V5 = "Ultralytics YOLOv5, version 6: models/yolov5*.yaml, github.com/ultralytics/yolov5"
_V8 = "Ultralytics YOLOv8: cfg/models/v8/yolov8.yaml, github.com/ultralytics/ultralytics"

_SILU = "silu"
_CLASSES = 80
_SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
"""Factors of depths and of widths."""
_ANCHORS = 3
_BINS = 16
"""Of the distribution over the distance to each side of a box."""
_MASKS = 32

Stage = Callable[..., str]
"""A stage of one resolution: of a builder, a tensor, channels, repeats, and whether bottlenecks add their inputs."""


def _wide(channels: int, size: str) -> int:
    return math.ceil(channels * _SIZES[size][1] / 8) * 8


def _deep(repeats: int, size: str) -> int:
    return max(round(repeats * _SIZES[size][0]), 1)


def bottleneck(b: NetworkBuilder, x: str, kernel: int, *, adds: bool) -> str:
    """A convolution of ``kernel`` and one of 3x3, with as many channels as ``x`` has."""
    y = b.conv(b.conv(x, b.channels(x), kernel, activation=_SILU), b.channels(x), 3, activation=_SILU)
    return b.add(x, y) if adds else y


def c3(b: NetworkBuilder, x: str, channels: int, repeats: int, *, adds: bool = True) -> str:
    """Bottlenecks over half of the channels, a pointwise convolution for the other half (YOLOv5's stage)."""
    y = b.conv(x, channels // 2, activation=_SILU)
    for _ in range(repeats):
        y = bottleneck(b, y, 1, adds=adds)
    return b.conv(b.concat((y, b.conv(x, channels // 2, activation=_SILU))), channels, activation=_SILU)


def c2f(b: NetworkBuilder, x: str, channels: int, repeats: int, *, adds: bool = True) -> str:
    """Bottlenecks over one half of the channels, the outputs of all of them put together (YOLOv8's stage)."""
    parts = list(b.halves(b.conv(x, channels, activation=_SILU)))
    for _ in range(repeats):
        parts.append(bottleneck(b, parts[-1], 3, adds=adds))
    return b.conv(b.concat(parts), channels, activation=_SILU)


def pyramid_pool(b: NetworkBuilder, x: str, channels: int) -> str:
    """The largest values of ever larger windows, next to each other (SPPF)."""
    parts = [b.conv(x, b.channels(x) // 2, activation=_SILU)]
    for _ in range(3):
        parts.append(b.pool(parts[-1], "max", 5, 1, 2))
    return b.conv(b.concat(parts), channels, activation=_SILU)


def backbone(b: NetworkBuilder, x: str, size: str, stage: Stage, stem: tuple[int, int], third: int) -> list[str]:
    """The outputs of four stages, at a quarter down to a thirty-second of the image.

    Args:
        b: The builder.
        x: The image.
        size: Of the network: n, s, m, l or x.
        stage: What a stage is made of.
        stem: Kernel and padding of the first convolution.
        third: Repeats in the third stage.
    """
    kernel, padding = stem
    x = b.conv(x, _wide(64, size), kernel, 2, padding=padding, activation=_SILU)
    outputs = []
    for channels, repeats in ((128, 3), (256, 6), (512, third), (1024, 3)):
        x = b.conv(x, _wide(channels, size), 3, 2, padding=1, activation=_SILU)
        x = stage(b, x, _wide(channels, size), _deep(repeats, size))
        outputs.append(x)
    return outputs


def neck(b: NetworkBuilder, levels: Sequence[str], size: str, stage: Stage, *, reduces: bool) -> tuple[str, str, str]:
    """Mixes three resolutions, first down from the coarsest, then up again.

    Args:
        b: The builder.
        levels: At an eighth, a sixteenth and a thirty-second of the image.
        size: Of the network.
        stage: What stands behind each concatenation.
        reduces: Whether pointwise convolutions halve channels on the way down, as in YOLOv5.
    """
    fine, middle, coarse = levels
    narrow, normal, wide = (_wide(channels, size) for channels in (256, 512, 1024))
    repeats = _deep(3, size)
    low = b.conv(coarse, normal, activation=_SILU) if reduces else coarse
    x = stage(b, b.concat((b.resize(low, 2), middle)), normal, repeats, adds=False)
    mid = b.conv(x, narrow, activation=_SILU) if reduces else x
    first = stage(b, b.concat((b.resize(mid, 2), fine)), narrow, repeats, adds=False)
    x = b.conv(first, narrow, 3, 2, padding=1, activation=_SILU)
    second = stage(b, b.concat((x, mid)), normal, repeats, adds=False)
    x = b.conv(second, normal, 3, 2, padding=1, activation=_SILU)
    return first, second, stage(b, b.concat((x, low)), wide, repeats, adds=False)


def split_heads(b: NetworkBuilder, levels: Sequence[str]) -> list[str]:
    """YOLOv8's: of each resolution a map of boxes and one of classes."""
    boxes = max(16, b.channels(levels[0]) // 4, 4 * _BINS)
    classes = max(b.channels(levels[0]), _CLASSES)
    outputs = []
    for x in levels:
        for width, out in ((boxes, 4 * _BINS), (classes, _CLASSES)):
            y = b.conv(b.conv(x, width, 3, activation=_SILU), width, 3, activation=_SILU)
            outputs.append(b.conv(y, out, norm=False))
    return outputs


def _v5_levels(b: NetworkBuilder, size: str, resolution: int) -> tuple[str, str, str]:
    stages = backbone(b, b.input(3, resolution, resolution), size, c3, (6, 2), 9)
    coarse = pyramid_pool(b, stages[3], _wide(1024, size))
    return neck(b, (stages[1], stages[2], coarse), size, c3, reduces=True)


def yolov5(b: NetworkBuilder, size: str, resolution: int = 640) -> OperatorTable:
    """Of each resolution one map: four sides, a score and the classes, for three anchors."""
    levels = _v5_levels(b, size, resolution)
    return b.table(*(b.conv(x, _ANCHORS * (5 + _CLASSES), norm=False) for x in levels))


def yolov5_segmentation(b: NetworkBuilder, size: str, resolution: int = 640) -> OperatorTable:
    """YOLOv5 whose anchors have factors of 32 masks as well, and those masks at a quarter of the image."""
    levels = _v5_levels(b, size, resolution)
    maps = [b.conv(x, _ANCHORS * (5 + _CLASSES + _MASKS), norm=False) for x in levels]
    width = _wide(256, size)
    x = b.resize(b.conv(levels[0], width, 3, activation=_SILU), 2)
    masks = b.conv(b.conv(x, width, 3, activation=_SILU), _MASKS, activation=_SILU)
    return b.table(*maps, masks)


def yolov5_classifier(b: NetworkBuilder, size: str, resolution: int = 224) -> OperatorTable:
    """The backbone of YOLOv5 without its pool, and a linear layer for 1,000 classes."""
    x = backbone(b, b.input(3, resolution, resolution), size, c3, (6, 2), 9)[-1]
    x = b.flatten(b.global_avg_pool(b.conv(x, 1280, activation=_SILU)))
    return b.table(b.linear(x, 1000))


def yolov5u(b: NetworkBuilder, size: str, resolution: int = 640) -> OperatorTable:
    """YOLOv5 with the heads of YOLOv8, which need no anchors."""
    return b.table(*split_heads(b, _v5_levels(b, size, resolution)))


def yolov8(b: NetworkBuilder, size: str, resolution: int = 640) -> OperatorTable:
    """Of each resolution a map of distributions over the distances to four sides, and a map of classes."""
    stages = backbone(b, b.input(3, resolution, resolution), size, c2f, (3, 1), 6)
    coarse = pyramid_pool(b, stages[3], _wide(1024, size))
    return b.table(*split_heads(b, neck(b, (stages[1], stages[2], coarse), size, c2f, reduces=False)))


_V5_PUBLISHED = {
    "n": (1_867_405, 4.5e9), "s": (7_225_885, 16.5e9), "m": (21_172_173, 49.0e9), "l": (46_533_693, 109.1e9),
    "x": (86_705_005, 205.7e9),
}  # fmt: skip
"""Parameters, and operations: two each multiply-accumulate; as are those below."""
_V5_SEGMENTATION = {
    "n": (2.0e6, 7.1e9), "s": (7.6e6, 26.4e9), "m": (22.0e6, 70.8e9), "l": (47.9e6, 147.7e9), "x": (88.8e6, 265.7e9),
}  # fmt: skip
_V5_CLASSIFICATION = {
    "n": (2.5e6, 0.5e9), "s": (5.4e6, 1.4e9), "m": (12.9e6, 3.9e9), "l": (26.5e6, 8.5e9), "x": (48.1e6, 15.9e9),
}  # fmt: skip
_COUNTED_TOO_OFTEN = 48 * 1280 * 1000
"""Of the linear layer: its authors scale the cost of an image of 32 pixels to one of 224."""

_DECODED = "published rows decode the boxes, and some suppress those that overlap, too"

NETWORKS = (
    *(
        ZooNetwork(
            f"YOLOv5{size} 640", "YOLOv5", partial(yolov5, size=size), _V5, (), parameters, operations / 2,
            note=_DECODED,
        )
        for size, (parameters, operations) in _V5_PUBLISHED.items()
    ),
    *(
        ZooNetwork(
            f"YOLOv5{size}-seg 640", "YOLOv5", partial(yolov5_segmentation, size=size), _V5, (), parameters,
            operations / 2, note=_DECODED,
        )
        for size, (parameters, operations) in _V5_SEGMENTATION.items()
    ),
    *(
        ZooNetwork(
            f"YOLOv5{size}-cls 224", "YOLOv5", partial(yolov5_classifier, size=size), _V5, (), parameters,
            operations / 2 - _COUNTED_TOO_OFTEN, 0.06,
        )
        for size, (parameters, operations) in _V5_CLASSIFICATION.items()
    ),
    ZooNetwork(
        "YOLOv5mu 640", "YOLOv5", partial(yolov5u, size="m"),
        f"{_V8}: cfg/models/v5/yolov5.yaml; qai_hub_models/models/yolov5/model.py takes yolov5mu.pt",
        ("Yolo-v5",), 25.1e6, 32.1e9, note=_DECODED,
    ),
    ZooNetwork(
        "YOLOv8n 640", "YOLOv8", partial(yolov8, size="n"), f"{_V8}; AI Hub takes YOLOv8n at 640 pixels",
        ("YOLOv8-Detection",), 3_157_184, 4.35e9, note=_DECODED,
    ),
    ZooNetwork("YOLOv8s 640", "YOLOv8", partial(yolov8, size="s"), _V8, (), 11.2e6, 14.3e9, note=_DECODED),
)  # fmt: skip
