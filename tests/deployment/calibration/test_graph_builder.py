from __future__ import annotations

import numpy as np
import pytest

from kneepoint.deployment.calibration.graph_builder import GraphBuilder, Precision, Value
from kneepoint.deployment.runtime import kernel_counts


def counts(graph: GraphBuilder, output: Value) -> dict[str, int]:
    return dict(kernel_counts(graph.model([output]).SerializeToString()))


@pytest.fixture
def graph() -> GraphBuilder:
    return GraphBuilder(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("precision", "kernel"),
    [
        ("fp32", "MatMul"),
        ("w8a8", "MatMulIntegerToFloat"),
        ("dynamic", "DynamicQuantizeMatMul"),
        ("packed4", "MatMulNBits"),
        ("packed8", "MatMulNBits"),
    ],
)
def test_linear_layers_run_the_kernels_of_their_precision(
    graph: GraphBuilder, precision: Precision, kernel: str
) -> None:
    y = graph.linear(graph.input(1, 8, 64), 32, precision)
    assert y.shape == (1, 8, 32)
    assert counts(graph, y)[kernel] == 1


def test_convolutions_of_bytes_fuse_the_clamps_behind_them(graph: GraphBuilder) -> None:
    x = graph.input(1, 16, 8, 8)
    for _ in range(2):
        x = graph.quantized(graph.unary("Relu", graph.conv(x, 32, 3, precision="w8a8")))
    found = counts(graph, x)
    assert found["QLinearConv"] == 2
    assert "Relu" not in found


def test_a_value_is_quantized_once_for_all_that_read_it(graph: GraphBuilder) -> None:
    x = graph.input(1, 4, 8)
    assert graph.quantized(x) == graph.quantized(x)
    assert graph.quantized(graph.quantized(x)) == graph.quantized(x)


def test_sizes_are_those_that_onnx_runtime_finds(graph: GraphBuilder) -> None:
    x = graph.pool("MaxPool", graph.conv(graph.input(1, 3, 15, 15), 8, 3, 2), 3, 2)
    assert x.shape == (1, 8, 4, 4)
    assert graph.pad(x, 1, 1).shape == (1, 8, 5, 5)
    assert graph.pick(x, 1, 0).shape == (1, 4, 4)
    assert graph.reduce_mean(x, (2, 3), keep=False).shape == (1, 8)


def test_rows_of_bytes_are_scaled_after_they_are_looked_up(graph: GraphBuilder) -> None:
    x = graph.embedding(16, 8, graph.input(2, 5), "w8a8")
    assert x.shape == (2, 5, 8)
    assert counts(graph, x)["Gather"] == 2


def test_large_constants_repeat_what_was_drawn(graph: GraphBuilder) -> None:
    graph.linear(graph.input(1, 1024), 1024)
    weight = max(graph.constants, key=lambda entry: len(entry.raw_data))
    values = np.frombuffer(weight.raw_data, np.float32)
    assert len(values) == 1024 * 1024
    assert len(np.unique(values)) <= 1 << 18
