"""What a workload costs on a device: a roofline with a floor per kernel.

The latency of a kernel is floor + max(work / rate, bytes / bandwidth) (Williams, Waterman and Patterson, "Roofline: an
insightful visual performance model", CACM 52(4), 2009), that of a network the sum over its kernels. Nothing is free: a
kernel without a rate is bounded from above and reported, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.devices import DEFAULT, Device, Rates
from kneepoint.hardware_models.kernels import KERNEL_KINDS
from kneepoint.hardware_models.workload import FORMATS, KIND_CODES, Integers, Workload
from kneepoint.tasks.errors import DeviceError

Floats = NDArray[np.float64]
Unpriced = Literal["bound", "refuse"]
MAC_KINDS = frozenset({"conv", "depthwise_conv", "grouped_conv", "conv_transpose", "linear", "matmul"})
"""Kinds whose work is multiply-accumulates; that of all others is elements."""
FP32_WIDTH = 4


@dataclass(frozen=True)
class KernelCost:
    """What one kernel costs.

    Attributes:
        name: Of the kernel.
        kind: Its kind.
        latency_ms: Milliseconds.
        priced: Whether a rate of the device was used; otherwise the latency is an upper bound.
        why: Which bound decided, or why there is no price.
    """

    name: str
    kind: str
    latency_ms: float
    priced: bool
    why: str


@dataclass(frozen=True, eq=False)
class Cost:
    """What a network costs on a device.

    Attributes:
        device: Its name.
        latency_ms: Milliseconds of one inference.
        latency_ms_error: One standard error: the device's relative error of what is priced, and all of what is not.
        energy_mj: Millijoules of the whole device during one inference; None where its power is unknown.
        peak_memory_bytes: Weights as a session unpacks them, and activations at their peak.
        storage_bytes: Constants in the artifact.
        coverage: The share of the kernels' predicted latency that comes from kernels with a rate of their own.
    """

    device: str
    latency_ms: float
    latency_ms_error: float
    energy_mj: float | None
    peak_memory_bytes: int
    storage_bytes: int
    coverage: float
    _workload: Workload
    _prices: _Prices
    _device: Device

    @property
    def kernels(self) -> tuple[KernelCost, ...]:
        """The breakdown, in execution order; with the network's own floor it adds up to ``latency_ms``."""
        workload, prices = self._workload, self._prices
        return tuple(
            KernelCost(name, kind, float(latency), bool(priced), _why(workload, prices, i, self._device))
            for i, (name, kind, latency, priced) in enumerate(
                zip(workload.names, workload.kinds, prices.latency_ms, prices.priced, strict=True)
            )
        )

    def to_json(self) -> dict[str, Any]:
        """The facts as ``kneepoint devices estimate --json`` prints them."""
        names = (
            "device",
            "latency_ms",
            "latency_ms_error",
            "energy_mj",
            "peak_memory_bytes",
            "storage_bytes",
            "coverage",
        )
        kernels = [dict(vars(kernel)) for kernel in self.kernels]
        return {**{name: getattr(self, name) for name in names}, "kernels": kernels}


class CostModel:
    """Prices workloads on one device.

    Attributes:
        device: The device.
        unpriced: What to do with a kernel the device has no rate for: ``bound`` it from above by moving its bytes
            from main memory and working at the scalar rate, or ``refuse`` the network.
    """

    def __init__(self, device: Device, unpriced: Unpriced = "bound") -> None:
        if unpriced not in ("bound", "refuse"):
            raise DeviceError(f"unpriced kernels are handled by 'bound' or 'refuse'; got {unpriced!r}")
        self.device = device
        self.unpriced = unpriced
        self._tables = _Tables.of(device)

    @overload
    def cost(self, workload: Workload) -> Cost: ...

    @overload
    def cost(self, workload: Sequence[Workload]) -> list[Cost]: ...

    def cost(self, workload: Workload | Sequence[Workload]) -> Cost | list[Cost]:
        """The cost of one workload, or of each of many; all rows are priced together.

        Raises:
            DeviceError: If a kernel has no rate and the model is told to refuse.
        """
        if isinstance(workload, Workload):
            return self._costs([workload])[0]
        return self._costs(list(workload))

    def _costs(self, workloads: list[Workload]) -> list[Cost]:
        if not workloads:
            return []
        prices = self._price(_Rows.of(workloads, self.device))
        ends = np.cumsum([len(workload) for workload in workloads])
        return [
            self._cost(workload, prices[end - len(workload) : end])
            for workload, end in zip(workloads, ends, strict=True)
        ]

    def _price(self, rows: _Rows) -> _Prices:
        """Floor + max(work / rate, bytes / bandwidth), a row at a time."""
        tables = self._tables
        where = (rows.kind, rows.format)
        moved = rows.moved_bytes * tables.widening[where]
        bandwidth = np.where(moved <= tables.cache_bytes, tables.cache_bandwidth, tables.bandwidth)
        work = np.where(tables.by_macs[rows.kind], rows.macs, rows.touched_elements)
        priced = np.isfinite(tables.rate[where])
        compute = work / rows.speedup / np.where(priced, tables.rate[where], 1.0)
        memory = moved / bandwidth
        bound = moved / tables.bandwidth + (rows.macs + rows.touched_elements) / tables.scalar_rate
        seconds = tables.floor[rows.kind] + np.where(priced, np.maximum(compute, memory), bound)
        return _Prices(seconds * 1e3, priced, compute >= memory, tables.widening[where] > 1)

    def _cost(self, workload: Workload, prices: _Prices) -> Cost:
        if self.unpriced == "refuse" and not prices.priced.all():
            raise DeviceError(_refusal(self.device, workload, prices))
        device = self.device
        total = float(prices.latency_ms.sum())
        bounded = float(prices.latency_ms[~prices.priced].sum())
        latency = total + device.network_floor_us / 1e3
        return Cost(
            device=device.name,
            latency_ms=latency,
            latency_ms_error=float(np.hypot(device.relative_error * (latency - bounded), bounded)),
            energy_mj=device.power.active_w * latency if device.power else None,
            peak_memory_bytes=workload.resident_bytes + workload.peak_activation_bytes,
            storage_bytes=workload.storage_bytes,
            coverage=1 - bounded / total if total else 1.0,
            _workload=workload,
            _prices=prices,
            _device=device,
        )


@dataclass(frozen=True)
class _Rows:
    """The kernels of many workloads, end to end.

    Touched elements are the larger of what is read and what is written; the speed-up is that of skipping zeros.
    """

    kind: NDArray[np.int16]
    format: NDArray[np.int8]
    macs: Integers
    moved_bytes: Floats
    touched_elements: Integers
    speedup: Floats

    @classmethod
    def of(cls, workloads: list[Workload], device: Device) -> _Rows:
        kinds = np.concatenate([workload.kind for workload in workloads])
        formats = np.concatenate([workload.format for workload in workloads])
        inputs = np.concatenate([workload.input_bytes for workload in workloads])
        outputs = np.concatenate([workload.elements for workload in workloads])
        width = np.where(formats == FORMATS.index("fp32"), FP32_WIDTH, 1)
        converts = (kinds == KIND_CODES["quantize"]) | (kinds == KIND_CODES["dequantize"])
        speedup, unread = _sparse_gains(workloads, device)
        return cls(
            kind=kinds,
            format=formats,
            macs=np.concatenate([workload.macs for workload in workloads]),
            moved_bytes=np.concatenate([workload.moved_bytes for workload in workloads]) - unread,
            touched_elements=np.where(converts, outputs, np.maximum(outputs, inputs // width)),
            speedup=speedup,
        )


def _sparse_gains(workloads: list[Workload], device: Device) -> tuple[Floats, Floats]:
    """For every kernel, how much faster it computes for its zeros, and the weight bytes that it need not read."""
    count = sum(len(workload) for workload in workloads)
    speedup, unread = np.ones(count), np.zeros(count)
    first = 0
    for workload in workloads:
        for row, pattern in workload.sparse.items():
            if pattern in device.sparsity:
                speedup[first + row] = device.sparsity[pattern].speedup
                unread[first + row] = workload.weight_bytes[row] * (1 - device.sparsity[pattern].weight_bytes)
        first += len(workload)
    return speedup, unread


@dataclass(frozen=True)
class _Prices:
    """A row for every kernel."""

    latency_ms: Floats
    priced: NDArray[np.bool_]
    by_compute: NDArray[np.bool_]
    fell_back: NDArray[np.bool_]

    def __getitem__(self, rows: slice) -> _Prices:
        return _Prices(self.latency_ms[rows], self.priced[rows], self.by_compute[rows], self.fell_back[rows])


@dataclass(frozen=True)
class _Tables:
    """The device file as arrays: (kinds,) or (kinds, formats), in operations, bytes and seconds."""

    rate: Floats
    widening: Floats
    floor: Floats
    by_macs: NDArray[np.bool_]
    bandwidth: float
    cache_bandwidth: float
    cache_bytes: float
    scalar_rate: float

    @classmethod
    def of(cls, device: Device) -> _Tables:
        floors = [device.floor_us.get(kind, device.floor_us[DEFAULT]) for kind in KERNEL_KINDS]
        return cls(
            rate=np.array([[_rate(device, kind, name) for name in FORMATS] for kind in KERNEL_KINDS]) * 1e9,
            widening=np.array([[_widening(device, kind, name) for name in FORMATS] for kind in KERNEL_KINDS]),
            floor=np.array(floors) / 1e6,
            by_macs=np.array([kind in MAC_KINDS for kind in KERNEL_KINDS]),
            bandwidth=device.bandwidth_gb_s * 1e9,
            cache_bandwidth=device.cache_bandwidth_gb_s * 1e9,
            cache_bytes=device.cache_kb * 1024,
            scalar_rate=device.scalar_rate * 1e9,
        )


def _executed(device: Device, kind: str, name: str) -> str:
    return name if (name == "int8" and device.executes(kind, "int8")) or name == "fp32" else device.fallback


def _rate(device: Device, kind: str, name: str) -> float:
    """10^9 operations a second; NaN where the device has no rate for the kind."""
    if kind == "other":
        return float("nan")
    table: Rates = device.rates if kind in MAC_KINDS else device.element_rates
    rates = table.get(kind, table.get(DEFAULT, {}))
    return next((rate for key, rate in rates.items() if key == _executed(device, kind, name)), float("nan"))


def _widening(device: Device, kind: str, name: str) -> float:
    """By how much a kernel's bytes grow where it falls back from int8 to fp32."""
    return FP32_WIDTH if name == "int8" and _executed(device, kind, name) == "fp32" else 1


def _why(workload: Workload, prices: _Prices, row: int, device: Device) -> str:
    kind, function = workload.kinds[row], workload.functions[row]
    name = FORMATS[int(workload.format[row])]
    if not prices.priced[row]:
        what = f"operator {function!r} is not known to the table" if kind == "other" else f"no {name} rate for {kind}"
        return f"{what}: bounded by moving its bytes from main memory at the scalar rate"
    decided = "arithmetic" if prices.by_compute[row] else "bandwidth"
    fallback = ", in the fallback format" if prices.fell_back[row] else ""
    return f"{name}, bound by {decided}{fallback}{_zeros(workload.sparse.get(row), device)}"


def _zeros(pattern: str | None, device: Device) -> str:
    """What becomes of a weight's zeros."""
    if pattern is None:
        return ""
    return f", {pattern} zeros skipped" if pattern in device.sparsity else f", {pattern} zeros computed like others"


def _refusal(device: Device, workload: Workload, prices: _Prices) -> str:
    rows = np.flatnonzero(~prices.priced)
    listed = ", ".join(f"{workload.names[i]} ({workload.functions[i] or workload.kinds[i]})" for i in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return (
        f"device {device.name!r} has no rate for {listed}{more}; add rates to its device file, or bound such kernels "
        "from above with unpriced='bound'"
    )
