from __future__ import annotations

from typing import Any

import pytest

from kneepoint.deployment.exporting import export_network
from kneepoint.deployment.float_kernels import float_kernels


def reasons(bench: Any, name: str, how: Any) -> dict[str, str]:
    return {kernel.name: kernel.why for kernel in float_kernels(bench.compressed(name, how))}


def test_an_integer_network_has_few_float_kernels_left(bench: Any) -> None:
    found = reasons(bench, "residual", "8")
    assert not [name for name in found if name in bench.space("residual").teacher.layers]
    assert list(found.values()) == ["ONNX Runtime has no integer kernel for reduce"]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("16", "its policy keeps 16-bit float weights"),
        ("fp32", "its policy keeps 32-bit float weights"),
        ("w4", "its policy keeps float activations, and stores integer weights alone"),
        ("w8a16", "ONNX Runtime has no integer kernel for activations of 16 bits"),
    ],
)
def test_every_float_layer_has_its_reason(bench: Any, how: str, why: str) -> None:
    found = reasons(bench, "mobile", how)
    layers = bench.space("mobile").teacher.layers
    assert layers.keys() <= found.keys()
    assert {found[layer] for layer in layers} == {why}


def test_operators_name_what_keeps_them_in_float(bench: Any) -> None:
    found = reasons(bench, "tokens", "8")
    assert found["gelu"] == "it reads linear_2, which is float"
    mixed = reasons(bench, "residual", bench.bits("residual", {"stages.0.0.conv2": 16}))
    assert mixed["stages.0.0.conv2"] == "its policy keeps 16-bit float weights"


def test_the_manifest_lists_them(bench: Any, tmp_path: Any) -> None:
    import json

    export_network(bench.compressed("mobile", "16"), bench.task("mobile"), tmp_path)
    listed = json.loads((tmp_path / "manifest.json").read_text())["float_kernels"]
    assert {"name": "stem", "kind": "conv", "why": "its policy keeps 16-bit float weights"} in listed
