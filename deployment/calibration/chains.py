"""Chains of one small step: their times as a whole say what kernels take that are too short for the profiler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from kneepoint.deployment.calibration.graph_builder import GraphBuilder, Precision, Value

_LINKS = (6, 25)
_IMAGE_ELEMENTS, _TOKEN_ELEMENTS = (64, 100_000), (64, 60_000)
_MOST_MACS = 3_000_000
"""Of a link: longer kernels are long enough for the profiler."""

Link = Callable[[GraphBuilder, Value], Value]


def draw_chain(graph: GraphBuilder, random: np.random.Generator, batch: int) -> Value:
    """A value behind some equal steps on an image, or on tokens."""
    on_images = bool(random.random() < 0.6)
    x = _image(graph, random, batch) if on_images else _tokens(graph, random, batch)
    links = _image_links(random, x) if on_images else _token_links(random)
    link = links[str(random.choice(sorted(links)))]
    for _ in range(int(random.integers(*_LINKS))):
        x = link(graph, x)
    return x


def _image(graph: GraphBuilder, random: np.random.Generator, batch: int) -> Value:
    elements = _log_integer(random, *_IMAGE_ELEMENTS)
    size = max(1, min(56, round(math.sqrt(elements / batch / _log_integer(random, 4, 512)))))
    channels = max(4, round(elements / batch / size**2))
    if random.random() < 0.8:
        channels = max(8, channels // 8 * 8)
    return graph.input(batch, min(768, channels), size, size)


def _tokens(graph: GraphBuilder, random: np.random.Generator, batch: int) -> Value:
    elements = _log_integer(random, *_TOKEN_ELEMENTS)
    width = 8 * max(1, _log_integer(random, 16, 768) // 8)
    return graph.input(batch, max(1, elements // batch // width), width)


# --- links ---------------------------------------------------------------------------------------------------------


def _image_links(random: np.random.Generator, x: Value) -> Mapping[str, Link]:
    precision: Precision = "w8a8" if random.random() < 0.5 else "fp32"
    kernel = min(int(random.choice([3, 5])), (x.shape[-1] + 1) // 2 * 2 - 1)  # no window reaches beyond the image
    activation = str(random.choice(["Sigmoid", "HardSigmoid", "LeakyRelu", "Relu", "Tanh"]))
    return {
        "activation": _activation(activation, precision),
        "average": lambda graph, x: graph.pool("AveragePool", x, 3, 1),
        "conv": _convolution(1, "fp32"),
        "conv of bytes": _convolution(1, "w8a8"),
        "depthwise": _depthwise(kernel, precision),
        "excitation": _excitation,
        "hardswish": lambda graph, x: graph.hardswish(x),
        "maximum": lambda graph, x: graph.pool("MaxPool", _read(graph, x, precision), 3, 1),
        "residual": _residual(precision),
        "silu": lambda graph, x: graph.silu(_read(graph, x, precision)),
        "spatial": _convolution(kernel, precision),
        "turned norm": _turned_norm,
    }


def _token_links(random: np.random.Generator) -> Mapping[str, Link]:
    precisions: tuple[Precision, ...] = ("fp32", "w8a8", "dynamic", "packed4", "packed8")
    precision = precisions[int(random.integers(len(precisions)))]
    heads = int(random.choice([1, 2, 4, 8]))
    function = str(random.choice(["Gelu", "Tanh", "Erf", "Sigmoid", "Relu"]))
    return {
        "attention": _attention(heads),
        "function": lambda graph, x: graph.unary(function, _read(graph, x, "w8a8" if heads == 1 else "fp32")),
        "linear": _linear(precision),
        "norm": lambda graph, x: graph.layer_norm(x),
        "parts": _parts,
        "scale": lambda graph, x: graph.binary("Mul", x, graph.channel_vector(x)),
        "softmax": lambda graph, x: graph.unary("Softmax", x, axis=-1),
        "sum": lambda graph, x: graph.binary("Add", x, graph.unary("Neg", x)),
        "turned sum": _turned_sum,
    }


def _read(graph: GraphBuilder, x: Value, precision: Precision) -> Value:
    return graph.quantized(x) if precision == "w8a8" else x


def _activation(kind: str, precision: Precision) -> Link:
    def link(graph: GraphBuilder, x: Value) -> Value:
        return graph.binary("Mul", x, graph.unary(kind, _read(graph, x, precision)))

    return link


def _convolution(kernel: int, precision: Precision) -> Link:
    def link(graph: GraphBuilder, x: Value) -> Value:
        channels = min(x.channels, max(4, _MOST_MACS * x.channels // (math.prod(x.shape) * kernel**2)))
        inner = graph.conv(x, channels, kernel, precision=precision)
        return inner if channels == x.channels else graph.conv(inner, x.channels, kernel, precision=precision)

    return link


def _depthwise(kernel: int, precision: Precision) -> Link:
    return lambda graph, x: graph.conv(x, x.channels, kernel, groups=x.channels, precision=precision)


def _excitation(graph: GraphBuilder, x: Value) -> Value:
    squeezed = graph.conv(graph.reduce_mean(x, (2, 3), keep=True), max(4, x.channels // 8))
    gate = graph.unary("HardSigmoid", graph.conv(graph.unary("Relu", squeezed), x.channels))
    return graph.binary("Mul", x, gate)


def _residual(precision: Precision) -> Link:
    def link(graph: GraphBuilder, x: Value) -> Value:
        return graph.unary("Relu", graph.binary("Add", _read(graph, x, precision), graph.unary("Neg", x)))

    return link


def _turned_norm(graph: GraphBuilder, x: Value) -> Value:
    return graph.transpose(graph.layer_norm(graph.transpose(x, 0, 2, 3, 1)), 0, 3, 1, 2)


def _linear(precision: Precision) -> Link:
    def link(graph: GraphBuilder, x: Value) -> Value:
        features = min(x.shape[-1], max(8, _MOST_MACS // math.prod(x.shape)))
        inner = graph.linear(x, features, precision)
        return inner if features == x.shape[-1] else graph.linear(inner, x.shape[-1], precision)

    return link


def _attention(heads: int) -> Link:
    """Products, a softmax and turned axes, without the linear layers around them."""

    def link(graph: GraphBuilder, x: Value) -> Value:
        batch, tokens, width = x.shape
        shape = (batch, tokens, heads, width // heads)
        query = graph.transpose(graph.reshape(x, *shape), 0, 2, 1, 3)
        key = graph.transpose(graph.reshape(graph.unary("Neg", x), *shape), 0, 2, 3, 1)
        weights = graph.unary("Softmax", graph.matmul(query, key), axis=-1)
        attended = graph.transpose(graph.matmul(weights, query), 0, 2, 1, 3)
        return graph.reshape(attended, batch, tokens, width)

    return link


def _parts(graph: GraphBuilder, x: Value) -> Value:
    half = x.shape[-1] // 2
    parts = [graph.slice(x, 2, half, x.shape[-1]), graph.slice(x, 2, 0, half)]
    return graph.concat(parts, axis=2)


def _turned_sum(graph: GraphBuilder, x: Value) -> Value:
    turned = graph.unary("Neg", graph.transpose(x, 0, 2, 1))
    return graph.binary("Add", graph.transpose(turned, 0, 2, 1), x)


def _log_integer(random: np.random.Generator, low: int, high: int) -> int:
    return round(math.exp(random.uniform(math.log(low), math.log(high))))
