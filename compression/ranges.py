"""Ranges of activations, from what the values of a network are on calibration data."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, fx

from kneepoint.compression.quantizers import activation_quant
from kneepoint.compression.watching import watch
from kneepoint.spaces.quant_plan import ActivationQuant
from kneepoint.tasks.errors import JobFailed, SpaceError, nearest

RangeMethod = Literal["minmax", "percentile", "mse"]
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)
PERCENTILE = 99.99
"""Share of the values, in percent, that ``percentile`` leaves within the range."""
BINS = 2048
_SMALLEST_RANGE = 1e-30  # what is 0 everywhere still has a bin
_RATIOS = torch.linspace(0.05, 1.0, 96, dtype=torch.float64)


@dataclass(frozen=True)
class Histogram:
    """How often values fell into bins of a width that is a power of two, each beginning at a multiple of it.

    When values outgrow the bins, neighbours are joined, so that no count is ever split or moved.

    Attributes:
        exponent: Of two: the width of a bin.
        first: The first bin begins at ``first`` widths.
        counts: float64, one for every bin; at most ``BINS`` of them.
    """

    exponent: int
    first: int
    counts: Tensor

    @classmethod
    def of(cls, values: Tensor, low: float, high: float) -> Histogram:
        """Of finite ``values`` between ``low`` and ``high``."""
        extent = max(high, 0.0) - min(
            low, 0.0
        )  # with 0, so that a bin stays wide against rounding errors of the values
        exponent = math.ceil(math.log2(max(extent, _SMALLEST_RANGE) / (BINS - 2)))
        first = math.floor(math.ldexp(low, -exponent))
        bins = math.floor(math.ldexp(high, -exponent)) - first + 1
        edges = math.ldexp(first, exponent), math.ldexp(first + bins, exponent)
        return cls(exponent, first, torch.histc(values.float(), bins, *edges).double())

    def joined(self, other: Histogram) -> Histogram:
        """The counts of both."""
        exponent = max(self.exponent, other.exponent)
        while True:
            parts = [part.coarser(exponent) for part in (self, other)]
            first = min(part.first for part in parts)
            bins = max(part.first + len(part.counts) for part in parts) - first
            if bins <= BINS:
                break
            exponent += 1
        counts = torch.zeros(bins, dtype=torch.float64)
        for part in parts:
            counts[part.first - first :][: len(part.counts)] += part.counts
        return Histogram(exponent, first, counts)

    def coarser(self, exponent: int) -> Histogram:
        """The same counts in bins of another, not smaller width."""
        factor = 2 ** (exponent - self.exponent)
        first = self.first // factor
        places = torch.div(torch.arange(len(self.counts)) + self.first, factor, rounding_mode="floor") - first
        counts = torch.zeros(int(places[-1]) + 1, dtype=torch.float64)
        return Histogram(exponent, first, counts.index_add_(0, places, self.counts))

    @property
    def centers(self) -> Tensor:
        """float64, of every bin."""
        return (torch.arange(len(self.counts), dtype=torch.float64) + self.first + 0.5) * math.ldexp(1.0, self.exponent)


@dataclass(frozen=True)
class Observed:
    """What one value was on calibration data.

    Attributes:
        low: Its smallest element.
        high: Its largest.
        histogram: Of all its elements; None where only the extremes were asked for.
    """

    low: float
    high: float
    histogram: Histogram | None = None

    def quant(self, method: RangeMethod = "minmax", bits: int = 8) -> ActivationQuant:
        """Scale and zero point of unsigned integers.

        Args:
            method: ``minmax`` covers everything; ``percentile`` lets what is beyond ``PERCENTILE`` percent saturate,
                half of it on each side; ``mse`` takes the range with the least squared error.
            bits: 8 or 16.

        Raises:
            SpaceError: If the method is unknown.
            ValueError: If it needs a histogram, and none was made.
        """
        return activation_quant(*self.range(method, bits), bits)

    def range(self, method: RangeMethod, bits: int) -> tuple[float, float]:
        """The ends of the range, around 0; the rest as in :meth:`quant`."""
        if method not in RANGE_METHODS:
            raise SpaceError(f"activation ranges have no method {method!r}; {nearest(str(method), RANGE_METHODS)}")
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if method == "minmax":
            return low, high
        if self.histogram is None:
            raise ValueError(f"ranges by {method!r} need histograms: observe with histograms=True")
        if method == "percentile":
            return _percentile_range(self.histogram, low, high)
        return _least_error_range(self.histogram, low, high, 2**bits - 1)

    def joined(self, other: Observed) -> Observed:
        """What both saw."""
        # numpy's extremes, because Python's lose a NaN.
        low, high = float(np.minimum(self.low, other.low)), float(np.maximum(self.high, other.high))
        if self.histogram is None or other.histogram is None:
            return Observed(low, high)
        return Observed(low, high, self.histogram.joined(other.histogram))


def observe(
    module: fx.GraphModule, names: Collection[str], inputs: Iterable[Any], histograms: bool = False
) -> dict[str, Observed]:
    """What the values ``names`` are on calibration data.

    Args:
        module: The folded float network.
        names: Node names of values that may be quantized.
        inputs: Batches of calibration inputs.
        histograms: Whether to count values, which every method but ``minmax`` needs and which takes several times as
            long as the network itself.

    Raises:
        JobFailed: If a value is infinite or NaN on them.
    """
    observer = Observer(histograms)
    watch(module, inputs, names, observer)
    for name, seen in observer.found.items():
        require_finite(name, seen)
    return observer.found


class Observer:
    """Remembers what the values it is shown are.

    Args:
        histograms: Whether to count values.

    Attributes:
        found: By node name.
    """

    def __init__(self, histograms: bool = False) -> None:
        self.histograms = histograms
        self.found: dict[str, Observed] = {}

    def __call__(self, node: fx.Node, _: tuple[Any, ...], value: Tensor) -> None:
        """One more value of ``node``; infinite and NaN ends are remembered as such."""
        low, high = (float(end) for end in torch.aminmax(value))
        counted = self.histograms and math.isfinite(high - low)
        seen = Observed(low, high, Histogram.of(value, low, high) if counted else None)
        self.found[node.name] = self.found[node.name].joined(seen) if node.name in self.found else seen


def require_finite(name: str, seen: Observed) -> None:
    """Refuse a value that cannot be quantized.

    Raises:
        JobFailed: Naming it.
    """
    if not math.isfinite(seen.high - seen.low):
        raise JobFailed(
            f"value {name!r} reaches [{seen.low}, {seen.high}] on the calibration data, and only a finite range can "
            "be quantized: keep the layers around it in 16 or 32 bits"
        )


def _percentile_range(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    beyond = histogram.counts.sum() * (1 - PERCENTILE / 100) / 2
    counted = histogram.counts.cumsum(0)
    last = len(counted) - 1
    # The first bin that reaches beyond the share on either side belongs to the range.
    bottom = min(last, int(torch.searchsorted(counted, beyond, right=True)))
    top = min(last, int(torch.searchsorted(counted, counted[-1] - beyond)))
    return _within(histogram, histogram.first + bottom, low), _within(histogram, histogram.first + top + 1, high)


def _within(histogram: Histogram, edge: int, end: float) -> float:
    """The edge of a bin, but not beyond the ``end`` of the values, nor on the other side of 0."""
    value = math.ldexp(edge, histogram.exponent)
    return min(0.0, max(value, end)) if end <= 0 else max(0.0, min(value, end))


def _least_error_range(histogram: Histogram, low: float, high: float, limit: int) -> tuple[float, float]:
    """The better end is looked for on either side in turn, because a range that both ends share has few others."""
    for _ in range(2 if low < 0 < high else 1):
        if high > 0:
            high = float(_best(histogram, torch.tensor([low], dtype=torch.float64), high * _RATIOS, limit)[1])
        if low < 0:
            low = float(_best(histogram, low * _RATIOS, torch.tensor([high], dtype=torch.float64), limit)[0])
    return low, high


def _best(histogram: Histogram, lows: Tensor, highs: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    lows, highs = torch.broadcast_tensors(lows, highs)
    scales = ((highs - lows) / limit).unsqueeze(1)
    zero = (-lows.unsqueeze(1) / scales).round()
    values = histogram.centers.unsqueeze(0)
    rounded = ((values / scales).round() + zero).clamp(0, limit).sub(zero) * scales
    best = ((rounded - values).square() @ histogram.counts).argmin()
    return lows[best], highs[best]
