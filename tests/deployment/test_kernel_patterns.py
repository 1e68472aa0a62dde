"""Small graphs of every sort, written by hand: what the rules make of them, and what ONNX Runtime executes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kneepoint.deployment.kernel_check import kernel_differences
from tests.deployment.test_kernel_check import blocks_have_16_channels

RNG = np.random.default_rng(0)


class Graph:
    """A graph built call by call, with a free batch; every method takes and returns names of values."""

    def __init__(self, *shape: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", *shape))

    def constant(self, values: object, dtype: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def ones(self, *shape: int) -> str:
        return self.constant(np.ones(shape))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(self, x: str, inner: int, outer: int, size: int = 3, groups: int = 1, bias: bool = True) -> str:
        weight = self.constant(RNG.standard_normal((outer, inner // groups, size, size)))
        extra = (self.constant(RNG.standard_normal(outer)),) if bias else ()
        return self.add("Conv", x, weight, *extra, pads=[size // 2] * 4, group=groups)

    def pair(self, x: str) -> str:
        scale, zero = self.constant(0.05), self.constant(128, np.uint8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, zero), scale, zero)

    def integer_conv(self, x: str, inner: int, outer: int, groups: int = 1) -> str:
        stored = self.constant(RNG.integers(-127, 127, (outer, inner // groups, 3, 3)), np.int8)
        weight = self.add("DequantizeLinear", stored, self.constant(np.full(outer, 0.01)), axis=0)
        sums = self.constant(np.zeros(outer), np.int32)
        bias = self.add("DequantizeLinear", sums, self.constant(np.full(outer, 5e-4)), axis=0)
        return self.pair(self.add("Conv", x, weight, bias, pads=[1, 1, 1, 1], group=groups))

    def linear(self, x: str, inner: int = 8, outer: int = 8) -> str:
        return self.add("Add", self.add("MatMul", x, self.ones(inner, outer)), self.ones(outer))

    def norm(self, x: str, features: int = 8) -> str:
        return self.add("LayerNormalization", x, self.ones(features), self.ones(features), axis=-1)

    def transpose(self, x: str, *axes: int) -> str:
        return self.add("Transpose", x, perm=axes)

    def mean(self, x: str, keepdims: int = 1) -> str:
        return self.add("ReduceMean", x, self.constant([2, 3], np.int64), keepdims=keepdims)

    def reshape(self, x: str, *sizes: int) -> str:
        return self.add("Reshape", x, self.constant(sizes, np.int64))

    def model(self, *outputs: str) -> onnx.ModelProto:
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", [self.given], results, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


Recipe = Callable[[Graph, str], str]


def between(recipe: Recipe, inner: int = 32, outer: int = 32) -> Recipe:
    """``recipe`` between two convolutions."""
    return lambda g, x: g.conv(recipe(g, g.conv(x, inner, inner)), outer, 32)


def residual(g: Graph, x: str, channels: int = 32) -> str:
    y = g.conv(x, channels, channels)
    return g.add("Add", g.conv(y, channels, channels), y)


def gate(g: Graph, x: str, pool: Recipe) -> str:
    return g.add("Mul", x, g.add("Sigmoid", g.conv(pool(g, x), 32, 32, 1)))


def silu(g: Graph, x: str) -> str:
    return g.add("Mul", x, g.add("Sigmoid", x))


def swap(g: Graph, x: str) -> str:
    return g.transpose(x, 0, 2, 1)


PADS = [0, 0, 1, 1, 0, 0, 1, 1]
ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu", "Elu", "HardSwish", "Gelu", "Softplus")
IMAGES: Mapping[str, Recipe] = {
    **{kind: between(lambda g, x, kind=kind: g.add(kind, x)) for kind in ACTIVATIONS},  # type: ignore[misc]  # a default
    **{
        f"{kind} behind a sum": lambda g, x, kind=kind: g.conv(g.add(kind, residual(g, x)), 32, 32)  # type: ignore[misc]
        for kind in ACTIVATIONS
    },
    "silu": between(silu),
    "silu behind a sum": lambda g, x: g.conv(silu(g, residual(g, x)), 32, 32),
    "a sum with the input": lambda g, x: g.add("Relu", g.add("Add", g.conv(x, 32, 32), x)),
    "two convolutions of one value": lambda g, x: g.add("Add", g.conv(x, 32, 32), g.conv(x, 32, 32, 1)),
    "a difference": between(lambda g, x: g.add("Sub", g.conv(x, 32, 32), x)),
    "a product of equals": between(lambda g, x: g.add("Mul", g.conv(x, 32, 32), x)),
    "a gate behind a pool": between(lambda g, x: gate(g, x, lambda g, x: g.add("GlobalAveragePool", x))),
    "a gate behind a mean": between(lambda g, x: gate(g, x, Graph.mean)),
    "a factor of every channel": between(lambda g, x: g.add("Mul", x, g.ones(1, 32, 1, 1))),
    "a factor of every channel, behind a sum": lambda g, x: g.add("Mul", residual(g, x), g.ones(32, 1, 1)),
    "one factor": between(lambda g, x: g.add("Mul", x, g.constant(2.0))),
    "one summand": between(lambda g, x: g.add("Add", x, g.constant(2.0))),
    "batch norm": between(lambda g, x: g.add("BatchNormalization", g.add("Relu", x), *(g.ones(32) for _ in range(4)))),
    "pools": between(lambda g, x: g.add("MaxPool", g.add("AveragePool", x, kernel_shape=[3, 3]), kernel_shape=[2, 2])),
    "a pool of the input": lambda g, x: g.add("AveragePool", x, kernel_shape=[2, 2]),
    "an average over padding": between(
        lambda g, x: g.add("AveragePool", x, kernel_shape=[2, 2], ceil_mode=1, count_include_pad=1)
    ),
    "a global pool": lambda g, x: g.add("Flatten", g.add("GlobalAveragePool", g.conv(x, 32, 32))),
    "a mean": lambda g, x: g.mean(g.conv(x, 32, 32), keepdims=0),
    "a concatenation": between(lambda g, x: g.add("Concat", x, g.conv(x, 32, 16), axis=1), outer=48),
    "a concatenation of odd parts": between(lambda g, x: g.add("Concat", x, g.conv(x, 32, 20), axis=1), outer=52),
    "zeros around": between(lambda g, x: g.add("Pad", x, g.constant(PADS, np.int64))),
    "copies": between(
        lambda g, x: g.add(
            "Resize", x, "", g.constant([1, 1, 2, 2]), coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )
    ),
    **{
        f"interpolation, {place}": between(
            lambda g, x, place=place: g.add(  # type: ignore[misc]  # a default
                "Resize", x, "", g.constant([1, 1, 2, 2]), mode="linear", coordinate_transformation_mode=place
            )
        )
        for place in ("half_pixel", "align_corners", "pytorch_half_pixel")
    },
    "channels moved last": lambda g, x: g.norm(g.transpose(g.conv(x, 32, 32), 0, 2, 3, 1), 32),
    "channels last and back": lambda g, x: g.conv(
        g.transpose(g.norm(g.transpose(g.conv(x, 32, 32), 0, 2, 3, 1), 32), 0, 3, 1, 2), 32, 32
    ),
}
BYTES: Mapping[str, Recipe] = {
    "a chain": lambda g, x: g.integer_conv(g.pair(g.add("Relu", g.integer_conv(x, 32, 32))), 32, 32, 32),
    "a sum": lambda g, x: g.pair(g.add("Add", g.integer_conv(x, 32, 32), x)),
    "a sum and a convolution": lambda g, x: g.integer_conv(g.pair(g.add("Add", g.integer_conv(x, 32, 32), x)), 32, 32),
    "max pool": lambda g, x: g.pair(g.add("MaxPool", g.integer_conv(x, 32, 32), kernel_shape=[2, 2])),
    "average pool": lambda g, x: g.pair(g.add("AveragePool", g.integer_conv(x, 32, 32), kernel_shape=[2, 2])),
    "a mean": lambda g, x: g.mean(g.integer_conv(x, 32, 32)),
    "a mean without its axes": lambda g, x: g.mean(g.integer_conv(x, 32, 32), keepdims=0),
    "silu": lambda g, x: g.pair(silu(g, g.integer_conv(x, 32, 32))),
    "silu and a convolution": lambda g, x: g.integer_conv(g.pair(silu(g, g.integer_conv(x, 32, 32))), 32, 32),
    "hardswish and a convolution": lambda g, x: g.integer_conv(
        g.pair(g.add("HardSwish", g.integer_conv(x, 32, 32))), 32, 32
    ),
    "a global pool": lambda g, x: g.pair(g.add("GlobalAveragePool", g.integer_conv(x, 32, 32))),
    "a concatenation": lambda g, x: g.pair(g.add("Concat", g.integer_conv(x, 32, 32), x, axis=1)),
    "channels moved last": lambda g, x: g.norm(g.transpose(g.integer_conv(x, 32, 32), 0, 2, 3, 1), 32),
    "a reshape": lambda g, x: g.norm(swap(g, g.reshape(g.integer_conv(x, 32, 32), -1, 32, 64)), 32),
    "zeros around": lambda g, x: g.integer_conv(g.pair(g.add("Pad", x, g.constant(PADS, np.int64))), 32, 32),
}
TOKENS: Mapping[str, Recipe] = {
    "two reshapes": lambda g, x: g.add("Relu", g.reshape(g.reshape(x, 0, 2, 16), -1, 32)),
    "an axis more and less": lambda g, x: g.add(
        "Squeeze", g.add("Unsqueeze", x, g.constant([1], np.int64)), g.constant([1], np.int64)
    ),
    "a bias": lambda g, x: g.linear(x),
    "a bias and a gelu": lambda g, x: g.add("Gelu", g.linear(x)),
    "a bias and a silu": lambda g, x: silu(g, g.linear(x)),
    "a bias and a factor": lambda g, x: g.add("Mul", g.linear(x), g.constant(0.5)),
    "a factor": lambda g, x: g.add("Mul", g.add("MatMul", x, g.ones(8, 8)), g.constant(0.5)),
    "attention": lambda g, x: g.add("Softmax", g.add("MatMul", g.add("Mul", x, g.constant(0.5)), swap(g, x))),
    "a turned product": lambda g, x: g.add("MatMul", swap(g, x), x),
    "a turned linear layer": lambda g, x: g.linear(swap(g, x), 4),
    "a norm behind a sum": lambda g, x: g.norm(g.add("Add", g.linear(x), x)),
    "a norm behind a sum of a reshape": lambda g, x: g.norm(g.add("Add", g.reshape(x, -1, 4, 8), x)),
    "a norm behind a sum of a reshape that keeps samples": lambda g, x: g.norm(g.add("Add", g.reshape(x, 0, 4, 8), x)),
    "a norm and a branch": lambda g, x: g.add("Add", g.norm(y := g.add("Add", g.linear(x), x)), y),
    "a norm of a table's sum": lambda g, x: g.norm(g.add("Add", x, g.ones(1, 4, 8))),
    "gathered parts": lambda g, x: g.add("Add", *(g.add("Gather", x, g.constant(i, np.int64), axis=1) for i in (0, 1))),
    "all parts gathered": lambda g, x: g.add(
        "Concat", *(g.add("Gather", x, g.constant(i, np.int64), axis=1) for i in range(4)), axis=1
    ),
    "a mixer": lambda g, x: swap(g, g.linear(swap(g, g.norm(x)), 4, 4)),
}


def of_bytes(recipe: Recipe) -> Recipe:
    """The recipe behind a quantized value."""
    return lambda g, x: recipe(g, g.pair(x))


CASES: list[tuple[str, tuple[int, ...], Recipe]] = [(name, (32, 8, 8), recipe) for name, recipe in IMAGES.items()]
CASES += [(name, (4, 8), recipe) for name, recipe in TOKENS.items()]
CASES += [(f"{name} of bytes", (32, 8, 8), of_bytes(recipe)) for name, recipe in BYTES.items()]
SIZES = [
    (3, 8, 1), (3, 20, 1), (8, 8, 1), (20, 20, 1), (18, 32, 1), (17, 32, 1), (32, 18, 1), (24, 24, 24), (18, 18, 18),
    (32, 64, 2), (32, 64, 4), (32, 32, 32), (32, 64, 32), (40, 40, 2), (12, 12, 12),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _only_where_blocks_have_16_channels() -> None:
    if not blocks_have_16_channels():
        pytest.skip("this machine's convolutions have other blocks, or none")


@pytest.mark.parametrize(("shape", "recipe"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_pattern_runs_as_predicted(shape: tuple[int, ...], recipe: Recipe) -> None:
    graph = Graph(*shape)
    assert kernel_differences(graph.model(recipe(graph, "x"))) == {}


@pytest.mark.parametrize(("inner", "outer", "groups"), SIZES)
def test_channels_are_blocked_as_predicted(inner: int, outer: int, groups: int) -> None:
    graph = Graph(inner, 8, 8)
    convolved = graph.conv(graph.add("Relu", "x"), inner, outer, groups=groups)
    assert kernel_differences(graph.model(convolved)) == {}


@pytest.mark.parametrize("channels", [32, 33])
def test_a_residual_runs_as_predicted(channels: int) -> None:
    graph = Graph(channels, 8, 8)
    assert kernel_differences(graph.model(graph.add("Relu", residual(graph, "x", channels)))) == {}
