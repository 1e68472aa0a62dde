"""NanoDet."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models.zoo.registry import build, find


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("NanoDet 320", (40, 20, 10)), ("NanoDet 416", (52, 26, 13)), ("NanoDet-Plus-m 416", (52, 26, 13, 7))],
)
def test_classes_and_distances_of_every_resolution(name: str, sizes: tuple[int, ...]) -> None:
    table = build(name)
    assert [table.tensors[output].shape[1:] for output in table.outputs] == [(112, size, size) for size in sizes]


def test_the_file_of_the_zoo_of_opencv_holds_the_weights() -> None:
    published, graph = 3_800_954, 50_000
    assert published - graph < build("NanoDet 416").storage_bytes < published
    assert not find("NanoDet 416").comparable


def test_kinds_of_resizes() -> None:
    modes = [entry.function for entry in build("NanoDet 320").operators if entry.kind == "resize"]
    assert modes == ["linear", "linear", "interpolate", "interpolate"]
