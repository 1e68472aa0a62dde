"""Ultralytics' detectors, norms folded, to the last parameter."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models import OperatorTable
from kneepoint.hardware_models.zoo.registry import build

FUSED = {
    "YOLOv5n 640": 1_867_405, "YOLOv5s 640": 7_225_885, "YOLOv5m 640": 21_172_173, "YOLOv5l 640": 46_533_693,
    "YOLOv5x 640": 86_705_005,
}  # fmt: skip


def maps(table: OperatorTable) -> list[tuple[int, ...]]:
    return [table.tensors[name].shape[1:] for name in table.outputs]


@pytest.mark.parametrize(("name", "parameters"), FUSED.items())
def test_parameters_once_norms_are_folded(name: str, parameters: int) -> None:
    table = build(name)
    assert table.parameters == parameters
    assert maps(table) == [(255, 80, 80), (255, 40, 40), (255, 20, 20)]


def test_the_nano_of_the_eighth_version_has_a_fixed_convolution_that_decodes() -> None:
    assert build("YOLOv8n 640").parameters == 3_151_904 - 16
    assert build("YOLOv8n 640", norms=True).parameters == 3_157_200 - 16


@pytest.mark.parametrize("name", ["YOLOv8-Detection", "YOLOv8s 640", "Yolo-v5"])
def test_heads_without_anchors(name: str) -> None:
    assert maps(build(name)) == [(of, size, size) for size in (80, 40, 20) for of in (64, 80)]


def test_masks_are_a_quarter_of_the_image() -> None:
    assert maps(build("YOLOv5s-seg 640")) == [(351, 80, 80), (351, 40, 40), (351, 20, 20), (32, 160, 160)]


@pytest.mark.parametrize("size", "nsmlx")
def test_classifiers(size: str) -> None:
    assert maps(build(f"YOLOv5{size}-cls 224")) == [(1000,)]


def test_deeper_is_slower() -> None:
    work = [build(f"YOLOv5{size} 640").macs for size in "nsmlx"]
    assert work == sorted(work)
    assert build("YOLOv5n 640", 4).macs == 4 * work[0]
