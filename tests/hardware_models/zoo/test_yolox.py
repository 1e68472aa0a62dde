"""YOLOX."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models.zoo.registry import build


@pytest.mark.parametrize(("name", "size"), [("YOLOX-Nano 416", 52), ("YOLOX-Tiny 416", 52), ("YOLOX-S 640", 80)])
def test_boxes_scores_and_classes_of_three_resolutions(name: str, size: int) -> None:
    table = build(name)
    shapes = [table.tensors[output].shape[1:] for output in table.outputs]
    assert shapes == [(of, side, side) for side in (size, size // 2, size // 4) for of in (4, 1, 80)]


def test_the_smallest_has_depthwise_convolutions() -> None:
    kinds = {name: {entry.kind for entry in build(name).operators} for name in ("YOLOX-Nano 416", "YOLOX-Tiny 416")}
    assert "depthwise_conv" in kinds["YOLOX-Nano 416"]
    assert "depthwise_conv" not in kinds["YOLOX-Tiny 416"]
