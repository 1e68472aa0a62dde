"""What the layers of a network read: mean, mean square and covariance of their input patches.

A patch is the vector that one output element is the product of: the features that a linear layer reads, or the
input channels of a convolution times its kernel, in the order of ``weight.flatten(1)``. Learned rounding and bias
correction need nothing else of the calibration data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from kneepoint.compression.watching import watch
from kneepoint.spaces.network import Network, indices

ROWS = 4096
"""Patches a layer whose products are summed up: several for every element of the covariance of a usual layer."""
WIDEST = 4096
"""Elements of a patch up to which the covariance is kept; beyond, it would take more memory than the network."""
_KINDS = frozenset({"conv", "depthwise_conv", "grouped_conv", "linear"})
"""Layers whose outputs are products of patches; an embedding is looked up, and a transposed convolution scatters."""


@dataclass(frozen=True)
class InputStatistics:
    """Statistics of the patches that one layer reads, one row for every group of a convolution.

    Attributes:
        mean: (groups, elements), over all patches.
        square: (groups, elements), the mean square over all patches.
        covariance: (groups, elements, elements), over a sample of them; None where patches are too wide.
        kernel: Elements of a patch that belong to one input channel.
    """

    mean: Tensor
    square: Tensor
    covariance: Tensor | None
    kernel: int = 1

    @property
    def moment(self) -> Tensor | None:
        """The second moment E[x x^T], (groups, elements, elements); None where there is no covariance."""
        return None if self.covariance is None else self.covariance + _outer(self.mean)

    def of_channels(self, channels: Tensor) -> InputStatistics:
        """The statistics of a narrower layer, which reads only the input ``channels`` (sorted indices).

        A depthwise convolution loses groups, any other layer elements of its patches.
        """
        if len(self.mean) > 1:
            covariance = None if self.covariance is None else self.covariance[channels]
            return InputStatistics(self.mean[channels], self.square[channels], covariance, self.kernel)
        columns = (channels.unsqueeze(1) * self.kernel + torch.arange(self.kernel)).flatten()
        covariance = None if self.covariance is None else self.covariance[:, columns][:, :, columns]
        return InputStatistics(self.mean[:, columns], self.square[:, columns], covariance, self.kernel)


def input_statistics(
    network: Network, folded: fx.GraphModule, inputs: Sequence[Any], rows: int = ROWS, widest: int = WIDEST
) -> dict[str, InputStatistics]:
    """Statistics of every layer's input in one pass; the calls of a layer that is called again are taken together.

    Means and mean squares are those of every patch. Products are those of about ``rows`` patches a layer, at a fixed
    stride over samples and positions.

    Args:
        network: The structure of ``folded``; its convolutions and linear layers are watched.
        folded: The float network, or a cut one.
        inputs: Batches of calibration inputs.
        rows: Patches to sum products over, for each call.
        widest: Elements of a patch beyond which no products are summed.

    Raises:
        JobFailed: If a layer reads infinite or NaN values.
    """
    sums: dict[str, _Sums] = {}
    layer_of = {
        name: layer.name
        for layer in network.layers.values()
        for name in layer.operations
        if network.operation_of[name].kind in _KINDS
    }
    rows_a_batch = math.ceil(rows / max(1, len(inputs)))

    def visit(node: fx.Node, arguments: tuple[Any, ...], _: Any) -> None:
        patches = _Patches.of_call(arguments)
        name = layer_of[node.name]
        if name not in sums:
            sums[name] = _Sums(patches, widest)
        sums[name].add(patches, rows_a_batch)

    watch(folded, inputs, layer_of.keys(), visit)
    results = {name: known.result() for name, known in sums.items()}
    return {name: known for name, known in results.items() if bool(known.mean.isfinite().all())}


def cut_statistics(
    network: Network, statistics: Mapping[str, InputStatistics], kept: Mapping[str, Tensor]
) -> dict[str, InputStatistics]:
    """``statistics`` of the whole network, restricted to the channels ``kept``.

    They ignore that a pruned network's values differ from the whole one's, in exchange for no pass over data.

    Args:
        network: Says which channels every layer reads.
        statistics: Of :func:`input_statistics`, nothing cut.
        kept: Sorted channel indices, by group; a group that is not here keeps everything.
    """
    cut = {}
    for name, known in statistics.items():
        layer = network.layers[name]
        groups = len(known.mean)
        layout = network.flow.parameters[layer.weight][0 if groups > 1 else 1]
        if not any(segment.group in kept for segment in layout):
            cut[name] = known
            continue
        channels = indices(layout, kept)
        if groups > 1:  # whole groups of output channels go
            channels = torch.unique(channels // (network.parameter_shapes[layer.weight][0] // groups))
        cut[name] = known.of_channels(channels)
    return cut


_DEFAULTS: Sequence[Any] = (1, 0, 1, 1)
"""A convolution's stride, padding, dilation and groups where its call does not give them."""


@dataclass(frozen=True)
class _Patches:
    """The patches of one call of a layer.

    Attributes:
        x: The padded input, (samples, channels, *positions); for a linear layer (samples, features).
        kernel: Its sizes; empty for a linear layer.
        stride: Along every axis of the kernel.
        dilation: Along every axis of the kernel.
        groups: Of the convolution; 1 for a linear layer.
    """

    x: Tensor
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @classmethod
    def of_call(cls, arguments: tuple[Any, ...]) -> _Patches:
        """The patches of a call with these ATen arguments: (input, weight, bias, stride, padding, dilation, groups)."""
        x, weight = arguments[0].float(), arguments[1]
        kernel = tuple(weight.shape[2:])
        if not kernel:
            return cls(x.reshape(-1, x.shape[-1]))
        stride, padding, dilation, groups = [*arguments[3:], *_DEFAULTS[len(arguments[3:]) :]]
        spread = _each(dilation, len(kernel))
        return cls(_padded(x, padding, kernel, spread), kernel, _each(stride, len(kernel)), spread, groups)

    @property
    def elements(self) -> int:
        """Of a patch of one group."""
        return self.x.shape[1] // self.groups * math.prod(self.kernel)

    def mean(self) -> Tensor:
        """Mean of every patch there is, (groups, elements)."""
        return self._mean(self.x)

    def mean_square(self) -> Tensor:
        """Mean square of every patch there is, (groups, elements)."""
        return self._mean(self.x.square())

    def sample(self, rows: int) -> Tensor:
        """About ``rows`` patches, (groups, rows, elements), at a stride that comes by every position."""
        windows = self._windows(self.x).movedim(1, -1 - len(self.kernel))
        counted = windows.shape[: 1 + len(self.kernel)]
        stride = max(1, math.prod(counted) // rows)
        while math.gcd(stride, math.prod(counted[1:])) > 1:
            stride += 1
        picked = windows[torch.unravel_index(torch.arange(0, math.prod(counted), stride), counted)]
        return picked.reshape(len(picked), self.groups, self.elements).transpose(0, 1)

    def _mean(self, x: Tensor) -> Tensor:
        """Over samples first, which leaves little to cut into patches."""
        windows = self._windows(x.mean(dim=0, keepdim=True))
        positions = tuple(range(2, 2 + len(self.kernel)))
        return (windows.mean(dim=positions) if positions else windows).reshape(self.groups, self.elements)

    def _windows(self, x: Tensor) -> Tensor:
        """(samples, channels, *positions, *kernel), a view."""
        for axis, (size, stride, dilation) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True)):
            x = x.unfold(2 + axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
        return x


class _Sums:
    """Running sums over the calls of one layer, in float32 like the network itself.

    Args:
        patches: Of the first call, for their shape.
        widest: Elements of a patch beyond which no products are summed.
    """

    def __init__(self, patches: _Patches, widest: int) -> None:
        groups, elements = patches.groups, patches.elements
        self.kernel = math.prod(patches.kernel)
        self.mean, self.square, self.sampled = torch.zeros(3, groups, elements)
        # Products are summed around the first call's mean: around 0, they would lose a small spread beside a large one.
        self.origin = patches.mean()
        self.products = torch.zeros(groups, elements, elements) if elements <= widest else None
        self.samples = self.rows = 0

    def add(self, patches: _Patches, rows: int) -> None:
        """One more call, with products of about ``rows`` patches."""
        weight = len(patches.x)
        self.samples += weight
        self.mean += weight * patches.mean()
        self.square += weight * patches.mean_square()
        if self.products is not None:
            sample = patches.sample(rows) - self.origin.unsqueeze(1)
            self.rows += sample.shape[1]
            self.sampled += sample.sum(dim=1)
            self.products.baddbmm_(sample.transpose(1, 2), sample)

    def result(self) -> InputStatistics:
        """What was summed, divided by how much there was."""
        covariance = None
        if self.products is not None:
            # Around the sample's own mean: only then is the covariance positive semidefinite.
            covariance = self.products / self.rows - _outer(self.sampled / self.rows)
        return InputStatistics(self.mean / self.samples, self.square / self.samples, covariance, self.kernel)


def _outer(mean: Tensor) -> Tensor:
    return mean.unsqueeze(2) * mean.unsqueeze(1)


def _each(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """A convolution's argument for every axis, given once for all or for each."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * axes) if len(values) == 1 else tuple(values)


def _padded(x: Tensor, padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """``x`` with the zeros that a convolution reads beyond its edges; of ``same``, the odd one follows."""
    if padding == "valid":
        return x
    if padding == "same":
        totals = [(size - 1) * spread for size, spread in zip(kernel, dilation, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(side, side) for side in _each(padding, len(kernel))]
    return F.pad(x, [side for pair in reversed(sides) for side in pair])
