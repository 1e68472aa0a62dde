"""Small ONNX models, built node by node, lowered into the operator table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kneepoint.hardware_models import Bias, OperatorTable, Workload, read_onnx
from kneepoint.tasks.errors import DeviceError

RNG = np.random.default_rng(0)


def constant(name: str, values: object, data_type: int = TensorProto.FLOAT) -> onnx.TensorProto:
    array = np.asarray(values)
    return helper.make_tensor(name, data_type, array.shape, array.ravel().tolist())


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def model(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    shape: tuple[str | int, ...] = ("batch", 3, 8, 8),
    opset: int = 21,
    output: str = "y",
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def pair(source: str, target: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{target}:q"]),
        helper.make_node("DequantizeLinear", [f"{target}:q", "scale", "zero"], [target]),
    ]


PAIR = [constant("scale", np.float32(0.05)), constant("zero", 0, TensorProto.UINT8)]


def kinds(table: OperatorTable) -> list[str]:
    return [operator.kind for operator in table.operators]


def float_cnn() -> onnx.ModelProto:
    norm = [constant(f"bn.{name}", np.ones(8, np.float32)) for name in ("scale", "bias", "mean", "var")]
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["a"], "n0", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "body.weight", "body.bias"], ["d"], "n1", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "c"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("ReduceMean", ["f", "axes"], ["g"], keepdims=0),
        helper.make_node("Gemm", ["g", "head.weight", "head.bias"], ["y"], "n2", transB=1),
    ]
    constants = [
        weights("stem.weight", 8, 3, 3, 3),
        *norm,
        weights("body.weight", 8, 8, 3, 3),
        weights("body.bias", 8),
        constant("axes", [2, 3], TensorProto.INT64),
        weights("head.weight", 10, 8),
        weights("head.bias", 10),
    ]
    return model(nodes, constants)


def test_float_network_is_lowered_with_its_norm_folded() -> None:
    table = read_onnx(float_cnn())
    assert kinds(table) == ["conv", "activation", "conv", "add", "activation", "global_avg_pool", "linear"]
    assert [operator.name for operator in table.operators if operator.weight] == ["stem", "body", "head"]
    assert all(operator.bias for operator in table.operators if operator.weight)
    assert table.macs == 64 * 8 * 27 + 64 * 8 * 72 + 80
    assert table.parameters == 8 * 27 + 8 + 8 * 72 + 8 + 80 + 10
    assert table.storage_bytes == 4 * table.parameters
    assert table.inputs == ("x",)
    assert table.outputs == ("y",)


def test_a_symbolic_batch_is_fixed() -> None:
    one, four = read_onnx(float_cnn()), read_onnx(float_cnn(), batch=4)
    assert four.macs == 4 * one.macs
    assert four.tensors["y"].shape == (4, 10)
    with pytest.raises(DeviceError, match="positive number; got 0"):
        read_onnx(float_cnn(), batch=0)


def test_the_given_model_is_left_as_it_is() -> None:
    given = float_cnn()
    before = given.SerializeToString()
    read_onnx(given)
    assert given.SerializeToString() == before


def quantized_conv(container: str) -> onnx.ModelProto:
    """Conv, relu, conv on quantized activations, whose weights are held in ``container``."""
    types = {"int8": TensorProto.INT8, "int4": TensorProto.INT4, "int2": TensorProto.INT2}
    limit = {"int8": 127, "int4": 7, "int2": 1}[container]
    nodes, constants = pair("x", "a"), list(PAIR)
    for name, depth in (("w0", 3), ("w1", 8)):
        values = RNG.integers(-limit, limit + 1, (8, depth, 3, 3))
        constants += [
            constant(f"{name}:i", values, types[container]),
            constant(f"{name}:s", np.full(8, 0.01, np.float32)),
            constant(f"{name}:z", np.zeros(8, np.int64), TensorProto.INT8),
            constant(f"{name}:b", np.ones(8, np.int64), TensorProto.INT32),
            constant(f"{name}:bs", np.full(8, 5e-4, np.float32)),
        ]
        source = f"{name}:i"
        if container != "int8":
            nodes.append(helper.make_node("Cast", [source], [f"{name}:c"], to=TensorProto.INT8))
            source = f"{name}:c"
        nodes.append(helper.make_node("DequantizeLinear", [source, f"{name}:s", f"{name}:z"], [name], axis=0))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}:b", f"{name}:bs"], [f"{name}:bias"], axis=0))
    nodes += [
        helper.make_node("Conv", ["a", "w0", "w0:bias"], ["b"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["b"], ["c"]),
        *pair("c", "d"),
        helper.make_node("Conv", ["d", "w1", "w1:bias"], ["e"], "second", pads=[1, 1, 1, 1]),
        *pair("e", "y"),
    ]
    return model(nodes, constants, opset=25 if container == "int2" else 21)


@pytest.mark.parametrize(("container", "bits"), [("int8", 8), ("int4", 4), ("int2", 2)])
def test_pairs_collapse_and_integer_weights_keep_their_width(container: str, bits: int) -> None:
    table = read_onnx(quantized_conv(container))
    assert kinds(table) == ["conv", "activation", "conv"]
    assert {name: tensor.format for name, tensor in table.tensors.items()} == {
        "x": "uint8",
        "b": "fp32",
        "c": "uint8",
        "e": "uint8",
    }
    for operator in table.operators[::2]:
        assert operator.weight is not None
        assert (operator.weight.stored_bits, operator.weight.format) == (bits, "int8")
        assert (operator.weight.scales, operator.weight.zero_points) == (8, 8)
        assert operator.bias is not None
        assert (operator.bias.channels, operator.bias.scales) == (8, 8)
    assert table.parameters == 8 * 27 + 8 * 72 + 16
    assert table.storage_bytes == (8 * 27 + 8 * 72) * bits // 8 + 2 * (3 * 32 + 8)


def test_float16_weights_are_stored_in_sixteen_bits_and_run_in_float() -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "v"], ["y"], "layer"),
    ]
    half = numpy_helper.from_array(RNG.standard_normal((4, 3, 1, 1)).astype(np.float16), "w")
    (conv,) = read_onnx(model(nodes, [half])).operators
    assert conv.weight is not None
    assert (conv.weight.stored_bits, conv.weight.format, conv.weight.stored_bytes) == (16, "fp32", 24)


def test_a_float_tensor_with_other_readers_keeps_a_quantized_copy() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        *pair("a", "b"),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    table = read_onnx(model(nodes, PAIR))
    assert kinds(table) == ["activation", "view", "max_pool", "add"]
    assert [table.tensors[name].format for name in ("a", "b:q")] == ["fp32", "uint8"]


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        (
            [helper.make_node("Conv", ["x", "w"], ["y"], group=3)],
            [weights("w", 3, 1, 3, 3)],
            ("depthwise_conv", "", 972),
        ),
        (
            [helper.make_node("Conv", ["x", "w"], ["y"], group=3)],
            [weights("w", 6, 1, 1, 1)],
            ("depthwise_conv", "", 384),
        ),
        (
            [helper.make_node("ConvTranspose", ["x", "w"], ["y"])],
            [weights("w", 3, 4, 2, 2)],
            ("conv_transpose", "", 3072),
        ),
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights("w", 8, 5)], ("linear", "", 960)),
        ([helper.make_node("MatMul", ["x", "x"], ["y"])], [], ("matmul", "", 1536)),
        ([helper.make_node("LeakyRelu", ["x"], ["y"])], [], ("activation", "leakyrelu", 0)),
        ([helper.make_node("HardSwish", ["x"], ["y"])], [], ("activation", "hardswish", 0)),
        ([helper.make_node("GlobalAveragePool", ["x"], ["y"])], [], ("global_avg_pool", "", 0)),
        ([helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2])], [], ("avg_pool", "", 0)),
        ([helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], [], ("transpose", "", 0)),
        ([helper.make_node("Softmax", ["x"], ["y"])], [], ("softmax", "", 0)),
        ([helper.make_node("Flatten", ["x"], ["y"])], [], ("view", "flatten", 0)),
        ([helper.make_node("Sub", ["x", "x"], ["y"])], [], ("add", "sub", 0)),
        ([helper.make_node("Div", ["x", "s"], ["y"])], [constant("s", np.float32(2))], ("mul", "scale", 0)),
        (
            [helper.make_node("CumSum", ["x", "a"], ["y"])],
            [constant("a", 1, TensorProto.INT64)],
            ("other", "CumSum", 0),
        ),
        (
            [helper.make_node("ReduceMean", ["x", "a"], ["y"])],
            [constant("a", [-2, -1], TensorProto.INT64)],
            ("global_avg_pool", "", 0),
        ),
        (
            [helper.make_node("ReduceMean", ["x", "a"], ["y"])],
            [constant("a", [1], TensorProto.INT64)],
            ("reduce", "ReduceMean", 0),
        ),
    ],
)
def test_one_node_becomes_one_operator(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], expected: tuple[str, str, int]
) -> None:
    (operator,) = read_onnx(model(nodes, constants)).operators
    assert (operator.kind, operator.function, operator.macs) == expected


def test_matmul_and_add_are_one_linear_layer() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["head.bias", "a"], ["y"])]
    (operator,) = read_onnx(model(nodes, [weights("w", 8, 5), weights("head.bias", 5)])).operators
    assert operator.weight is not None
    assert (operator.name, operator.kind, operator.weight.shape) == ("head", "linear", (5, 8))
    assert operator.bias == Bias(5, "head.bias")


def test_malformed_graphs_are_refused() -> None:
    later = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    with pytest.raises(DeviceError, match=r"malformed|cannot be inferred"):
        read_onnx(model(later, []))
    with pytest.raises(DeviceError, match=r"malformed|cannot be inferred"):
        read_onnx(model([helper.make_node("Conv", ["x"], ["y"])], []))


def test_sigmoid_times_its_input_is_one_activation() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Mul", ["a", "b"], ["y"]),
    ]
    assert [operator.function for operator in read_onnx(model(nodes, [])).operators] == ["relu", "silu"]


def test_shape_computations_are_not_operators() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["m"]),
        helper.make_node("Concat", ["m", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    constants = [
        constant("zero", 0, TensorProto.INT64),
        constant("axis", [0], TensorProto.INT64),
        constant("rest", [-1], TensorProto.INT64),
    ]
    table = read_onnx(model(nodes, constants))
    assert kinds(table) == ["view"]
    assert table.tensors["y"].shape == (1, 192)
    assert table.parameters == 0


def test_a_looked_up_table_is_an_embedding() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "i"], ["a"]),
        helper.make_node("LayerNormalization", ["a", "scale", "bias"], ["y"]),
    ]
    constants = [weights("table", 100, 16), weights("scale", 16), weights("bias", 16)]
    table = read_onnx(model(nodes, constants, shape=("batch", 7)))
    assert kinds(table) == ["select", "embedding", "layer_norm"]
    assert table.parameters == 1632
    assert Workload.of(table).storage_bytes == 4 * 1632


def test_repeated_node_names_are_made_unique() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], "n"), helper.make_node("Relu", ["a"], ["y"], "n")]
    assert [operator.name for operator in read_onnx(model(nodes, [])).operators] == ["n", "n:2"]


def test_a_file_is_read_without_its_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(float_cnn(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    assert read_onnx(path).macs == read_onnx(float_cnn()).macs


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"missing\.onnx: no such file"):
        read_onnx(tmp_path / "missing.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff\xfe not a model")
    with pytest.raises(DeviceError, match=r"broken\.onnx"):
        read_onnx(broken)
    broken.write_bytes(b"")
    with pytest.raises(DeviceError, match="is not an ONNX model"):
        read_onnx(str(broken))


def test_shapes_that_cannot_be_inferred_are_named() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(DeviceError, match="shape of tensor 'x'"):
        read_onnx(model(nodes, [], shape=("batch", 3, "height", 8)))
    with pytest.raises(DeviceError, match=r"shape of tensor 'y' .*NonZero"):
        read_onnx(model([helper.make_node("NonZero", ["x"], ["y"])], []))
