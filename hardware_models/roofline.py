"""A roofline with a floor per kernel, for rows of any workload.

The latency of a kernel is floor + max(unpacking + work / rate, bytes / bandwidth) (Williams, Waterman and Patterson,
"Roofline: an insightful visual performance model", CACM 52(4), 2009). Unpacking is the time of those kernels that make
floats of a packed weight before they multiply. A kernel without a rate is bounded from above: its bytes from main
memory, then its work at the scalar rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.device import DEFAULT, Device, Rates
from kneepoint.hardware_models.kernels import FORMATS, GEOMETRY, KERNEL_KINDS, KernelFormat
from kneepoint.hardware_models.workload import KIND_CODES, Integers, Workload

Floats = NDArray[np.float64]
MAC_KINDS = frozenset({"conv", "depthwise_conv", "grouped_conv", "conv_transpose", "linear", "matmul"})
"""Kinds whose work is multiply-accumulates; that of all others is elements."""
FP32_WIDTH = 4
_BYTES = FORMATS.index("int8")
_IN, _OUT = GEOMETRY.index("in_channels"), GEOMETRY.index("out_channels")


@dataclass(frozen=True)
class RooflinePrices:
    """Arrays of one entry a kernel.

    Attributes:
        seconds: Its latency, or an upper bound of it.
        priced: Whether the device has a rate for it.
        by_compute: Whether arithmetic decides rather than bandwidth.
    """

    seconds: Floats
    priced: NDArray[np.bool_]
    by_compute: NDArray[np.bool_]


@dataclass(frozen=True)
class Roofline:
    """A device's rates as arrays: (kinds,) or (kinds, formats), in operations, bytes and seconds.

    Attributes:
        device: Where they are from.
        rate: Of the format a kernel really computes in; NaN where there is none.
        unpacking: Seconds a weight, where a kernel unpacks all of them before it multiplies; else 0.
        widening: By how much activations grow where integers fall back to floats.
        weight_widening: The same for weights.
        floor: Seconds.
        by_macs: Whether a kind's work is multiply-accumulates.
    """

    device: Device
    rate: Floats
    unpacking: Floats
    widening: Floats
    weight_widening: Floats
    floor: Floats
    by_macs: NDArray[np.bool_]

    @classmethod
    def of(cls, device: Device) -> Roofline:
        """The roofline of ``device``."""
        floors = [device.floor_us.get(kind, device.floor_us[DEFAULT]) for kind in KERNEL_KINDS]
        return cls(
            device=device,
            rate=np.array([[_rate(device, kind, name) for name in FORMATS] for kind in KERNEL_KINDS]) * 1e9,
            unpacking=_unpacking(device),
            widening=_widening(device, ("int8",)),
            weight_widening=_widening(device, ("int8", "dynamic")),
            floor=np.array(floors) / 1e6,
            by_macs=np.array([kind in MAC_KINDS for kind in KERNEL_KINDS]),
        )

    def price(self, rows: Workload) -> RooflinePrices:
        """What every kernel of ``rows`` costs. A view moves nothing, and costs its floor."""
        where = (rows.kind, rows.format)
        moves = rows.kind != KIND_CODES["view"]
        speedup, unread = self._sparse_gains(rows)
        activations = (rows.input_bytes + rows.output_bytes) * self.widening[where]
        moved = moves * (activations + (rows.weight_bytes - unread) * self.weight_widening[where])
        elements = moves * _touched_elements(rows)
        work = np.where(self.by_macs[rows.kind], rows.macs, elements)
        priced = np.isfinite(self.rate[where])
        compute = work / speedup / np.where(priced, self.rate[where], 1.0) + _weights(rows) * self.unpacking[where]
        memory = moved / self._bandwidth(moved)
        bound = moved / (self.device.bandwidth_gb_s * 1e9) + (rows.macs + elements) / (self.device.scalar_rate * 1e9)
        seconds = self.floor[rows.kind] + np.where(priced, np.maximum(compute, memory), bound)
        return RooflinePrices(seconds, priced, compute >= memory)

    def _bandwidth(self, moved: Floats) -> Floats:
        """Of the smallest cache that holds all a kernel touches, or of main memory."""
        levels = [*(level.bandwidth_gb_s for level in self.device.caches), self.device.bandwidth_gb_s]
        limits = np.array([level.kb * 1024 for level in self.device.caches])
        return np.asarray(np.array(levels)[np.searchsorted(limits, moved)] * 1e9)

    def _sparse_gains(self, rows: Workload) -> tuple[Floats, Floats]:
        """For every kernel, how much faster it computes for its zeros, and the weight bytes that it need not read."""
        speedup, unread = np.ones(len(rows)), np.zeros(len(rows))
        for row, pattern in rows.sparse.items():
            if pattern in self.device.sparsity:
                kernels = self.device.sparsity[pattern]
                speedup[row] = kernels.speedup
                unread[row] = rows.weight_bytes[row] * (1 - kernels.weight_bytes)
        return speedup, unread


def _touched_elements(rows: Workload) -> Integers:
    """(kernels,) int64: the larger of what is read and what is written."""
    width = np.where(rows.format == _BYTES, 1, FP32_WIDTH)
    converts = (rows.kind == KIND_CODES["quantize"]) | (rows.kind == KIND_CODES["dequantize"])
    return np.where(converts, rows.elements, np.maximum(rows.elements, rows.input_bytes // width))


def _rate(device: Device, kind: str, format_: KernelFormat) -> float:
    """10^9 operations a second; NaN where the device has no rate for the kind."""
    if kind == "other":
        return float("nan")
    table: Rates = device.rates if kind in MAC_KINDS else device.element_rates
    return table.get(kind, table.get(DEFAULT, {})).get(device.executed(kind, format_), float("nan"))


def _weights(rows: Workload) -> Integers:
    """(kernels,) elements of a product's second operand."""
    return rows.geometry[:, _IN] * rows.geometry[:, _OUT]


def _unpacking(device: Device) -> Floats:
    """(kinds, formats): seconds that unpacking a weight takes the kernels that do so first."""
    rates = {name: rate for name, rate in device.unpacking.items() if device.executes("linear", name)}
    seconds = [1 / (rates[name] * 1e9) if name in rates else 0.0 for name in FORMATS]
    return np.array([seconds if kind == "linear" else [0.0] * len(FORMATS) for kind in KERNEL_KINDS])


def _widening(device: Device, formats: tuple[KernelFormat, ...]) -> Floats:
    """(kinds, formats): four times the bytes where one of ``formats`` is computed in floats instead."""
    return np.array(
        [
            [FP32_WIDTH if name in formats and device.executed(kind, name) == "fp32" else 1.0 for name in FORMATS]
            for kind in KERNEL_KINDS
        ]
    )
