"""Builds operator tables layer by layer: what a framework's modules are to weights, without any weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from kneepoint.hardware_models.operators import Bias, Operator, OperatorTable, Tensor, Weight

Shape = tuple[int, ...]
Padding = int | tuple[int, ...] | Literal["same"]


class NetworkBuilder:
    """Appends operators to a table; every method takes and returns names of activations.

    Attributes:
        batch: Samples of one inference.
        norms: Whether batch normalization stays an operator of its own, as in frameworks that run a network as it was
            trained; otherwise the convolution before it has absorbed it.
    """

    def __init__(self, batch: int = 1, *, norms: bool = False) -> None:
        self.batch = batch
        self.norms = norms
        self._operators: list[Operator] = []
        self._tensors: dict[str, Tensor] = {}
        self._inputs: list[str] = []
        self._parameters = 0
        self._named: set[str] = set()

    def shape(self, x: str) -> Shape:
        """Of an activation, batch first."""
        return self._tensors[x].shape

    def channels(self, x: str) -> int:
        """The second size of an activation."""
        return self.shape(x)[1]

    def input(self, *shape: int) -> str:
        """An input of the network; the batch is put in front of ``shape``."""
        name = f"input{len(self._inputs)}"
        self._tensors[name] = Tensor(name, (self.batch, *shape))
        self._inputs.append(name)
        return name

    def table(self, *outputs: str) -> OperatorTable:
        """What was built."""
        return OperatorTable(
            tuple(self._operators), self._tensors, tuple(self._inputs), outputs, parameters=self._parameters
        )

    # --- layers with weights ----------------------------------------------------------------------------------------

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int | Sequence[int] = 1,
        stride: int | Sequence[int] = 1,
        *,
        padding: Padding = "same",
        groups: int = 1,
        dilation: int = 1,
        activation: str = "",
        norm: bool = True,
        bias: bool = True,
        name: str = "",
    ) -> str:
        """A convolution over all axes behind the channels, its norm and its activation.

        Args:
            x: (batch, channels, *sizes).
            channels: Of the output.
            kernel: Of every axis, or of each.
            stride: Of every axis, or of each.
            padding: On either side of every axis, or of each; ``same`` makes the output as large as the input over the
                stride, rounded up.
            groups: Of channels; as many as ``x`` has make it depthwise.
            dilation: Of the kernel.
            activation: Behind it; empty for none.
            norm: Whether batch normalization follows.
            bias: Whether it has one where no norm follows; what absorbs a norm always has.
            name: Of its weight; convolutions of one name share it.
        """
        inputs, *sizes = self.shape(x)[1:]
        kernels, strides = _each(kernel, len(sizes)), _each(stride, len(sizes))
        out = [_size(*entry, dilation) for entry in zip(sizes, kernels, strides, _pads(padding, sizes), strict=True)]
        weight = Weight((channels, inputs // groups, *kernels), channels=channels, name=name)
        kind = "conv" if groups == 1 else "depthwise_conv" if groups == inputs else "grouped_conv"
        absorbs = norm and not self.norms
        y = self._layer(
            kind, x, (channels, *out), weight, bias=absorbs or (bias and not norm), kernel=kernels, stride=strides[0]
        )
        if norm and self.norms:
            y = self.batch_norm(y)
        return self.activation(y, activation) if activation else y

    def conv_transpose(
        self, x: str, channels: int, kernel: int, stride: int, *, activation: str = "", norm: bool = False
    ) -> str:
        """A transposed convolution whose output is ``stride`` times as large as its input, its norm and activation."""
        inputs, *sizes = self.shape(x)[1:]
        kernels = _each(kernel, len(sizes))
        weight = Weight((inputs, channels, *kernels), channels=channels)
        macs = self.batch * math.prod(sizes) * weight.elements
        out = [size * stride for size in sizes]
        y = self._layer(
            "conv_transpose", x, (channels, *out), weight, bias=not (norm and self.norms), kernel=kernels,
            stride=stride, macs=macs,
        )  # fmt: skip
        if norm and self.norms:
            y = self.batch_norm(y)
        return self.activation(y, activation) if activation else y

    def linear(
        self, x: str, features: int, *, activation: str = "", norm: bool = False, bias: bool = True, name: str = ""
    ) -> str:
        """A linear layer over the last axis of ``x``, its norm and activation; those of a ``name`` share a weight."""
        *rest, inputs = self.shape(x)[1:]
        weight = Weight((features, inputs), channels=features, name=name)
        y = self._layer("linear", x, (*rest, features), weight, bias=bias)
        if norm and self.norms:
            y = self.batch_norm(y)
        return self.activation(y, activation) if activation else y

    def embedding(self, tokens: str, rows: int, width: int, *, name: str = "") -> str:
        """Rows of a table, one for every token: (batch, tokens) to (batch, tokens, width)."""
        weight = Weight((rows, width), channels=rows, name=name)
        return self._append("embedding", (tokens,), (*self.shape(tokens)[1:], width), weight=weight)

    def batch_norm(self, x: str) -> str:
        """Scales and shifts every channel."""
        self._parameters += 2 * self.channels(x)
        return self._append("batch_norm", (x,), self.shape(x)[1:])

    def layer_norm(self, x: str) -> str:
        """Normalizes along the last axis."""
        *_, width = self.shape(x)
        self._parameters += 2 * width
        return self._append("layer_norm", (x,), self.shape(x)[1:], axes=(len(self.shape(x)) - 1,))

    def instance_norm(self, x: str) -> str:
        """Normalizes every channel of every sample on its own, then scales and shifts it."""
        self._parameters += 2 * self.channels(x)
        return self._append("group_norm", (x,), self.shape(x)[1:])

    def local_response_norm(self, x: str) -> str:
        """Divides every element by what its neighbours in other channels amount to; has no weights."""
        return self._append("layer_norm", (x,), self.shape(x)[1:], function="LRN", axes=(1,))

    # --- everything else --------------------------------------------------------------------------------------------

    def activation(self, x: str, function: str) -> str:
        """An elementwise function of one tensor, by its name in the operator table (``relu``, ``clip``, ...)."""
        self._parameters += self.channels(x) if function == "prelu" else 0
        return self._append("activation", (x,), self.shape(x)[1:], function=function)

    def add(self, x: str, y: str, *, activation: str = "") -> str:
        """The sum of two tensors, the smaller one broadcast, and an activation."""
        return self._binary("add", x, y, activation)

    def mul(self, x: str, y: str, *, activation: str = "") -> str:
        """The product of two tensors, the smaller one broadcast, and an activation."""
        return self._binary("mul", x, y, activation)

    def scale(self, x: str) -> str:
        """The product with one constant number."""
        return self._append("mul", (x,), self.shape(x)[1:], function="scale", operand=())

    def add_constant(self, x: str, *shape: int, parameters: int | None = None) -> str:
        """The sum with a constant of ``shape``, batch included, which may be a part of a table of ``parameters``."""
        self._parameters += math.prod(shape) if parameters is None else parameters
        return self._append("add", (x,), self.shape(x)[1:], operand=shape)

    def mul_constant(self, x: str, *shape: int) -> str:
        """The product with a constant of ``shape``, batch included."""
        self._parameters += math.prod(shape)
        return self._append("mul", (x,), self.shape(x)[1:], operand=shape)

    def matmul(self, x: str, y: str) -> str:
        """(batch, ..., n, k) times (batch, ..., k, m)."""
        *rest, rows, inner = self.shape(x)[1:]
        columns = self.shape(y)[-1]
        shape = (*rest, rows, columns)
        return self._append("matmul", (x, y), shape, macs=self.batch * math.prod(shape) * inner)

    def softmax(self, x: str, axis: int = -1) -> str:
        """Along one axis."""
        return self._append("softmax", (x,), self.shape(x)[1:], axes=(axis % len(self.shape(x)),))

    def pool(
        self,
        x: str,
        kind: Literal["max", "avg"],
        kernel: int,
        stride: int,
        padding: Padding = 0,
        *,
        rounds_up: bool = False,
    ) -> str:
        """The largest or the mean value of windows; ``rounds_up``: of those that begin inside, but end behind it."""
        channels, *sizes = self.shape(x)[1:]
        kernels, strides = _each(kernel, len(sizes)), _each(stride, len(sizes))
        sizes = [size + (stride - 1 if rounds_up else 0) for size in sizes]
        out = [_size(*entry) for entry in zip(sizes, kernels, strides, _pads(padding, sizes), strict=True)]
        return self._append(f"{kind}_pool", (x,), (channels, *out), kernel=kernels, stride=stride)

    def global_avg_pool(self, x: str) -> str:
        """The mean of every channel: (batch, channels, *sizes) to (batch, channels, 1, ...)."""
        channels, *sizes = self.shape(x)[1:]
        return self._append("global_avg_pool", (x,), (channels, *[1] * len(sizes)))

    def reduce(self, x: str, axes: Sequence[int], function: str = "ReduceMean") -> str:
        """Along some axes, which are dropped; ``function`` by its ONNX name."""
        shape = [size for axis, size in enumerate(self.shape(x)) if axis not in axes]
        return self._append("reduce", (x,), tuple(shape[1:]), function=function, axes=tuple(axes))

    def concat(self, parts: Sequence[str], axis: int = 1, *, constants: int = 0) -> str:
        """Puts tensors one behind the other, and ``constants`` learned ones of a size of 1 in front of them."""
        shape = list(self.shape(parts[0]))
        shape[axis] = 1
        self._parameters += constants * math.prod(shape[1:])
        shape[axis] = constants + sum(self.shape(part)[axis] for part in parts)
        return self._append("concat", tuple(parts), tuple(shape[1:]), axes=(axis % len(shape),))

    def slice(self, x: str, size: int, axis: int = 1) -> str:
        """A part of ``size`` along an axis."""
        shape = list(self.shape(x))
        shape[axis] = size
        return self._append("copy", (x,), tuple(shape[1:]), function="Slice")

    def halves(self, x: str) -> tuple[str, str]:
        """The first and the second half of the channels."""
        channels, *sizes = self.shape(x)[1:]
        shape = (channels // 2, *sizes)
        first, second = (self._append("copy", (x,), shape, function="Split", axes=(1,)) for _ in range(2))
        return first, second

    def resize(self, x: str, factor: float, function: str = "nearest") -> str:
        """Every axis behind the channels ``factor`` times as large; ``function`` as the operator table names modes."""
        channels, *sizes = self.shape(x)[1:]
        return self._append("resize", (x,), (channels, *(int(size * factor) for size in sizes)), function=function)

    def copy(self, x: str, shape: Shape, function: str) -> str:
        """Moves elements to other places, as the ONNX operator ``function`` does; ``shape`` without the batch."""
        return self._append("copy", (x,), shape, function=function)

    def transpose(self, x: str, *axes: int) -> str:
        """Axis ``i`` of the output is axis ``axes[i]`` of ``x``; the batch, axis 0, stays where it is."""
        shape = tuple(self.shape(x)[axis] for axis in axes)
        return self._append("transpose", (x,), shape[1:], axes=axes)

    def view(self, x: str, *shape: int) -> str:
        """Another shape, without the batch; moves no byte."""
        return self._append("view", (x,), shape, axes=(0,))

    def flatten(self, x: str) -> str:
        """(batch, everything else)."""
        return self.view(x, math.prod(self.shape(x)[1:]))

    def other(self, x: str, shape: Shape, function: str) -> str:
        """An operator that the table has no kind for."""
        return self._append("other", (x,), shape, function=function)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _binary(self, kind: str, x: str, y: str, activation: str) -> str:
        shape = max(self.shape(x), self.shape(y), key=math.prod)
        z = self._append(kind, (x, y), shape[1:])
        return self.activation(z, activation) if activation else z

    def _layer(
        self,
        kind: str,
        x: str,
        shape: Shape,
        weight: Weight,
        *,
        bias: bool,
        kernel: Shape = (),
        stride: int = 0,
        macs: int | None = None,
    ) -> str:
        channels = weight.channels
        positions = self.batch * math.prod(shape) // channels
        return self._append(
            kind,
            (x,),
            shape,
            weight=weight,
            bias=Bias(channels, f"{weight.name}.bias" if weight.name else "") if bias else None,
            kernel=kernel,
            stride=stride,
            macs=positions * weight.elements if macs is None else macs,
        )

    def _append(
        self,
        kind: str,
        inputs: tuple[str, ...],
        shape: Shape,
        *,
        macs: int = 0,
        weight: Weight | None = None,
        function: str = "",
        kernel: Shape = (),
        bias: Bias | None = None,
        stride: int = 0,
        axes: tuple[int, ...] = (),
        operand: Shape | None = None,
    ) -> str:
        name = f"{kind}{len(self._operators)}"
        self._tensors[name] = Tensor(name, (self.batch, *shape))
        self._operators.append(Operator(
            name, kind, inputs, name, macs, weight, function, kernel=kernel, bias=bias, stride=stride, axes=axes,
            operand=operand,
        ))  # fmt: skip
        for constant, elements in ((weight, weight.elements if weight else 0), (bias, bias.channels if bias else 0)):
            if constant is not None and constant.name not in self._named:
                self._parameters += elements
                self._named.update(filter(None, (constant.name,)))
        return name


def _each(value: int | Sequence[int], axes: int) -> Shape:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _pads(padding: Padding, sizes: Sequence[int]) -> tuple[int | Literal["same"], ...]:
    return (padding,) * len(sizes) if isinstance(padding, int | str) else tuple(padding)


def _size(size: int, kernel: int, stride: int, padding: int | Literal["same"], dilation: int = 1) -> int:
    """Of an axis of a convolution's or a pool's output."""
    if padding == "same":
        return math.ceil(size / stride)
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
