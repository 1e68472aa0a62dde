"""NanoDet, up to the raw maps of classes and of distributions over the distances to four sides.

Decoding boxes and suppressing those that overlap is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.light_networks import shufflenet_v2_features
from kneepoint.hardware_models.zoo.network import ZooNetwork

_SOURCE = "github.com/RangiLyu/nanodet"
_LEAKY = "leakyrelu"
_WIDTH = 96
_OUTPUTS = 80 + 4 * 8
"""Classes, and eight bins for each of four distances."""


def _separable(b: NetworkBuilder, x: str, kernel: int, stride: int = 1) -> str:
    x = b.conv(x, _WIDTH, kernel, stride, padding=kernel // 2, groups=_WIDTH, activation=_LEAKY)
    return b.conv(x, _WIDTH, activation=_LEAKY)


def _heads(b: NetworkBuilder, levels: Sequence[str], kernel: int) -> list[str]:
    """Two separable convolutions and a pointwise one for every resolution."""
    return [b.conv(_separable(b, _separable(b, x, kernel), kernel), _OUTPUTS, norm=False) for x in levels]


def nanodet_m(b: NetworkBuilder, resolution: int = 320) -> OperatorTable:
    """NanoDet-m: ShuffleNetV2 1x, a pyramid that only resizes and adds, heads at three resolutions."""
    stages = shufflenet_v2_features(b, b.input(3, resolution, resolution), _LEAKY)
    fine, middle, coarse = (b.conv(x, _WIDTH, norm=False) for x in stages)
    middle = b.add(middle, b.resize(coarse, 2, "linear"))
    fine = b.add(fine, b.resize(middle, 2, "linear"))
    second = b.add(middle, b.resize(fine, 0.5, "interpolate"))
    third = b.add(coarse, b.resize(second, 0.5, "interpolate"))
    return b.table(*_heads(b, (fine, second, third), 3))


def ghost_module(b: NetworkBuilder, x: str, channels: int, activation: str = "") -> str:
    """Half of the channels by a pointwise convolution, one more of each by a depthwise one (arXiv 1911.11907)."""
    half = channels // 2
    first = b.conv(x, half, activation=activation)
    return b.concat((first, b.conv(first, half, 3, padding=1, groups=half, activation=activation)))


def _ghost_block(b: NetworkBuilder, x: str) -> str:
    y = ghost_module(b, ghost_module(b, x, _WIDTH, _LEAKY), _WIDTH)
    return b.add(y, b.conv(b.conv(x, b.channels(x), 5, padding=2, groups=b.channels(x)), _WIDTH))


def _ghost_pyramid(b: NetworkBuilder, stages: Sequence[str]) -> tuple[str, str, str, str]:
    """Mixes three resolutions, down and up again, and adds a fourth."""
    fine, middle, coarse = (b.conv(x, _WIDTH, activation=_LEAKY) for x in stages)
    mixed = _ghost_block(b, b.concat((b.resize(coarse, 2, "linear"), middle)))
    first = _ghost_block(b, b.concat((b.resize(mixed, 2, "linear"), fine)))
    second = _ghost_block(b, b.concat((_separable(b, first, 5, 2), mixed)))
    third = _ghost_block(b, b.concat((_separable(b, second, 5, 2), coarse)))
    return first, second, third, b.add(_separable(b, coarse, 5, 2), _separable(b, third, 5, 2))


def nanodet_plus_m(b: NetworkBuilder, resolution: int = 416) -> OperatorTable:
    """NanoDet-Plus-m: ShuffleNetV2 1x, a pyramid of ghost blocks, heads at four resolutions."""
    stages = shufflenet_v2_features(b, b.input(3, resolution, resolution), _LEAKY)
    return b.table(*_heads(b, _ghost_pyramid(b, stages), 5))


NETWORKS = (
    ZooNetwork(
        "NanoDet 320", "NanoDet", nanodet_m, f"NanoDet-m, {_SOURCE}", ("NanoDet-m 320",), 0.95e6, 0.36e9, 0.06
    ),
    ZooNetwork(
        "NanoDet 416", "NanoDet", partial(nanodet_m, resolution=416),
        f"NanoDet-m, {_SOURCE}, as the size and the outputs of OpenCV's file say, though its README says NanoDet-Plus",
        ("NanoDet-m 416",), 0.95e6, 0.6e9, 0.06,
        note="the rows of OpenCV's zoo include resizing the image, decoding and suppression, which take most time",
        comparable=False,
    ),
    ZooNetwork("NanoDet-Plus-m 416", "NanoDet", nanodet_plus_m, _SOURCE, (), 1.17e6, 0.76e9, 0.03),
)  # fmt: skip
