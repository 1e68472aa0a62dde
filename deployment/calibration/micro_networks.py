"""Random small networks whose kernels are drawn as a search would draw them.

A kernel is only as fast as its neighbours let it be: what they wrote is in a cache or is not, and weights are cold
where the network is large. So kernels are never timed alone: they are drawn in blocks of the kinds that networks are
made of, with widths as pruning leaves them, in all formats, and timed where they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from kneepoint.deployment.calibration.chains import draw_chain
from kneepoint.deployment.calibration.graph_builder import GraphBuilder, Precision, Value

BATCHES, BATCH_SHARES = (1, 2, 4, 8, 16, 32), (0.55, 0.1, 0.1, 0.15, 0.05, 0.05)
_COMMON_SIZES = (4, 7, 8, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112)
_FUSED = ("Relu", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "LeakyRelu")
_MOST_ELEMENTS = 2_000_000
_HEAVY_SHARE = 0.05


@dataclass(frozen=True)
class MicroNetwork:
    """One of the networks that are timed.

    Attributes:
        model: It, as ONNX, with every size fixed.
        batch: Samples of one inference.
        style: ``convolutional``, ``transformer``, ``head`` or ``chain``.
    """

    model: ModelProto
    batch: int
    style: str

    def feeds(self, random: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """Inputs for one inference; none is negative, because some are numbers of rows to look up."""
        shapes = {
            value.name: [self.batch, *(size.dim_value for size in value.type.tensor_type.shape.dim[1:])]
            for value in self.model.graph.input
        }
        return {name: np.abs(random.standard_normal(shape, np.float32)) for name, shape in shapes.items()}


def draw(random: np.random.Generator) -> MicroNetwork:
    """The next network of ``random``."""
    style = str(random.choice(["convolutional", "transformer", "head", "chain"], p=[0.55, 0.26, 0.05, 0.14]))
    batch = int(random.choice(BATCHES, p=BATCH_SHARES))
    if style == "chain":
        graph = GraphBuilder(random)
        return MicroNetwork(graph.model([draw_chain(graph, random, batch)]), batch, style)
    artist = _Artist(GraphBuilder(random), random, batch, budget=10 ** random.uniform(4.5, 8.3))
    output = {"convolutional": artist.convolutional, "transformer": artist.transformer, "head": artist.head}[style]()
    return MicroNetwork(artist.graph.model([output]), batch, style)


@dataclass
class _Artist:
    """Draws blocks until the budget is spent.

    Attributes:
        graph: Takes the nodes.
        random: Decides.
        batch: Samples.
        budget: Multiply-accumulates to spend, about.
    """

    graph: GraphBuilder
    random: np.random.Generator
    batch: int
    budget: float
    precisions: tuple[Precision, ...] = ("fp32",)

    # --- whole networks --------------------------------------------------------------------------------------------

    def convolutional(self) -> Value:
        """Blocks of convolutions on an image, mostly with a head."""
        mixes: list[tuple[Precision, ...]] = [("fp32",), ("w8a8",), ("fp32", "w8a8")]
        self.precisions = mixes[self.random.choice(3, p=[0.4, 0.42, 0.18])]
        if self.random.random() < _HEAVY_SHARE:
            return self._heavy()
        x = self._stem() if self.random.random() < 0.4 else self._image()
        activation = self._activation()
        for _ in range(int(self.random.integers(2, 9))):
            if self.budget < 0:
                break
            block = self._pick(self._conv_blocks(activation))
            x = block(x)
        if self.random.random() < 0.5:
            return self._classifier(x)
        return x

    def transformer(self) -> Value:
        """Blocks of attention and feed-forward layers on tokens."""
        mixes: list[tuple[Precision, ...]] = [("fp32",), ("w8a8",), ("dynamic",), ("packed4",), ("packed8",)]
        mixes += [("fp32", "w8a8"), ("fp32", "dynamic")]
        self.precisions = mixes[self.random.choice(7, p=[0.25, 0.22, 0.22, 0.09, 0.06, 0.08, 0.08])]
        heads = int(self.random.integers(1, 13))
        width = heads * int(self.random.choice([16, 24, 32, 48, 64, 80]))
        tokens = int(self.random.choice([self._log_integer(1, 256), *(16, 36, 37, 49, 64, 65, 128, 197)]))
        while tokens * width * self.batch > _MOST_ELEMENTS / 8:
            tokens = max(1, tokens // 2)
            self.batch = max(1, self.batch // 2)
        x = self._tokens(tokens, width)
        for _ in range(int(self.random.integers(1, 4))):
            if self.random.random() < 0.6:
                x = self._attention(x, heads)
            x = self._feed_forward(x)
            if self.budget < 0:
                break
        x = self.graph.layer_norm(x)
        return self._tail(x)

    def head(self) -> Value:
        """Linear layers on vectors."""
        mixes: list[tuple[Precision, ...]] = [("fp32",), ("w8a8",), ("dynamic",), ("packed4",), ("packed8",)]
        self.precisions = mixes[self.random.choice(5)]
        x = self.graph.input(self.batch, self._log_integer(8, 2048))
        for _ in range(int(self.random.integers(1, 5))):
            features = self._log_integer(4, 2048)
            x = self.graph.linear(x, features, self._precision())
            if self.random.random() < 0.7:
                x = self.graph.unary("Relu", x)
        return x

    def _heavy(self) -> Value:
        """The last stage of a large network: a small image, and more weights than caches hold."""
        size, width = int(self.random.integers(2, 9)), 32 * int(self.random.integers(8, 24))
        x = self.graph.input(1, width, size, size)
        for _ in range(int(self.random.integers(3, 8))):
            x = self._residual(x, "Relu") if self.random.random() < 0.6 else self._bottleneck(x, "Relu")
        return self._classifier(x)

    # --- blocks of convolutions ------------------------------------------------------------------------------------

    def _conv_blocks(self, activation: str) -> Mapping[Callable[[Value], Value], float]:
        return {
            lambda x: self._plain(x, activation): 0.16,
            lambda x: self._residual(x, activation): 0.2,
            lambda x: self._bottleneck(x, activation): 0.16,
            lambda x: self._inverted_residual(x, activation): 0.25,
            lambda x: self._grouped(x, activation): 0.03,
            self._next_block: 0.08,
            self._dense: 0.03,
            self._pooled: 0.06,
            self._padded: 0.03,
        }

    def _stem(self) -> Value:
        channels, size = int(self.random.choice([3, 1], p=[0.7, 0.3])), self._size(16, 192)
        x = self.graph.input(self._fitting_batch(32 * size * size // 4), channels, size, size)
        kernel = int(self.random.choice([3, 7, 4, 5, 16], p=[0.6, 0.2, 0.08, 0.06, 0.06]))
        stride = {4: 4, 16: 16}.get(kernel, int(self.random.choice([1, 2])) if size < 65 else 2)
        if kernel in (4, 16):
            size -= size % kernel
        x = self._conv(x, self._width(8, 96), kernel, stride)
        x = self._activate(x, self._activation())
        if kernel == 7 and self.random.random() < 0.7:
            x = self.graph.pool("MaxPool", x, 3, 2)
        return x

    def _image(self) -> Value:
        size = self._size(2, 64)
        channels = self._width(8, 512 if size < 20 else 128)
        return self.graph.input(self._fitting_batch(channels * size * size), channels, size, size)

    def _plain(self, x: Value, activation: str) -> Value:
        kernel = int(self.random.choice([1, 3, 5], p=[0.4, 0.5, 0.1]))
        return self._activate(self._conv(x, self._like(x), kernel, self._stride(x)), activation)

    def _residual(self, x: Value, activation: str) -> Value:
        stride, width = (1, x.channels) if self.random.random() < 0.7 else (self._stride(x, often=0.8), self._like(x))
        y = self._activate(self._conv(x, self._pruned(width), 3, stride), activation)
        y = self._conv(y, width, 3)
        return self._added(y, x if (stride, width) == (1, x.channels) else self._conv(x, width, 1, stride), activation)

    def _bottleneck(self, x: Value, activation: str) -> Value:
        stride, width = (1, x.channels) if self.random.random() < 0.7 else (self._stride(x, often=0.8), self._like(x))
        inner = self._pruned(max(4, width // int(self.random.choice([2, 4]))))
        y = self._activate(self._conv(x, inner, 1), activation)
        y = self._activate(self._conv(y, self._pruned(inner), 3, stride), activation)
        y = self._conv(y, width, 1)
        return self._added(y, x if (stride, width) == (1, x.channels) else self._conv(x, width, 1, stride), activation)

    def _inverted_residual(self, x: Value, activation: str) -> Value:
        width = self._like(x)
        stride = self._stride(x)
        wide = self._pruned(min(1152, x.channels * int(self.random.choice([1, 2, 3, 4, 6]))))
        y = self._activate(self._conv(x, wide, 1), activation)
        kernel = int(self.random.choice([3, 5, 7], p=[0.6, 0.33, 0.07]))
        y = self._activate(self._conv(y, wide, kernel, stride, groups=wide), activation)
        if self.random.random() < 0.5:
            y = self._excited(y, activation)
        y = self._conv(y, width, 1)
        return self._added(y, x, "") if (stride, width) == (1, x.channels) else y

    def _excited(self, x: Value, activation: str) -> Value:
        """Squeeze-and-excitation."""
        squeezed = max(4, x.channels // int(self.random.choice([4, 8, 16, 24])))
        y = self.graph.reduce_mean(x, (2, 3), keep=True)
        y = self._activate(self._conv(y, squeezed, 1), str(self.random.choice(["Relu", activation])))
        y = self._activate(self._conv(y, x.channels, 1), str(self.random.choice(["HardSigmoid", "Sigmoid"])))
        return self.graph.binary("Mul", x, y)

    def _grouped(self, x: Value, activation: str) -> Value:
        groups = [count for count in (2, 4, 8, 16, 32) if x.channels % count == 0 and x.channels > count]
        if not groups:
            return self._plain(x, activation)
        count = int(self.random.choice(groups))
        return self._activate(self._conv(x, x.channels, 3, groups=count), activation)

    def _next_block(self, x: Value) -> Value:
        """The block of ConvNeXt: depthwise, then a feed-forward network with channels last."""
        graph = self.graph
        y = self._conv(x, x.channels, 7, groups=x.channels)
        y = graph.layer_norm(graph.transpose(y, 0, 2, 3, 1))
        wide = self._pruned(4 * x.channels)
        precision: Precision = "dynamic" if "w8a8" in self.precisions and self.random.random() < 0.4 else "fp32"
        precision = self._precision() if precision == "fp32" else precision
        y = graph.unary("Gelu", self._linear(y, wide, precision))
        y = self._linear(y, x.channels, precision)
        y = graph.binary("Mul", y, graph.channel_vector(y))
        return graph.binary("Add", x, graph.transpose(y, 0, 3, 1, 2))

    def _dense(self, x: Value) -> Value:
        y = self._activate(self._conv(x, self._width(8, 64), 3), "Relu")
        return self.graph.concat([x, y], axis=1)

    def _pooled(self, x: Value) -> Value:
        if min(x.shape[2:]) < 4:
            return x
        kind = str(self.random.choice(["MaxPool", "AveragePool"]))
        return self.graph.pool(kind, x, 3, stride=(2, 2, 1)[int(self.random.integers(3))])

    def _padded(self, x: Value) -> Value:
        return self.graph.pad(x, 1, 1)

    def _classifier(self, x: Value) -> Value:
        keep = bool(self.random.random() < 0.3)
        if self.random.random() < 0.2:
            x = self.graph.reshape(self.graph.whole_average(x), *x.shape[:2])
            return self._linear(x, self._log_integer(2, 1000), self._precision())
        x = self.graph.reduce_mean(x, (2, 3), keep=keep)
        if keep:
            x = self.graph.reshape(x, *x.shape[:2])
        return self._linear(x, self._log_integer(2, 1000), self._precision())

    # --- blocks of transformers ------------------------------------------------------------------------------------

    def _tokens(self, tokens: int, width: int) -> Value:
        start = self.random.random()
        if start < 0.25:
            x = self._embedded(width, self.graph.input(self.batch, tokens))
            return self.graph.layer_norm(x)
        if start < 0.5:
            x = self.graph.input(self.batch, tokens, self._log_integer(8, 256))
            return self._linear(x, width, self._precision())
        return self.graph.input(self.batch, tokens, width)

    def _embedded(self, width: int, tokens: Value) -> Value:
        """One table, or the sum of two, of what the layers compute with."""
        precision: Precision = "w8a8" if {"w8a8", "dynamic"} & {*self.precisions} else "fp32"
        x = self.graph.embedding(self._log_integer(16, 32768), width, tokens, precision)
        if self.random.random() < 0.5:
            return x
        return self.graph.binary("Add", x, self.graph.embedding(self._log_integer(16, 512), width, tokens, precision))

    def _attention(self, x: Value, heads: int) -> Value:
        graph, (batch, tokens, width) = self.graph, x.shape
        y = graph.layer_norm(x) if self.random.random() < 0.7 else x
        shape = (batch, tokens, heads, width // heads)
        parts = [graph.reshape(self._linear(y, width), *shape) for _ in range(3)]
        query, value = (graph.transpose(part, 0, 2, 1, 3) for part in (parts[0], parts[2]))
        key = graph.transpose(parts[1], 0, 2, 3, 1)
        factor = shape[-1] ** -0.25
        if self.random.random() < 0.5:
            query, key = graph.scaled(query, factor), graph.scaled(key, factor)
        weights = graph.unary("Softmax", graph.matmul(query, key), axis=-1)
        self.budget -= 2 * batch * tokens * tokens * width
        attended = graph.reshape(graph.transpose(graph.matmul(weights, value), 0, 2, 1, 3), batch, tokens, width)
        return graph.binary("Add", x, self._linear(attended, width))

    def _feed_forward(self, x: Value) -> Value:
        y = self.graph.layer_norm(x) if self.random.random() < 0.7 else x
        kind = str(self.random.choice(["Gelu", "Relu", "Tanh"], p=[0.75, 0.2, 0.05]))
        wide = self._pruned(int(x.shape[-1] * self.random.choice([2, 3, 4])))
        y = self._linear(self.graph.unary(kind, self._linear(y, wide)), x.shape[-1])
        return self.graph.binary("Add", x, y)

    def _tail(self, x: Value) -> Value:
        kind = self.random.random()
        if kind < 0.4:
            pooled = self.graph.reduce_mean(x, (1,), keep=False)
            return self._linear(pooled, self._log_integer(2, 1000), self._precision())
        if kind < 0.7:
            if self.random.random() < 0.5:
                return self._linear(self.graph.pick(x, 1, 0), self._log_integer(2, 1000))
            first = self.graph.slice(x, 1, 0, 1)
            return self._linear(self.graph.reshape(first, x.shape[0], x.shape[2]), self._log_integer(2, 1000))
        return x

    # --- layers ----------------------------------------------------------------------------------------------------

    def _conv(self, x: Value, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> Value:
        result = self.graph.conv(x, channels, kernel, stride, groups, self._precision())
        self.budget -= math.prod(result.shape) * kernel * kernel * x.channels // groups
        return result

    def _linear(self, x: Value, features: int, precision: Precision | None = None) -> Value:
        self.budget -= math.prod(x.shape) * features
        return self.graph.linear(x, features, precision or self._precision())

    def _activate(self, x: Value, kind: str) -> Value:
        """An activation; among bytes, what is no clamp reads a quantized value and writes floats."""
        graph, integer = self.graph, "w8a8" in self.precisions and x.name.startswith("Conv")
        if kind == "Relu":
            x = graph.unary("Relu", x)
        elif kind == "Clip":
            bounds = [graph.constant(np.float32(bound)) for bound in (0, 6)]
            x = graph.node("Clip", [x, *bounds], x.shape)
        elif kind:
            x = graph.quantized(x) if integer else x
            return {"hardswish": graph.hardswish, "silu": graph.silu}.get(kind, lambda y: graph.unary(kind, y))(x)
        return graph.quantized(x) if integer else x

    def _added(self, x: Value, y: Value, activation: str) -> Value:
        if "w8a8" in self.precisions:
            x, y = self.graph.quantized(x), self.graph.quantized(y)
        result = self._activate(self.graph.binary("Add", x, y), activation)
        return self.graph.quantized(result) if "w8a8" in self.precisions else result

    # --- sizes -----------------------------------------------------------------------------------------------------

    def _precision(self) -> Precision:
        return self.precisions[int(self.random.integers(len(self.precisions)))]

    def _activation(self) -> str:
        kinds = ["Relu", "Clip", "hardswish", "silu", "HardSigmoid", "Sigmoid", "LeakyRelu"]
        return str(self.random.choice(kinds, p=[0.4, 0.1, 0.2, 0.2, 0.04, 0.03, 0.03]))

    def _fitting_batch(self, elements: int) -> int:
        while self.batch > 1 and self.batch * elements > _MOST_ELEMENTS:
            self.batch //= 2
        return self.batch

    def _stride(self, x: Value, often: float = 0.25) -> int:
        return 2 if min(x.shape[2:]) > 3 and self.random.random() < often else 1

    def _like(self, x: Value) -> int:
        """A width for what follows ``x``: often the same."""
        if self.random.random() < 0.4:
            return x.channels
        return self._width(max(4, x.channels // 2), min(768, 3 * x.channels))

    def _width(self, low: int, high: int) -> int:
        return self._rounded(self._log_integer(low, high))

    def _pruned(self, width: int) -> int:
        """``width`` with some channels gone, often."""
        if self.random.random() < 0.55:
            return width
        return min(width, self._rounded(max(4, int(width * self.random.uniform(0.2, 1)))))

    def _rounded(self, width: int) -> int:
        multiple = int(self.random.choice([16, 8, 1], p=[0.4, 0.4, 0.2]))
        return max(multiple, 4, width // multiple * multiple)

    def _size(self, low: int, high: int) -> int:
        if self.random.random() < 0.6:
            return int(self.random.choice([size for size in _COMMON_SIZES if low <= size <= high]))
        return self._log_integer(low, high)

    def _log_integer(self, low: int, high: int) -> int:
        return round(math.exp(self.random.uniform(math.log(low), math.log(high))))

    def _pick(self, choices: Mapping[Callable[[Value], Value], float]) -> Callable[[Value], Value]:
        blocks = list(choices)
        return blocks[int(self.random.choice(len(blocks), p=list(choices.values())))]
