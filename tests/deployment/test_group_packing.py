from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kneepoint.deployment.group_packing import packed_groups
from kneepoint.deployment.runtime import open_session
from kneepoint.spaces.quant_plan import WeightQuant


@given(st.sampled_from([1, 2, 3, 4, 6, 8]), st.sampled_from([32, 64, 128]), st.integers(1, 5), st.integers(1, 200))
def test_every_integer_can_be_read_back(bits: int, size: int, rows: int, features: int) -> None:
    quant = WeightQuant(bits, group_size=size)
    values = torch.randint(quant.lowest, quant.limit + 1, (rows, features)).to(torch.int8)
    packed = packed_groups(values, quant)
    assert packed.shape == (rows, -(-features // size), size * quant.stored_bits // 8)
    in_a_byte = 8 // quant.stored_bits
    parts = [packed >> (quant.stored_bits * i) & (2**quant.stored_bits - 1) for i in range(in_a_byte)]
    unpacked = torch.stack(parts, dim=-1).view(rows, -1).to(torch.int32) - 2 ** (quant.stored_bits - 1)
    assert torch.equal(unpacked[:, :features], values.to(torch.int32))
    assert not unpacked[:, features:].any()


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_onnx_runtime_reads_them_so(bits: int, level: int) -> None:
    quant = WeightQuant(bits, group_size=32)
    values = torch.randint(quant.lowest, quant.limit + 1, (6, 40)).to(torch.int8)
    scale = (torch.rand(6, 2) + 0.1) * torch.tensor([1, -1])
    sizes: dict[str, Any] = {"K": 40, "N": 6, "bits": bits, "block_size": 32, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    constants = [
        numpy_helper.from_array(packed_groups(values, quant).numpy(), "w"),
        numpy_helper.from_array(scale.numpy(), "s"),
    ]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], constants), opset_imports=imports, ir_version=10)
    (product,) = open_session(model.SerializeToString()).run(None, {"x": np.eye(40, dtype=np.float32)})
    expected = values.float() * scale.repeat_interleave(32, dim=1)[:, :40]
    np.testing.assert_allclose(product.T, expected.numpy(), rtol=1e-6 if level == 0 else 1e-5, atol=1e-6)
