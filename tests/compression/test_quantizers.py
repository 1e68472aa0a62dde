from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from kneepoint.compression.quantizers import (
    activation_quant,
    bias_scale,
    dequantized_bias,
    dequantized_weight,
    expanded_scale,
    fake_quantize_activation,
    fake_quantize_blocks,
    fake_quantize_dynamic,
    quantize_bias,
    quantize_weight,
    scale_that_holds_bias,
    straight_through_weight,
    weight_rows,
)
from kneepoint.compression.weight_scales import weight_scales
from kneepoint.deployment.group_packing import packed_groups
from kneepoint.deployment.runtime import open_session
from kneepoint.spaces.quant_plan import ActivationQuant, WeightQuant

bits = pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])


def calibrated(weight: torch.Tensor, bits: int, axis: int = 0, group_size: int = 0) -> WeightQuant:
    quant = WeightQuant(bits, axis=axis, group_size=group_size)
    return replace(quant, scale=weight_scales(weight_rows(weight, quant), bits, "mse", group_size))


@bits
@given(seed=st.integers(0, 10**6), spread=st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_integers_stay_within_their_bits_and_zero_is_exact(bits: int, seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 3, 2, generator=generator) * spread
    weight[0] = 0
    weight[:, 0, 0] = 0
    quant = calibrated(weight, bits)
    integers = quantize_weight(weight, quant)
    assert integers.dtype == torch.int8
    assert int(integers.abs().max()) <= 2 ** (bits - 1) - 1
    assert not integers[weight == 0].any()
    assert quant.scale is not None
    assert (quant.scale > 0).all()
    once = dequantized_weight(weight, quant)
    assert torch.equal(dequantized_weight(once, quant), once)


@bits
def test_scales_are_per_output_channel_and_nearly_optimal(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 64) * torch.tensor([[1e-3], [1.0], [10.0], [1e3]])
    relative = (dequantized_weight(weight, calibrated(weight, bits)) - weight).norm(dim=1) / weight.norm(dim=1)
    assert (relative < {2: 0.6, 3: 0.3, 4: 0.15, 6: 0.04, 8: 0.01}[bits]).all()
    assert relative.max() / relative.min() < 1.7


def test_one_bit_is_a_sign_and_a_scale() -> None:
    weight = torch.tensor([[1.0, -3.0, 0.0], [-0.5, -0.5, 0.5]])
    quant = calibrated(weight, 1)
    assert quantize_weight(weight, quant).tolist() == [[1, -1, 1], [-1, -1, 1]]
    assert quant.scale is not None
    torch.testing.assert_close(quant.scale, torch.tensor([4 / 3, 0.5]))


def test_scales_of_groups_run_along_the_input_features() -> None:
    weight = torch.cat([torch.full((3, 32), 1.0), torch.full((3, 32), 100.0), torch.full((3, 6), 0.01)], dim=1)
    quant = calibrated(weight, 4, group_size=32)
    assert quant.scale is not None
    assert quant.scale.shape == (3, 3)
    torch.testing.assert_close(dequantized_weight(weight, quant), weight)
    assert expanded_scale(weight, quant).shape == weight.shape


def test_scales_run_along_the_axis_of_output_channels() -> None:
    weight = torch.randn(4, 3, 2) * torch.tensor([1e-3, 1.0, 1e3]).view(1, 3, 1)
    quant = calibrated(weight, 8, axis=1)
    assert (dequantized_weight(weight, quant) - weight).norm() / weight.norm() < 0.01
    assert expanded_scale(weight, quant).shape == (1, 3, 1)


def test_sixteen_bits_are_halves_and_thirty_two_are_untouched() -> None:
    weight = torch.randn(3, 3)
    assert torch.equal(dequantized_weight(weight, WeightQuant(16)), weight.half().float())
    assert torch.equal(dequantized_weight(weight, WeightQuant(32)), weight)


@bits
def test_the_straight_through_weight_is_the_stored_one_and_has_gradients(bits: int) -> None:
    torch.manual_seed(1)
    weight = torch.randn(4, 8, requires_grad=True)
    quant = calibrated(weight, bits)
    assert quant.scale is not None
    through = straight_through_weight(weight, expanded_scale(weight, quant), bits)
    torch.testing.assert_close(through, dequantized_weight(weight, quant))
    through.sum().backward()
    assert weight.grad is not None
    assert set(weight.grad.unique().tolist()) <= {0.0, 1.0}


def test_one_bit_lets_every_gradient_through() -> None:
    weight = torch.tensor([[5.0, -0.1]], requires_grad=True)
    straight_through_weight(weight, torch.ones(1, 1), 1).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("bits", [8, 16])
@given(low=st.floats(-1e4, 1e4, width=32), high=st.floats(-1e4, 1e4, width=32))
def test_an_activation_range_holds_zero_exactly(bits: int, low: float, high: float) -> None:
    quant = activation_quant(min(low, high), max(low, high), bits)
    assert quant.scale is not None
    assert quant.scale > 0
    assert 0 <= quant.zero_point <= quant.limit == 2**bits - 1
    values = torch.tensor([0.0, min(low, high), max(low, high)])
    through = fake_quantize_activation(values, quant.scale, quant.zero_point, quant.limit)
    assert through[0] == 0
    assert (through - values).abs().max() <= quant.scale * 1.01


def test_the_arithmetic_is_that_of_onnx() -> None:
    x = torch.randn(1000) * 3
    quant = activation_quant(float(x.min()) / 2, float(x.max()))
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    value = onnx.helper.make_tensor_value_info
    initializers = [
        onnx.numpy_helper.from_array(np.array(quant.scale, np.float32), "s"),
        onnx.numpy_helper.from_array(np.array(quant.zero_point, np.uint8), "z"),
    ]
    ends = ([value("x", 1, [1000])], [value("y", 1, [1000])])
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "pair", *ends, initializers))
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    assert quant.scale is not None
    ours = fake_quantize_activation(x, quant.scale, quant.zero_point, quant.limit)
    torch.testing.assert_close(ours, torch.from_numpy(expected), atol=1e-6, rtol=1e-6)


def test_activations_have_the_gradient_of_the_identity_inside_their_range() -> None:
    x = torch.tensor([-10.0, -0.4, 0.0, 1.26, 10.0], requires_grad=True)
    quant = activation_quant(-1.0, 2.0)
    assert quant.scale is not None
    through = fake_quantize_activation(x, quant.scale, quant.zero_point, quant.limit)
    assert torch.equal(through, fake_quantize_activation(x.detach(), quant.scale, quant.zero_point, quant.limit))
    through.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(1e-3, 100))
def test_dynamic_ranges_are_those_of_onnx(seed: int, shift: float, spread: float) -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) * spread + shift
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "dynamic", [value("x", 1, [3, 5])], [value("y", 1, [3, 5])])
    (expected,) = ReferenceEvaluator(onnx.helper.make_model(graph)).run(None, {"x": x.numpy()})
    step = float((x.max().clamp_min(0) - x.min().clamp_max(0)) / 255)
    ours = fake_quantize_dynamic(x)
    assert (ours - torch.from_numpy(expected)).abs().max() <= step * 1.01  # a value on the edge falls on either side
    assert ((ours - torch.from_numpy(expected)).abs() > step / 2).float().mean() <= 0.1


def test_a_value_of_zeros_passes_through_dynamic_ranges() -> None:
    assert not fake_quantize_dynamic(torch.zeros(2, 2)).any()
    x = torch.ones(2, requires_grad=True)
    fake_quantize_dynamic(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]


def test_a_bias_is_rounded_to_the_scale_of_what_it_is_added_to() -> None:
    scale = bias_scale(torch.tensor([0.5, 0.25]), ActivationQuant(0.1, 3))
    assert torch.allclose(scale, torch.tensor([0.05, 0.025]))
    bias = torch.tensor([1.0, -0.51])
    assert quantize_bias(bias, scale).tolist() == [20, -20]
    assert quantize_bias(bias, scale).dtype == torch.int32
    assert torch.allclose(dequantized_bias(bias, scale), torch.tensor([1.0, -0.5]))


def test_a_scale_grows_where_the_bias_would_overflow() -> None:
    read = ActivationQuant(1e-3, 0)
    scale = scale_that_holds_bias(torch.tensor([1e-8, 1.0]), torch.tensor([100.0, 100.0]), read)
    assert scale[0] > 1e-8
    assert scale[1] == 1.0
    rounded = dequantized_bias(torch.tensor([100.0, 100.0]), bias_scale(scale, read))
    assert torch.allclose(rounded, torch.tensor([100.0, 100.0]), rtol=1e-3)


def test_a_plan_without_scales_is_refused() -> None:
    with pytest.raises(ValueError, match="no weight scales yet"):
        quantize_weight(torch.ones(2, 2), WeightQuant(8))
    with pytest.raises(ValueError, match="no activation scales yet"):
        bias_scale(torch.ones(2), ActivationQuant())


def test_groups_use_the_whole_range_of_their_integers_with_either_sign() -> None:
    weight = torch.tensor([[-4.0, 2.0, 0.0, 1.0, 4.0, -2.0, 0.0, -1.0]])
    quant = WeightQuant(3, torch.tensor([[1.0, -1.0]]), group_size=4)
    assert (quant.lowest, quant.limit) == (-4, 3)
    assert quantize_weight(weight, quant).tolist() == [[-4, 2, 0, 1, -4, 2, 0, 1]]
    assert torch.equal(dequantized_weight(weight, quant), weight)
    given = (weight * 2).requires_grad_()
    through = straight_through_weight(given, expanded_scale(weight, quant), 3, 4)
    assert through.tolist() == [[-4.0, 3.0, 0.0, 2.0, 4.0, -3.0, 0.0, -2.0]]
    through.sum().backward()
    assert given.grad is not None
    assert given.grad.tolist() == [[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_blocks_are_rounded_as_onnx_runtime_rounds_them(bits: int, rows: int) -> None:
    torch.manual_seed(rows)
    x = torch.randn(rows, 2, 72) * 10 ** torch.linspace(-3, 3, rows).view(-1, 1, 1)
    x[0, 0, :32] = 0
    weight, quant = torch.randn(5, 72), WeightQuant(bits, torch.rand(5, 3) + 0.1, group_size=32)
    sizes: dict[str, Any] = {"K": 72, "N": 5, "bits": bits, "block_size": 32, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)
    assert quant.scale is not None
    packed = packed_groups(quantize_weight(weight, quant), quant)
    constants = [numpy_helper.from_array(value.numpy(), name) for value, name in ((packed, "w"), (quant.scale, "s"))]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", [given], [made], constants)
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    (product,) = open_session(model.SerializeToString()).run(None, {"x": x.numpy()})
    expected = fake_quantize_blocks(x, 32) @ dequantized_weight(weight, quant).T
    largest = x.abs().amax(-1, keepdim=True)  # errors of sums are those of their summands
    torch.testing.assert_close(torch.from_numpy(product) / largest, expected / largest, rtol=1e-4, atol=1e-3)


def test_rounded_blocks_pass_gradients() -> None:
    x = torch.randn(3, 40, requires_grad=True)
    fake_quantize_blocks(x, 32).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(3, 40))
