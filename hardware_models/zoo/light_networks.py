"""Small networks for phones that are not MobileNets."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_SQUEEZENET = "Iandola et al. 2016, arXiv 1602.07360"

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


def _squeezenet(version: str, resolution: int) -> partial[OperatorTable]:
    if version == "1.0":
        return partial(squeezenet, resolution=resolution, pooled=(3, 7), first=(96, 7))
    return partial(squeezenet, resolution=resolution, pooled=(2, 4), first=(64, 3))


NETWORKS = (
    ZooNetwork(
        "SqueezeNet v1.0 224", "SqueezeNet", _squeezenet("1.0", 224), _SQUEEZENET,
        ("squeezenet1_0 224", "SqueezeNet 224"), 1_248_424, 0.818e9, 0.01,
    ),
    ZooNetwork(
        "SqueezeNet v1.1 224", "SqueezeNet", _squeezenet("1.1", 224), _SQUEEZENET,
        ("squeezenet1_1 224", "SqueezeNet-1.1"), 1_235_496, 0.349e9, 0.01,
    ),
    ZooNetwork("SqueezeNet v1.1 227", "SqueezeNet", _squeezenet("1.1", 227), _SQUEEZENET),
)  # fmt: skip
