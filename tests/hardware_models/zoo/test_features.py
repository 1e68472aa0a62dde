"""What detectors take from the networks that they are built on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.densenets import densenet_features
from kneepoint.hardware_models.zoo.efficientnets import efficientnet_features
from kneepoint.hardware_models.zoo.light_networks import shufflenet_v2_features
from kneepoint.hardware_models.zoo.mobilenets import (
    mobilenet_v1_features,
    mobilenet_v2_features,
    mobilenet_v3_features,
)
from kneepoint.hardware_models.zoo.resnets import resnet_features
from kneepoint.hardware_models.zoo.vggs import vgg_features

Features = Callable[[NetworkBuilder, str], list[str]]

NETWORKS: dict[str, tuple[Features, list[tuple[int, int]]]] = {
    "mobilenet_v1": (mobilenet_v1_features, [(32, 2), (128, 4), (512, 16), (512, 16), (1024, 32)]),
    "mobilenet_v2": (mobilenet_v2_features, [(32, 2), (24, 4), (32, 8), (96, 16), (1280, 32)]),
    "mobilenet_v3": (mobilenet_v3_features, [(16, 2), (24, 4), (40, 8), (112, 16), (960, 32)]),
    "efficientnet": (
        partial(efficientnet_features, width=1.0, depth=1.0), [(32, 2), (24, 4), (40, 8), (112, 16), (1280, 32)]
    ),
    "resnet": (partial(resnet_features, depth=50), [(256, 4), (512, 8), (1024, 16), (2048, 32)]),
    "vgg": (partial(vgg_features, depth=16), [(64, 2), (128, 4), (256, 8), (512, 16), (512, 32)]),
    "densenet": (partial(densenet_features, depth=121), [(256, 4), (512, 8), (1024, 16), (1024, 32)]),
    "shufflenet_v2": (shufflenet_v2_features, [(116, 8), (232, 16), (464, 32)]),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_a_pyramid(name: str) -> None:
    features, expected = NETWORKS[name]
    b = NetworkBuilder()
    shapes = [b.shape(x) for x in features(b, b.input(3, 320, 320))]
    pyramid = [(channels, 320 // height) for _, channels, height, width in shapes if height == width]
    assert [entry for entry in pyramid if entry in expected][-1] == expected[-1]
    assert set(expected) <= set(pyramid)


def test_a_last_stride_of_one_keeps_the_resolution() -> None:
    b = NetworkBuilder()
    outputs = resnet_features(b, b.input(3, 256, 128), 50, last_stride=1)
    assert [b.shape(x)[2:] for x in outputs] == [(64, 32), (32, 16), (16, 8), (16, 8)]
