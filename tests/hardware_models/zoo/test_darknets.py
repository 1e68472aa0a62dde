"""Detectors of Darknet."""

from __future__ import annotations

from kneepoint.hardware_models.zoo.registry import build


def test_convolutions_of_the_tiny_network() -> None:
    table = build("YOLOv4-tiny 416")
    convolutions = [entry for entry in table.operators if entry.kind == "conv"]
    assert len(convolutions) == 21
    assert [table.tensors[name].shape[1:] for name in table.outputs] == [(255, 13, 13), (255, 26, 26)]
    weights = [entry.weight.elements for entry in convolutions[:4] if entry.weight is not None]
    assert weights == [864, 18_432, 36_864, 9_216]  # of ncnn's file
