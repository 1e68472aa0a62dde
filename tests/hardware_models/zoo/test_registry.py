"""The zoo by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kneepoint.hardware_models.zoo import registry
from kneepoint.hardware_models.zoo.registry import NETWORKS, build, find, folded, joined
from kneepoint.tasks.errors import DeviceError
from tests.hardware_models.zoo.published_names import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_network_published_ten_times_has_a_builder(name: str) -> None:
    assert find(name).source


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("MobileNet v1 1.0X 224", "MobileNetV1 1.0 224"),
        ("MobileNetV1 0.50 224", "MobileNetV1 0.5 224"),
        ("MobileNetV1 0.25 224 ImageNet", "MobileNetV1 0.25 224"),
        ("MobileNet-v2", "MobileNetV2 1.0 224"),
        ("ResNet50", "ResNet-50 v1.5 224"),
        ("resnet18 224", "ResNet-18 224"),
        ("efficientnet-b4 380", "EfficientNet-B4 380"),
        ("Shufflenet-v2", "ShuffleNetV2 224"),
        ("SqueezeNet-1.1", "SqueezeNet v1.1 224"),
        ("vgg16 224", "VGG-16 224"),
        ("densenet121 224", "DenseNet-121 224"),
        ("ResNet-V2-101 299", "ResNet-101 V2 299"),
    ],
)
def test_other_spellings_are_known(alias: str, name: str) -> None:
    assert find(alias) is NETWORKS[name]
    assert build(alias) is build(name)


def test_what_differs_is_not_taken_for_the_same() -> None:
    assert find("ResNet-50 224") is not find("ResNet-50 v1.5 224")
    assert find("MobileNetV1 0.25 224") is not find("MobileNetV1 0.25 224 (5 cls)")
    assert find("GoogLeNet 224") is not find("GoogLeNet")


@pytest.mark.parametrize("name", ["", "MobileNetV1 0.3 224", "ResNet-50 225", "a\nb", "a" * 10_000])
def test_an_unknown_network_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=r"^a network is one of the zoo's \d+; got '") as refused:
        find(name)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_near_names_are_given() -> None:
    with pytest.raises(DeviceError, match=r"got 'ResNet-51 224'\. Near names: ResNet-[0-9]+ 224, .*, [^,]*$"):
        build("ResNet-51 224")
    with pytest.raises(DeviceError, match=r"got ''\. One of them: MobileNetV1 1\.0 224$"):
        build("")


def test_two_networks_of_one_name_are_refused() -> None:
    network = NETWORKS["VGG-16 224"]
    other = replace(network, name="another", aliases=("vgg 16 224",))
    with pytest.raises(ValueError, match="'vgg 16 224' to 'another' and 'VGG-16 224'"):
        joined((network, other))
    assert joined((network, network)) == joined((network,))


def test_a_table_is_built_once() -> None:
    assert build("ResNet-18 224") is build("resnet18")
    assert build("ResNet-18 224", 2) is not build("ResNet-18 224")


def test_the_precision_of_a_table() -> None:
    floats, integers = build("MobileNetV2 0.35 96"), build("MobileNetV2 0.35 96", precision="int8")
    assert {tensor.format for tensor in floats.tensors.values()} == {"fp32"}
    assert {tensor.format for tensor in integers.tensors.values()} == {"uint8"}
    assert integers.macs == floats.macs
    assert 0.25 < integers.storage_bytes / floats.storage_bytes < 0.32
    assert integers.resident_bytes < 0.3 * floats.resident_bytes


def test_spellings_fold() -> None:
    assert folded("ResNet-50 224") == folded("resnet50 224")
    assert folded("MobileNetV1 0.50 224") == folded("mobilenet_v1 0.5 224") != folded("MobileNetV1 0.5 22")


def test_no_module_is_left_out() -> None:
    listed = {network.name for module in registry._MODULES for network in module}
    assert listed == set(NETWORKS)
