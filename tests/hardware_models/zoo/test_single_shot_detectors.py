"""Single-shot detectors."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models.zoo.registry import build


@pytest.mark.parametrize(
    ("name", "classes", "boxes"),
    [("MobileNetV1-SSD 300", 21, 1917), ("SSD-MobileNetV1 300", 91, 1917), ("SSD-ResNet34 1200", 81, 15_130)],
)
def test_every_box_has_a_score_for_every_class(name: str, classes: int, boxes: int) -> None:
    table = build(name)
    elements = [table.tensors[output].elements for output in table.outputs]
    assert sum(elements[::2]) == 4 * boxes
    assert sum(elements[1::2]) == classes * boxes


@pytest.mark.parametrize(("name", "parameters"), [("MobileNetV1-SSD 300", 5_783e3), ("SSD-MobileNetV1 300", 6_807e3)])
def test_parameters_once_norms_are_folded(name: str, parameters: float) -> None:
    assert build(name).parameters == pytest.approx(parameters, abs=500)


def test_resolutions_of_the_large_one() -> None:
    table = build("SSD-ResNet34 1200")
    sizes = [table.tensors[output].shape[-1] for output in table.outputs[::2]]
    assert sizes == [50, 25, 13, 7, 3, 3]


def test_a_smaller_image_takes_the_same_weights() -> None:
    small, large = build("MobileNetV1-SSD 224"), build("SSD-MobileNetV1 300")
    assert small.parameters == large.parameters
    assert small.macs < 0.6 * large.macs
