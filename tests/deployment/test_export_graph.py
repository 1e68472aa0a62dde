from __future__ import annotations

from typing import Any

import pytest
import torch

from kneepoint.compression.quantizers import quantize_weight
from kneepoint.deployment import kernel_counts
from kneepoint.deployment.export_graph import export_graph
from kneepoint.deployment.parity import compare
from kneepoint.spaces.tracing import operator_name, tensors_of


def names(module: Any) -> list[str]:
    return [operator_name(node) for node in module.graph.nodes]


@pytest.mark.parametrize("bits", [16, 32])
def test_a_float_convolution_between_integer_ones_stays_a_float_one(bench: Any, bits: int) -> None:
    exported = bench.export("residual", bench.bits("residual", {"stages.0.0.conv1": bits}))
    kernels = kernel_counts(exported.data)
    assert (kernels["QLinearConv"], kernels["Conv"] + kernels["FusedConv"]) == (8, 1)
    assert compare(exported.data, exported.task, exported.compressed.module).deviation < 0.001


def test_only_layers_at_risk_read_a_scale_for_every_channel(bench: Any) -> None:
    mixed, _ = export_graph(bench.compressed("residual", bench.bits("residual", {"stages.0.0.conv1": 32})))
    assert [name for name in dict(mixed.named_buffers()) if name.endswith(("_scales", "_zero_points"))] == [
        "relu_scales",
        "relu_zero_points",
    ]
    assert len(dict(mixed.named_buffers())["relu_scales"]) == 8
    uniform, _ = export_graph(bench.compressed("residual", "8"))
    assert not [name for name in dict(uniform.named_buffers()) if name.endswith("_scales")]


def test_a_weight_on_more_than_two_axes_is_stored_transposed(bench: Any) -> None:
    compressed = bench.compressed("tokens", "8")
    module, weights = export_graph(compressed)
    quant = compressed.plan.weights["up"]
    expected = quantize_weight(tensors_of(compressed.folded)["up.weight"], quant)
    assert torch.equal(weights["up.weight"].values, expected.t())
    assert weights["head.weight"].values.shape == (4, 8)
    assert names(module).count("matmul") == 4


def test_a_layer_called_twice_has_one_weight_and_a_bias_for_each_call(bench: Any) -> None:
    module, weights = export_graph(bench.compressed("twice", "8"))
    buffers = dict(module.named_buffers())
    assert list(weights) == ["stem.weight", "again.weight", "mix.weight", "head.weight"]
    first, second = buffers["conv2d_1_bias"], buffers["conv2d_2_bias"]
    assert first.dtype == second.dtype == torch.int32
    assert not torch.equal(first, second)  # the two inputs have other scales
    scales = buffers["conv2d_1_bias_scale"], buffers["conv2d_2_bias_scale"]
    torch.testing.assert_close(first * scales[0], second * scales[1], atol=1e-3, rtol=0)


def test_float_networks_are_left_as_they_are(bench: Any) -> None:
    compressed = bench.compressed("mobile", "fp32")
    module, weights = export_graph(compressed)
    assert not weights
    assert names(module) == names(compressed.folded)
    assert not module.training
