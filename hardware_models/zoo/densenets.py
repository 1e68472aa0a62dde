"""Densely connected networks: every layer reads the outputs of all layers of its block."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import linear_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "Huang et al. 2016, arXiv 1608.06993"

_BLOCKS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
"""Layers of each block: table 1 of the paper."""
_GROWTH = 32
_WIDE_GROWTH = {161: 48}


def dense_layer(b: NetworkBuilder, x: str, growth: int) -> str:
    """A pointwise and a 3x3 convolution, and ``x`` in front of what they make of it.

    Every input meets a norm of this layer's own, which no convolution can absorb.
    """
    y = b.activation(b.batch_norm(x), "relu")
    y = b.conv(y, 4 * growth, activation="relu")
    return b.concat((x, b.conv(y, growth, 3, padding=1, norm=False, bias=False)))


def densenet_features(b: NetworkBuilder, x: str, depth: int) -> list[str]:
    """The outputs of the four blocks, at a quarter down to a thirty-second of the image."""
    growth = _WIDE_GROWTH.get(depth, _GROWTH)
    x = b.pool(b.conv(x, 2 * growth, 7, 2, padding=3, activation="relu"), "max", 3, 2, 1)
    outputs: list[str] = []
    for layers in _BLOCKS[depth]:
        if outputs:
            x = b.activation(b.batch_norm(x), "relu")
            x = b.pool(b.conv(x, b.channels(x) // 2, norm=False, bias=False), "avg", 2, 2)
        for _ in range(layers):
            x = dense_layer(b, x, growth)
        outputs.append(x)
    return outputs


def densenet(b: NetworkBuilder, depth: int) -> OperatorTable:
    """A densely connected network for 1,000 classes at 224 pixels."""
    x = densenet_features(b, b.input(3, 224, 224), depth)[-1]
    return b.table(linear_classifier(b, b.activation(b.batch_norm(x), "relu")))


def _network(depth: int, parameters: float, macs: float, *aliases: str) -> ZooNetwork:
    build = partial(densenet, depth=depth)
    return ZooNetwork(f"DenseNet-{depth} 224", "DenseNet", build, _PAPER, aliases, parameters, macs, 0.002)


NETWORKS = (
    _network(121, 7_978_856, 2.834e9, "DenseNet-121", "DenseNet 224", "DenseNet (ONNX Model Zoo)"),
    _network(161, 28_681_000, 7.728e9),
    _network(169, 14_149_480, 3.360e9),
    _network(201, 20_013_928, 4.291e9),
)
