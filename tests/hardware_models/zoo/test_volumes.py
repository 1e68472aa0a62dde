"""Networks that segment volumes."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models.zoo.registry import NETWORKS, build, find

WIDTHS = (32, 64, 128, 256, 320, 320)


def expected_parameters() -> int:
    """Of convolutions without a bias, norms with two figures each, what doubles a resolution, and the output."""
    down = sum(27 * (a * b + b * b) + 4 * b for a, b in zip((1, *WIDTHS), WIDTHS, strict=False))
    up = sum(8 * a * b + b + 27 * 3 * b * b + 4 * b for a, b in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
    return down + up + 32 * 3 + 3


def test_parameters_of_a_window() -> None:
    table = build("3D-UNet (MLPerf 99)")
    assert table.parameters == expected_parameters()
    assert table.tensors[table.outputs[0]].shape == (1, 3, 128, 128, 128)
    assert sum(entry.kind == "group_norm" for entry in table.operators) == 22


@pytest.mark.parametrize("name", ["3D-UNet (MLPerf 99)", "3D-UNet (MLPerf 99.9)"])
def test_a_window_is_not_a_scan(name: str) -> None:
    assert find(name) is NETWORKS["3D-UNet KiTS19 128x128x128"]
    assert not find(name).comparable
    assert "windows" in find(name).note
