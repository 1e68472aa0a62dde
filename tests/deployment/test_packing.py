from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from kneepoint.compression.quantizers import quantize_weight
from kneepoint.deployment.export_graph import StoredWeight
from kneepoint.deployment.packing import pack_weights
from kneepoint.deployment.runtime import open_session
from kneepoint.spaces.quant_plan import CONTAINERS, WeightQuant
from kneepoint.spaces.tracing import tensors_of
from kneepoint.tasks.errors import JobFailed

TYPES = {16: TensorProto.FLOAT16, 8: TensorProto.INT8, 4: TensorProto.INT4, 2: TensorProto.INT2}


def weights(exported: Any) -> Iterator[tuple[TensorProto, Any]]:
    stored = {entry.name: entry for entry in exported.model.graph.initializer}
    for name, quant in exported.compressed.plan.weights.items():
        yield stored[exported.compressed.network.layers[name].weight], quant


@pytest.mark.parametrize("bits", [16, 8, 4, 2])
def test_a_weight_takes_the_bits_it_has(bench: Any, bits: int) -> None:
    for entry, _ in weights(bench.export("residual", str(bits))):
        assert entry.data_type == TYPES[bits]
        assert len(entry.raw_data) == -(-int(np.prod(entry.dims)) * bits // 8)


def test_files_shrink_with_their_weights(bench: Any) -> None:
    exports = {how: bench.export("residual", how) for how in ("fp32", "16", "8", "4", "2")}
    elements = sum(int(np.prod(entry.dims)) for entry, _ in weights(exports["8"]))
    sizes = {how: len(exported.data) for how, exported in exports.items()}
    assert sizes["8"] - sizes["4"] == pytest.approx(elements / 2, abs=1500)  # the Casts take some of it
    assert sizes["4"] - sizes["2"] == pytest.approx(elements / 4, abs=100)
    assert sizes["fp32"] - sizes["16"] == pytest.approx(2 * elements, abs=1000)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_integers_are_those_of_the_plan(bench: Any, bits: int) -> None:
    exported = bench.export("residual", str(bits))
    stored = {entry.name: entry for entry in exported.model.graph.initializer}
    floats = tensors_of(exported.compressed.folded)
    for name, quant in exported.compressed.plan.weights.items():
        parameter = exported.compressed.network.layers[name].weight
        expected = quantize_weight(floats[parameter], quant)
        assert np.array_equal(numpy_helper.to_array(stored[parameter]).astype(np.int8), expected.numpy())


def test_mixed_bits_stand_side_by_side(bench: Any) -> None:
    exported = bench.export("residual", "mixed")
    assert {entry.data_type for entry, _ in weights(exported)} == {*TYPES.values(), TensorProto.FLOAT}
    assert all(entry.data_type == TYPES.get(quant.bits, TensorProto.FLOAT) for entry, quant in weights(exported))
    assert {entry.domain: entry.version for entry in exported.model.opset_import} == {"": 25}


@pytest.mark.parametrize(("how", "opset"), [("8", 21), ("4", 21), ("2", 25)])
def test_the_opset_is_raised_only_where_a_container_needs_it(bench: Any, how: str, opset: int) -> None:
    assert {entry.domain: entry.version for entry in bench.export("residual", how).model.opset_import} == {"": opset}


def small(values: np.ndarray[Any, Any], names: tuple[str, ...] = ("a.weight",)) -> ModelProto:
    """Nodes that read one initializer under every name of ``names``, and add up."""
    one = numpy_helper.from_array(np.ones(len(values), np.float32), "scale")
    constants = [one, *(numpy_helper.from_array(values, name) for name in dict.fromkeys(names))]
    nodes = [
        helper.make_node("DequantizeLinear", [name, "scale"], [f"w{i}"], axis=0) for i, name in enumerate(names)
    ] + [helper.make_node("Sum", ["x", *(f"w{i}" for i in range(len(names)))], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def stored(values: np.ndarray[Any, Any], bits: int) -> StoredWeight:
    return StoredWeight(WeightQuant(bits, CONTAINERS[bits], torch.ones(len(values))), torch.from_numpy(values))


def test_weights_that_torch_merged_are_packed_once_in_the_widest_container_needed() -> None:
    values = np.array([[1, -1, 0], [0, 1, 1]], np.int8)
    for bits, kind in ((2, TensorProto.INT2), (4, TensorProto.INT4), (8, TensorProto.INT8)):
        model = small(values, ("a.weight", "a.weight"))
        pack_weights(model, {"a.weight": stored(values, 2), "b.weight": stored(values, bits)})
        assert [entry.data_type for entry in model.graph.initializer if entry.name == "a.weight"] == [kind]
        (y,) = open_session(model.SerializeToString()).run(None, {"x": np.zeros((2, 3), np.float32)})
        assert np.array_equal(y, 2 * values)


def test_an_odd_number_of_weights_is_padded_to_a_whole_byte() -> None:
    values = np.array([[7], [-7], [3]], np.int8)
    model = small(values)
    pack_weights(model, {"a.weight": stored(values, 4)})
    entry = next(entry for entry in model.graph.initializer if entry.name == "a.weight")
    assert len(entry.raw_data) == 2
    (y,) = open_session(model.SerializeToString()).run(None, {"x": np.zeros((3, 1), np.float32)})
    assert np.array_equal(y, values)


def test_a_weight_that_is_not_there_is_named() -> None:
    values = np.array([[1], [0]], np.int8)
    with pytest.raises(JobFailed, match=r"has no initializer 'b.weight', so its weight cannot be packed"):
        pack_weights(small(values), {"b.weight": stored(values + 1, 4)})
