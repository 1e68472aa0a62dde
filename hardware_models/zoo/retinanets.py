"""RetinaNet, up to the raw maps of boxes and classes; decoding and suppression are left out."""

from __future__ import annotations

from collections.abc import Sequence

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import linear_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "Lin et al. 2017, arXiv 1708.02002; torchvision's retinanet_resnet50_fpn"
_RESNEXT = "Xie et al. 2016, arXiv 1611.05431"

_WIDTH = 256
_ANCHORS = 9


def resnext_features(b: NetworkBuilder, x: str, groups: int = 32, group_width: int = 4) -> list[str]:
    """The outputs of the four stages of ResNeXt-50; ``groups`` of 1 and a ``group_width`` of 64 make it ResNet-50."""
    x = b.pool(b.conv(x, 64, 7, 2, padding=3, activation="relu"), "max", 3, 2, 1)
    outputs = []
    for stage, repeats in enumerate((3, 4, 6, 3)):
        for index in range(repeats):
            x = _block(b, x, groups, groups * group_width * 2**stage, 256 * 2**stage, 2 if stage and not index else 1)
        outputs.append(x)
    return outputs


def _block(b: NetworkBuilder, x: str, groups: int, inner: int, channels: int, stride: int) -> str:
    y = b.conv(x, inner, activation="relu")
    y = b.conv(y, inner, 3, stride, padding=1, groups=groups, activation="relu")
    y = b.conv(y, channels)
    same = b.channels(x) == channels
    return b.add(y, x if same else b.conv(x, channels, 1, stride, padding=0), activation="relu")


def feature_pyramid(b: NetworkBuilder, stages: Sequence[str]) -> list[str]:
    """Three resolutions mixed from the coarsest down (Lin et al. 2016, arXiv 1612.03144), and two coarser ones."""
    lateral = [b.conv(x, _WIDTH, norm=False) for x in stages]
    for index in range(len(lateral) - 1, 0, -1):
        lateral[index - 1] = b.add(lateral[index - 1], b.resize(lateral[index], 2))
    levels = [b.conv(x, _WIDTH, 3, padding=1, norm=False) for x in lateral]
    for activation in ("", "relu"):
        x = b.activation(levels[-1], activation) if activation else levels[-1]
        levels.append(b.conv(x, _WIDTH, 3, 2, padding=1, norm=False))
    return levels


def _head(b: NetworkBuilder, x: str, outputs: int, name: str) -> str:
    """Four convolutions and one more, whose weights all resolutions share."""
    for index in range(4):
        x = b.conv(x, _WIDTH, 3, padding=1, activation="relu", norm=False, name=f"{name}{index}")
    return b.conv(x, outputs, 3, padding=1, norm=False, name=name)


def retinanet(
    b: NetworkBuilder, resolution: int = 800, classes: int = 264, groups: int = 32, group_width: int = 4
) -> OperatorTable:
    """RetinaNet on ResNeXt-50, for the classes of OpenImages that MLPerf takes."""
    stages = resnext_features(b, b.input(3, resolution, resolution), groups, group_width)
    levels = feature_pyramid(b, stages[1:])
    scores = [_head(b, x, _ANCHORS * classes, "classes") for x in levels]
    return b.table(*scores, *(_head(b, x, _ANCHORS * 4, "boxes") for x in levels))


def resnext50(b: NetworkBuilder) -> OperatorTable:
    """ResNeXt-50 32x4d for 1,000 classes at 224 pixels."""
    return b.table(linear_classifier(b, resnext_features(b, b.input(3, 224, 224))[-1]))


NETWORKS = (
    ZooNetwork("ResNeXt-50 32x4d 224", "ResNeXt", resnext50, _RESNEXT, ("resnext50_32x4d",), 25_028_904, 4.23e9, 0.01),
    ZooNetwork(
        "RetinaNet ResNeXt50 800", "RetinaNet", retinanet, f"{_PAPER}; {_RESNEXT}",
        note="published rows decode the boxes and suppress those that overlap, too",
    ),
)  # fmt: skip
