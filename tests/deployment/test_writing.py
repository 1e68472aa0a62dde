from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from kneepoint.compression.quantizers import quantize_weight
from kneepoint.deployment import kernel_counts
from kneepoint.deployment.parity import compare
from kneepoint.deployment.template import template_of
from kneepoint.deployment.writing import write
from kneepoint.hardware_models import fuse, read_onnx
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import LayerPolicy

TYPES = {
    16: TensorProto.FLOAT16,
    8: TensorProto.INT8,
    6: TensorProto.INT8,
    4: TensorProto.INT4,
    3: TensorProto.INT4,
    2: TensorProto.INT2,
    1: TensorProto.INT2,
}
FORMATS = [
    "w1a8",
    "w3a8",
    "w6a8",
    "w8a8-dynamic",
    "w2a8-dynamic",
    "w4-g32",
    "w3a8-dynamic-g32",
    "w2a8-dynamic-g64",
    "w8-g64",
    "w1-g32",
    "w8",
    "w2",
    "w8a16",
    "w16",
]


def constants(model: ModelProto) -> dict[str, TensorProto]:
    return {entry.name: entry for entry in model.graph.initializer}


def array(model: ModelProto, name: str) -> Any:
    return numpy_helper.to_array(constants(model)[name])


def weights(exported: Any) -> Iterator[tuple[TensorProto, Any]]:
    stored = constants(exported.model)
    for name, quant in exported.compressed.plan.weights.items():
        yield stored[exported.compressed.network.layers[name].weight], quant


@pytest.mark.parametrize("bits", [16, 8, 4, 2])
def test_a_weight_takes_the_bits_it_has(bench: Any, bits: int) -> None:
    for entry, _ in weights(bench.export("residual", str(bits))):
        assert entry.data_type == TYPES[bits]
        assert len(entry.raw_data) == -(-int(np.prod(entry.dims)) * bits // 8)


@pytest.mark.parametrize("bits", [6, 3, 1])
def test_odd_bits_take_the_next_container(bench: Any, bits: int) -> None:
    assert {entry.data_type for entry, _ in weights(bench.export("residual", f"w{bits}a8"))} == {TYPES[bits]}


def test_files_shrink_with_their_weights(bench: Any) -> None:
    exports = {how: bench.export("residual", how) for how in ("fp32", "16", "8", "4", "2")}
    elements = sum(int(np.prod(entry.dims)) for entry, _ in weights(exports["8"]))
    sizes = {how: len(exported.data) for how, exported in exports.items()}
    assert sizes["8"] - sizes["4"] == pytest.approx(elements / 2, abs=1500)  # the Casts take some of it
    assert sizes["4"] - sizes["2"] == pytest.approx(elements / 4, abs=100)
    assert sizes["fp32"] - sizes["16"] == pytest.approx(2 * elements, abs=1500)


@pytest.mark.parametrize("how", ["8", "w6a8", "4", "w3a8", "2", "w1a8"])
def test_the_integers_are_those_of_the_plan(bench: Any, how: str) -> None:
    exported = bench.export("residual", how)
    for name, quant in exported.compressed.plan.weights.items():
        parameter = exported.compressed.network.layers[name].weight
        expected = quantize_weight(exported.compressed.state[parameter], quant)
        assert np.array_equal(array(exported.model, parameter).astype(np.int8), expected.numpy())


def test_mixed_bits_stand_side_by_side(bench: Any) -> None:
    exported = bench.export("residual", "mixed")
    used = [TYPES[bits] for bits in (16, 8, 4, 2)]
    assert {entry.data_type for entry, _ in weights(exported)} == {*used, TensorProto.FLOAT}
    assert all(entry.data_type == TYPES.get(quant.bits, TensorProto.FLOAT) for entry, quant in weights(exported))
    assert {entry.domain: entry.version for entry in exported.model.opset_import} == {"": 25}


@pytest.mark.parametrize(("how", "opset"), [("8", 21), ("4", 21), ("2", 25)])
def test_the_opset_is_raised_only_where_a_container_needs_it(bench: Any, how: str, opset: int) -> None:
    assert {entry.domain: entry.version for entry in bench.export("residual", how).model.opset_import} == {"": opset}


@pytest.mark.parametrize("how", ["w8a8", "w4a8", "w2a8"])
def test_a_layer_that_runs_on_integers_once_and_on_floats_once_has_a_scale_for_each(bench: Any, how: str) -> None:
    exported = bench.export("loop", how)
    assert compare(exported.data, exported.task, exported.compressed.module).deviation < 1e-5


@pytest.mark.parametrize("name", ["mobile", "tokens", "named", "sound"])
@pytest.mark.parametrize("how", FORMATS)
def test_every_format_is_executed_as_it_was_simulated(bench: Any, name: str, how: str) -> None:
    exported = bench.export(name, how)
    assert compare(exported.data, exported.task, exported.compressed.module).deviation < 0.005


@pytest.mark.parametrize(
    ("how", "kernel", "count"),
    [
        ("w8a8-dynamic", "DynamicQuantizeMatMul", 5),
        ("w4-g32", "MatMulNBits", 5),
        ("w4a8-dynamic-g32", "MatMulNBits", 5),
    ],
)
def test_linear_layers_run_on_the_kernel_of_their_format(bench: Any, how: str, kernel: str, count: int) -> None:
    kernels = kernel_counts(bench.export("tokens", how).data)
    assert kernels[kernel] == count
    assert not {"MatMul", "Gemm", "FusedMatMul", "DequantizeLinear"} & set(kernels)


@pytest.mark.parametrize("how", ["w8", "w4", "16"])
def test_a_weight_that_is_only_stored_in_few_bits_runs_on_the_kernels_of_floats(bench: Any, how: str) -> None:
    assert kernel_counts(bench.export("tokens", how).data) == kernel_counts(bench.export("tokens", "fp32").data)


def test_16_bit_activations_are_rounded_around_float_kernels(bench: Any) -> None:
    exported = bench.export("mobile", "w8a16")
    kernels = kernel_counts(exported.data)
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= set(kernels)
    assert not {"QLinearConv", "QGemm"} & set(kernels)
    points = [entry for name, entry in constants(exported.model).items() if name.endswith("_zero_point")]
    assert {entry.data_type for entry in points} == {TensorProto.UINT16}


def test_rows_with_scales_of_groups_are_looked_up_by_one_kernel(bench: Any) -> None:
    exported = bench.export("attention", "w4-g32")
    kernels = kernel_counts(exported.data)
    assert kernels["GatherBlockQuantized"] == 1
    assert "Gather" not in kernels


def test_an_embedding_is_looked_up_as_it_is_stored(bench: Any) -> None:
    model = bench.export("named", "8").model
    assert constants(model)["words.weight"].data_type == TensorProto.INT8
    gathers = [node for node in model.graph.node if node.op_type == "Gather"]
    assert [node.input[0] for node in gathers] == ["words.weight", "words.scale.shaped"]


@pytest.mark.parametrize("bits", [16, 32])
def test_a_float_convolution_between_integer_ones_stays_a_float_one(bench: Any, bits: int) -> None:
    exported = bench.export("residual", bench.bits("residual", {"stages.0.0.conv1": bits}))
    kernels = kernel_counts(exported.data)
    assert (kernels["QLinearConv"], kernels["Conv"] + kernels["FusedConv"]) == (8, 1)
    assert compare(exported.data, exported.task, exported.compressed.module).deviation < 0.001


def test_only_layers_at_risk_read_a_scale_for_every_channel(bench: Any) -> None:
    mixed = bench.export("residual", bench.bits("residual", {"stages.0.0.conv1": 32})).model
    names = [name for name in constants(mixed) if name.endswith(("_scales", "_zero_points"))]
    assert names == ["relu_scales", "relu_zero_points"]
    assert array(mixed, "relu_scales").shape == (8,)
    uniform = bench.export("residual", "8").model
    assert not [name for name in constants(uniform) if name.endswith("_scales")]


def test_a_weight_on_more_than_two_axes_is_stored_transposed(bench: Any) -> None:
    exported = bench.export("tokens", "8")
    quant = exported.compressed.plan.weights["up"]
    expected = quantize_weight(exported.compressed.state["up.weight"], quant)
    assert np.array_equal(array(exported.model, "up.weight"), expected.t().numpy())
    assert constants(exported.model)["head.weight"].dims == [4, 8]


def test_a_layer_called_twice_has_one_weight_and_a_bias_for_each_call(bench: Any) -> None:
    model = bench.export("twice", "8").model
    stored = [entry.name for entry in model.graph.initializer if entry.name.endswith(".weight")]
    assert sorted(stored) == ["again.weight", "head.weight", "mix.weight", "stem.weight"]
    first, second = array(model, "conv2d_1_bias"), array(model, "conv2d_2_bias")
    assert first.dtype == second.dtype == np.int32
    assert not np.array_equal(first, second)  # the two inputs have other scales
    scales = array(model, "conv2d_1_bias_scale"), array(model, "conv2d_2_bias_scale")
    np.testing.assert_allclose(first * scales[0], second * scales[1], atol=1e-3, rtol=0)


def test_one_template_serves_every_policy_of_a_width(bench: Any) -> None:
    compressed, task = bench.compressed("residual", "8"), bench.task("residual")
    template = template_of(compressed, task.example_input)
    for how in ("fp32", "4", "mixed", "w8a16"):
        other = bench.compressed("residual", how)
        assert other.graph is compressed.graph
        parity = compare(write(template, other).SerializeToString(), task, other.module)
        assert parity.deviation < 0.005


@pytest.mark.parametrize(
    ("how", "sizes"), [("w32", [50, 16]), ("w4-g32", [50, 1, 16]), ("w3a8-dynamic-g32", [50, 1, 16])]
)
def test_a_shared_embedding_is_stored_once(tmp_path: Any, how: str, sizes: list[int]) -> None:
    import torch
    from torch import nn

    from kneepoint.compression import Compressor, StudentStore
    from kneepoint.deployment import to_onnx
    from kneepoint.spaces.joint_space import joint_space
    from kneepoint.spaces.policy import Policy
    from kneepoint.tasks.task import Task

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.mix = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = nn.functional.linear(torch.relu(self.mix(self.words(x))), self.words.weight)
            return y

    tokens = torch.randint(0, 50, (8, 5))
    task = Task(Tied(), tokens[:1], [(tokens, tokens)], [(tokens, tokens)], loss=lambda y, t: y.mean())
    task.metric = type(task.metric)(lambda y, t: float(y.mean()), name="mean")
    space = joint_space(task, students=None)
    policy = Policy.build(layers=dict.fromkeys(space.teacher.layers, LayerPolicy.parse(how)))
    compressed = Compressor(space, StudentStore(tmp_path)).compress(policy)
    model = to_onnx(compressed, task.example_input)
    stored = [list(entry.dims) for entry in model.graph.initializer if entry.dims and max(entry.dims) == 50]
    assert [dims for dims in stored if dims != [50, 1]] == [sizes]  # beside the scales
    table, read = lower(compressed.network, compressed.policy), read_onnx(model)
    assert [kernel.row for kernel in fuse(table)] == [kernel.row for kernel in fuse(read)]
    assert (table.storage_bytes, table.resident_bytes) == (read.storage_bytes, read.resident_bytes)
    assert compare(model.SerializeToString(), task, compressed.module).deviation < 0.005
