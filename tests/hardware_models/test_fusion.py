"""The fusion rules against the graphs that ONNX Runtime itself writes after optimizing the same model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kneepoint.hardware_models import (
    FUSION_RULES,
    Bias,
    Kernel,
    Operator,
    OperatorTable,
    Tensor,
    Weight,
    fuse,
    read_onnx,
)

RNG = np.random.default_rng(0)
EXTENDED = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
INTEGER_TYPES: dict[int, tuple[int, int, int]] = {
    TensorProto.INT8: (TensorProto.INT8, 127, 21),
    TensorProto.INT4: (TensorProto.INT4, 7, 21),
    TensorProto.INT2: (TensorProto.INT2, 1, 25),
}

# What the runtime calls a kernel, and what the rules call it.
RUNTIME_KERNELS = {
    "QLinearConv": ("conv", "int8"),
    "Conv": ("conv", "fp32"),
    "FusedConv": ("conv", "fp32"),
    "ConvTranspose": ("conv_transpose", "fp32"),
    "QGemm": ("linear", "int8"),
    "Gemm": ("linear", "fp32"),
    "FusedGemm": ("linear", "fp32"),
    "MatMulIntegerToFloat": ("matmul", "int8"),
    "QLinearMatMul": ("matmul", "int8"),
    "QLinearAdd": ("add", "int8"),
    "QLinearMul": ("mul", "int8"),
    "QLinearConcat": ("concat", "int8"),
    "QLinearAveragePool": ("avg_pool", "int8"),
    "QLinearSigmoid": ("activation", "int8"),
    "QLinearLeakyRelu": ("activation", "int8"),
    "QLinearSoftmax": ("softmax", "int8"),
    "Add": ("add", "fp32"),
    "Concat": ("concat", "fp32"),
    "AveragePool": ("avg_pool", "fp32"),
    "ReduceMean": ("reduce", "fp32"),
    "Softmax": ("softmax", "fp32"),
    "Relu": ("activation", "fp32"),
    "LeakyRelu": ("activation", "fp32"),
    "Gelu": ("activation", "fp32"),
    "Elu": ("activation", "fp32"),
    "QuickGelu": ("activation", "fp32"),
    "QuantizeLinear": ("quantize", "int8"),
    "DequantizeLinear": ("dequantize", "int8"),
}
BYTES_AS_THEY_ARE = {
    "MaxPool": "max_pool",
    "Transpose": "transpose",
    "Reshape": "view",
    "Flatten": "view",
}
HIGHEST = tuple(rule for rule in FUSION_RULES if rule != "blocked")


class Model:
    """A model built call by call; every method takes and returns names of tensors."""

    def __init__(self, shape: tuple[int, ...] = (1, 16, 8, 8), bits: int = TensorProto.INT8) -> None:
        self.shape = shape
        self.bits = bits
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: object, data_type: int = TensorProto.FLOAT) -> str:
        array = np.asarray(values)
        name = f"c{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, data_type, array.shape, array.ravel().tolist()))
        return name

    def pair(self, source: str, zero: int = 128, scale: float = 0.05) -> str:
        parameters = self.constant(np.float32(scale)), self.constant(zero, TensorProto.UINT8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", source, *parameters), *parameters)

    def weight(self, *shape: int, quantized: bool = True) -> str:
        if not quantized:
            self.constants.append(numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32)))
            self.constants[-1].name = name = f"c{len(self.constants) - 1}"
            return name
        data_type, limit, _ = INTEGER_TYPES[self.bits]
        stored = self.constant(RNG.integers(-limit, limit + 1, shape), data_type)
        if data_type != TensorProto.INT8:
            stored = self.add("Cast", stored, to=TensorProto.INT8)
        zero = self.constant(np.zeros(shape[0], np.int64), TensorProto.INT8)
        return self.add("DequantizeLinear", stored, self.constant(np.full(shape[0], 0.01, np.float32)), zero, axis=0)

    def bias(self, channels: int) -> str:
        stored = self.constant(np.ones(channels, np.int64), TensorProto.INT32)
        return self.add("DequantizeLinear", stored, self.constant(np.full(channels, 5e-4, np.float32)), axis=0)

    def conv(self, source: str, *, quantized: bool = True, out: int = 16, depth: int = 16, bias: bool = False) -> str:
        extra = (self.bias(out) if quantized else self.constant(np.ones(out, np.float32)),) if bias else ()
        return self.add("Conv", source, self.weight(out, depth, 3, 3, quantized=quantized), *extra, pads=[1, 1, 1, 1])

    def gemm(self, source: str, *, quantized: bool = True) -> str:
        return self.add("Gemm", source, self.weight(10, 16, quantized=quantized), self.bias(10), transB=1)

    def finish(self, output: str) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "y"
        assert output == f"t{len(self.nodes) - 1}"
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            self.constants,
        )
        opset = INTEGER_TYPES[self.bits][2]
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def runtime_nodes(model: onnx.ModelProto, folder: Path, level: object = EXTENDED) -> list[str]:
    """The operators ONNX Runtime executes for ``model``."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3  # it warns that the saved graph is for this machine only
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def comparable(nodes: list[str]) -> Counter[tuple[str, str]]:
    moved = Counter((BYTES_AS_THEY_ARE[name], "") for name in nodes if name in BYTES_AS_THEY_ARE)
    return moved + Counter(RUNTIME_KERNELS[name] for name in nodes if name not in BYTES_AS_THEY_ARE)


def predicted(kernels: tuple[Kernel, ...]) -> Counter[tuple[str, str]]:
    return Counter((k.kind, "" if k.kind in BYTES_AS_THEY_ARE.values() else k.format) for k in kernels)


def float_residual() -> onnx.ModelProto:
    m = Model()
    stem = m.add("Relu", m.conv("x", quantized=False))
    body = m.conv(m.add("Relu", m.conv(stem, quantized=False)), quantized=False)
    return m.finish(m.add("Relu", m.add("Add", body, stem)))


def quantized_residual(bits: int = TensorProto.INT8) -> onnx.ModelProto:
    m = Model(bits=bits)
    stem = m.pair(m.add("Relu", m.conv(m.pair("x"), bias=True)), zero=0)
    body = m.pair(m.conv(m.pair(m.add("Relu", m.conv(stem, bias=True)), zero=0), bias=True))
    joined = m.pair(m.add("Relu", m.add("Add", body, stem)), zero=0)
    pooled = m.add("ReduceMean", joined, m.constant([2, 3], TensorProto.INT64), keepdims=0)
    return m.finish(m.gemm(m.pair(pooled, zero=0)))


def built(kind: str) -> onnx.ModelProto:
    m = Model()
    quantized = m.pair("x")
    inner = m.pair(m.conv(quantized))
    outcomes = {
        "max pool": lambda: m.pair(m.add("MaxPool", inner, kernel_shape=[2, 2])),
        "max pool, float after": lambda: m.add("MaxPool", inner, kernel_shape=[2, 2]),
        "average pool": lambda: m.pair(m.add("AveragePool", inner, kernel_shape=[2, 2])),
        "average pool, float after": lambda: m.add("AveragePool", inner, kernel_shape=[2, 2]),
        "concat": lambda: m.pair(m.add("Concat", quantized, inner, axis=1)),
        "concat, float after": lambda: m.add("Concat", quantized, inner, axis=1),
        "mul": lambda: m.pair(m.add("Mul", quantized, inner)),
        "add, float after": lambda: m.add("Add", quantized, inner),
        "sigmoid between pairs": lambda: m.pair(m.add("Sigmoid", inner)),
        "leaky relu between pairs": lambda: m.pair(m.add("LeakyRelu", inner)),
        "softmax between pairs": lambda: m.pair(m.add("Softmax", inner)),
        "gelu between pairs": lambda: m.pair(m.add("Gelu", inner)),
        "leaky relu without a pair before": lambda: m.pair(m.add("LeakyRelu", m.conv(inner))),
        "convolution, float after": lambda: m.conv(inner),
        "pool behind relu": lambda: m.pair(m.add("MaxPool", m.add("Relu", m.conv(inner)), kernel_shape=[2, 2]), zero=0),
        "relu behind softmax": lambda: m.pair(m.add("Relu", m.add("Softmax", inner)), zero=0),
        "flatten": lambda: m.pair(m.add("Flatten", inner)),
        "mean": lambda: m.pair(m.add("ReduceMean", inner, m.constant([2, 3], TensorProto.INT64))),
        "transpose": lambda: m.pair(m.add("Transpose", inner, perm=[0, 2, 3, 1])),
        "matmul": lambda: m.pair(m.add("MatMul", quantized, inner)),
        "matmul, float after": lambda: m.add("MatMul", quantized, inner),
        "transposed convolution": lambda: m.pair(m.add("ConvTranspose", inner, m.weight(16, 16, 3, 3))),
    }
    return m.finish(outcomes[kind]())


def dense(kind: str) -> onnx.ModelProto:
    m = Model(shape=(1, 16))
    outcomes = {
        "float after": lambda: m.gemm(m.pair("x")),
        "relu, pair after": lambda: m.pair(m.add("Relu", m.gemm(m.pair("x"))), zero=0),
        "relu, float after": lambda: m.add("Relu", m.gemm(m.pair("x"))),
        "leaky relu, pair after": lambda: m.pair(m.add("LeakyRelu", m.gemm(m.pair("x")))),
    }
    return m.finish(outcomes[kind]())


@pytest.mark.parametrize("bits", list(INTEGER_TYPES))
def test_quantized_residual_network(bits: int, tmp_path: Path) -> None:
    model = quantized_residual(bits)
    kernels = fuse(read_onnx(model))
    assert predicted(kernels) == comparable(runtime_nodes(model, tmp_path))
    assert predicted(kernels)["conv", "int8"] == 3


@pytest.mark.parametrize(
    "kind",
    [
        "max pool", "max pool, float after", "average pool", "average pool, float after", "concat",
        "concat, float after", "mul", "add, float after", "sigmoid between pairs", "leaky relu between pairs",
        "softmax between pairs",
        "gelu between pairs", "leaky relu without a pair before", "convolution, float after", "pool behind relu",
        "relu behind softmax", "flatten", "mean", "transpose", "matmul", "matmul, float after",
        "transposed convolution",
    ],
)  # fmt: skip
def test_operator_behind_a_quantized_convolution(kind: str, tmp_path: Path) -> None:
    model = built(kind)
    assert predicted(fuse(read_onnx(model))) == comparable(runtime_nodes(model, tmp_path))


@pytest.mark.parametrize("kind", ["float after", "relu, pair after", "relu, float after", "leaky relu, pair after"])
def test_quantized_linear_layer(kind: str, tmp_path: Path) -> None:
    model = dense(kind)
    assert predicted(fuse(read_onnx(model))) == comparable(runtime_nodes(model, tmp_path))


@pytest.mark.parametrize("function", ["Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Gelu"])
def test_activation_behind_a_float_convolution(function: str, tmp_path: Path) -> None:
    m = Model()
    model = m.finish(m.add(function, m.conv("x", quantized=False)))
    assert predicted(fuse(read_onnx(model))) == comparable(runtime_nodes(model, tmp_path))


def test_silu_stays_a_kernel(tmp_path: Path) -> None:
    m = Model()
    convolved = m.conv("x", quantized=False)
    model = m.finish(m.add("Mul", convolved, m.add("Sigmoid", convolved)))
    assert predicted(fuse(read_onnx(model))) == comparable(runtime_nodes(model, tmp_path))


def test_a_residual_fuses_where_the_rule_is_on(tmp_path: Path) -> None:
    m = Model(shape=(1, 18, 8, 8))  # whose channels cannot be blocked
    first = m.conv("x", quantized=False, out=18, depth=18, bias=True)
    second = m.conv(first, quantized=False, out=18, depth=18, bias=True)
    model = m.finish(m.add("Relu", m.add("Add", second, first)))
    table = read_onnx(model)
    assert predicted(fuse(table)) == comparable(runtime_nodes(model, tmp_path))
    kernels = fuse(table, HIGHEST)
    assert [(k.kind, k.function) for k in kernels] == [("conv", ""), ("conv", "add+relu")]
    assert kernels[-1].input_bytes == 2 * kernels[-1].output_bytes
    assert predicted(kernels) == comparable(runtime_nodes(model, tmp_path, ALL))


def test_a_residual_without_a_bias_fuses_into_blocked_convolutions_alone() -> None:
    table = read_onnx(float_residual())
    assert [k.kind for k in fuse(table, HIGHEST)] == ["conv", "conv", "conv", "add", "activation"]
    blocked = [(k.kind, k.layout, k.function) for k in fuse(table, FUSION_RULES)]
    convolutions = [("conv", "blocked", "relu"), ("conv", "blocked", "relu"), ("conv", "blocked", "add+relu")]
    assert blocked == [("reorder", "", "input"), *convolutions, ("reorder", "", "output")]


def test_names_do_not_matter() -> None:
    table = read_onnx(quantized_residual())
    other = rename(table)
    assert [kernel.row for kernel in fuse(table)] == [kernel.row for kernel in fuse(other)]


def rename(table: OperatorTable) -> OperatorTable:
    """The same structure under names whose alphabetical order is another one."""
    names = {name: f"{hash((name, 7)) % 10**9}-{i}" for i, name in enumerate(table.tensors)}
    tensors = {names[name]: replace(tensor, name=names[name]) for name, tensor in table.tensors.items()}
    operators = tuple(
        replace(o, name=f"op{i}", inputs=tuple(names[n] for n in o.inputs), output=names[o.output])
        for i, o in enumerate(table.operators)
    )
    ends = (tuple(names[n] for n in table.inputs), tuple(names[n] for n in table.outputs))
    return OperatorTable(operators, tensors, *ends, table.parameters)


def test_rows_hold_the_bytes_of_what_really_runs() -> None:
    quantized = Weight((4, 3, 1, 1), stored_bits=4, format="int8", channels=4)
    tensors = {
        "x": Tensor("x", (1, 3, 2, 2), "uint8"),
        "a": Tensor("a", (1, 4, 2, 2), "uint8"),
        "y": Tensor("y", (1, 4, 2, 2)),
    }
    operators = (
        Operator("conv", "conv", ("x",), "a", 48, quantized),
        Operator("gelu", "activation", ("a",), "y", function="gelu"),
    )
    kernels = fuse(OperatorTable(operators, tensors, ("x",), ("y",)))
    assert [kernel.row for kernel in kernels] == [
        ("quantize", "int8", "", 0, 48, 0, 12, 12, "", (1, *[0] * 10, 12)),
        ("conv", "int8", "", 48, 12, 12, 16, 16, "", (1, 3, 4, 1, 2, 2, 2, 2, 1, 1, 1, 0)),
        ("dequantize", "int8", "", 0, 16, 0, 64, 16, "", (1, *[0] * 10, 16)),
        ("activation", "fp32", "", 0, 64, 0, 64, 16, "gelu", (1, *[0] * 10, 16)),
    ]


def test_every_float_reader_gets_a_copy_of_its_own() -> None:
    tensors = {name: Tensor(name, (1, 4), "uint8" if name == "x" else "fp32") for name in "xaby"}
    operators = (
        Operator("g", "activation", ("x",), "a", function="gelu"),
        Operator("h", "activation", ("x",), "b", function="elu"),
        Operator("s", "add", ("a", "b"), "y"),
    )
    kernels = fuse(OperatorTable(operators, tensors, ("x",), ("y",)))
    assert [kernel.kind for kernel in kernels] == [
        "quantize",
        "dequantize",
        "activation",
        "dequantize",
        "activation",
        "add",
    ]


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fusion rules are .*got \['magic'\]"):
        fuse(read_onnx(float_residual()), ("magic",))


def linear(name: str, source: str, weight: Weight, *, dynamic: bool = False) -> Operator:
    return Operator(name, "linear", (source,), name, 12, weight, bias=Bias(3), dynamic=dynamic)


def rows(operators: tuple[Operator, ...], *outputs: str, rank: int = 2) -> list[tuple[str, str, int, int, int, str]]:
    names = {"x", *(operator.output for operator in operators)}
    tensors = {name: Tensor(name, (*[1] * (rank - 1), 4 if name in ("x", "s") else 3)) for name in names}
    kernels = fuse(OperatorTable(operators, tensors, ("x",), outputs))
    return [(k.kind, k.format, k.input_bytes, k.weight_bytes, k.output_bytes, k.function) for k in kernels]


def test_a_dynamic_layer_quantizes_its_input_itself_and_several_share_one() -> None:
    weight = Weight((3, 4), 4, "int8", 3, scales=3)
    alone = linear("a", "x", weight, dynamic=True)
    assert rows((alone,), "a", rank=3) == [("linear", "dynamic", 16, 12, 12, "")]
    assert rows((alone, linear("b", "x", weight, dynamic=True)), "a", "b") == [
        ("quantize", "int8", 16, 0, 4, "dynamic"),
        ("linear", "int8", 4, 12, 12, ""),
        ("linear", "int8", 4, 12, 12, ""),
    ]


def test_a_bias_is_added_by_the_kernel_that_takes_it() -> None:
    gelu = Operator("g", "activation", ("a",), "g", function="gelu")
    floats, packed = Weight((3, 4), channels=3), Weight((3, 4), 4, "packed", 3, scales=3, group_size=32)
    product = ("linear", "fp32", 16, 48, 12, "")
    assert rows((linear("a", "x", floats),), "a") == [product]
    assert rows((linear("a", "x", floats),), "a", rank=3) == [product, ("add", "fp32", 12, 12, 12, "bias")]
    assert rows((linear("a", "x", floats), gelu), "g", rank=3) == [product, ("activation", "fp32", 12, 12, 12, "gelu")]
    unpacked_by_kernel = ("linear", "packed4", 16, 3 * 16 + 12, 12, "")
    assert rows((linear("a", "x", packed),), "a", rank=3) == [unpacked_by_kernel]
    assert rows((linear("a", "x", packed), gelu), "g") == [
        unpacked_by_kernel,
        ("activation", "fp32", 12, 12, 12, "gelu"),
    ]


def test_rows_of_integers_are_scaled_after_they_are_looked_up() -> None:
    table = Weight((20, 3), 8, "int8", 3, scales=20)
    assert rows((Operator("e", "embedding", ("x",), "e", weight=table),), "e") == [
        ("embedding", "int8", 16, 3, 3, ""),
        ("dequantize", "int8", 3, 0, 12, "cast"),
        ("embedding", "fp32", 16, 4, 4, ""),
        ("mul", "fp32", 16, 0, 12, ""),
    ]


def test_constant_factors_are_part_of_a_product() -> None:
    operators = (
        Operator("s", "mul", ("x",), "s", function="scale", operand=()),
        Operator("p", "matmul", ("s", "x"), "p", 9),
        Operator("t", "mul", ("p",), "t", function="scale", operand=()),
    )
    assert rows(operators, "t") == [("matmul", "fp32", 32, 0, 12, "scale")]
