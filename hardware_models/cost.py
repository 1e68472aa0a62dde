"""What a network costs on a device, with its breakdown by kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kneepoint.hardware_models.arena import held
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.energy import kernel_watts
from kneepoint.hardware_models.kernels import FORMATS
from kneepoint.hardware_models.limits import Misfit, misfits
from kneepoint.hardware_models.price_table import DECIDED, RowPrices
from kneepoint.hardware_models.workload import Workload

_BYTES_PER_MS = 1e3
"""A link of 1 MB/s moves so many bytes a millisecond."""


@dataclass(frozen=True)
class KernelCost:
    """What one kernel costs.

    Attributes:
        name: Of the kernel.
        kind: Its kind.
        latency_ms: Milliseconds.
        latency_ms_error: One standard error; all of it where it is only bounded.
        energy_mj: Millijoules; None where the device's power is unknown.
        memory_bytes: Activations that are alive while it runs.
        priced: Whether the device has a price for it; otherwise the latency is an upper bound.
        why: What decided, or why there is no price.
    """

    name: str
    kind: str
    latency_ms: float
    latency_ms_error: float
    energy_mj: float | None
    memory_bytes: int
    priced: bool
    why: str


@dataclass(frozen=True, eq=False)
class Cost:
    """What a network costs on a device.

    Attributes:
        device: Its name.
        latency_ms: Milliseconds of one inference.
        latency_ms_error: One standard error: what the kernels share, what each has for itself, and all that is only
            bounded, as the root of the sum of their squares.
        energy_mj: Millijoules of the whole device during one inference, its power times the latency; None where its
            power is unknown.
        peak_memory_bytes: What is resident at the peak: weights as a session unpacks them (none where they stay in
            flash), and the part of the runtime's arena that activations touch.
        reserved_memory_bytes: The same with all of the arena, as far as the runtime asks for it.
        storage_bytes: Constants in the artifact.
        transfer_ms: Milliseconds that the link of the device needs for them; None where its rate is unknown.
        coverage: The share of the kernels' predicted latency that comes from kernels with a price of their own.
        common_error: One standard error that all priced kernels share, as a fraction.
    """

    device: str
    latency_ms: float
    latency_ms_error: float
    energy_mj: float | None
    peak_memory_bytes: int
    reserved_memory_bytes: int
    storage_bytes: int
    transfer_ms: float | None
    coverage: float
    common_error: float
    _workload: Workload
    _prices: RowPrices
    _device: Device

    @property
    def energy_mj_error(self) -> float | None:
        """One standard error of the energy, from those of latency and power; None where the power is unknown."""
        power = self._device.power
        if power is None or self.energy_mj is None:
            return None
        return self.energy_mj * math.hypot(self.latency_ms_error / self.latency_ms, power.relative_error or 0.0)

    @property
    def kernels(self) -> tuple[KernelCost, ...]:
        """The breakdown, in execution order; with the network's own floor it adds up to ``latency_ms``."""
        return tuple(self._kernel(row, alive) for row, alive in enumerate(self._alive()))

    @property
    def unpriced(self) -> tuple[KernelCost, ...]:
        """The kernels that are only bounded."""
        return tuple(kernel for kernel in self.kernels if not kernel.priced)

    @property
    def misfits(self) -> tuple[Misfit, ...]:
        """The limits of the device that the network exceeds; empty where it fits."""
        return misfits(self._device, self.storage_bytes, self.peak_memory_bytes)

    def to_json(self) -> dict[str, Any]:
        """The facts as ``kneepoint devices estimate --json`` prints them."""
        kernels = self.kernels
        return {
            "device": self.device,
            "latency_ms": self.latency_ms,
            "latency_ms_error": self.latency_ms_error,
            "energy_mj": self.energy_mj,
            "energy_mj_error": self.energy_mj_error,
            "peak_memory_bytes": self.peak_memory_bytes,
            "reserved_memory_bytes": self.reserved_memory_bytes,
            "storage_bytes": self.storage_bytes,
            "transfer_ms": self.transfer_ms,
            "coverage": self.coverage,
            "fits": not self.misfits,
            "misfits": [str(one) for one in self.misfits],
            "unpriced": [{"name": kernel.name, "why": kernel.why} for kernel in kernels if not kernel.priced],
            "kernels": [dict(vars(kernel)) for kernel in kernels],
        }

    def _alive(self) -> list[int]:
        """Bytes of activations, by kernel; none are known of rows that belong to no network."""
        memory = self._device.memory
        buffers = held(self._workload.buffers, memory)
        alive = buffers.alive(memory.alignment).tolist() if buffers.kernels else [0] * len(self._workload)
        return [int(size) for size in alive]

    def _kernel(self, row: int, alive: int) -> KernelCost:
        prices = self._prices
        latency, priced = float(prices.latency_ms[row]), bool(prices.priced[row])
        error = float(np.hypot(self.common_error * latency, prices.error_ms[row]))
        return KernelCost(
            name=self._workload.names[row],
            kind=self._workload.kinds[row],
            latency_ms=latency,
            latency_ms_error=error if priced else latency,
            energy_mj=kernel_watts(self._device, self._workload.kinds[row], self._workload.format[row]) * latency
            if self._device.power
            else None,
            memory_bytes=alive,
            priced=priced,
            why=why(self._workload, prices, row, self._device),
        )


def transfer_ms(storage_bytes: int, device: Device) -> float | None:
    """Milliseconds that an artifact of so many bytes takes to the device; None where its link is unknown."""
    return storage_bytes / (device.link_mb_s * _BYTES_PER_MS) if device.link_mb_s else None


def why(workload: Workload, prices: RowPrices, row: int, device: Device) -> str:
    """What decided the price of a kernel, or why there is none, in words."""
    kind, function = workload.kinds[row], workload.functions[row]
    asked = FORMATS[int(workload.format[row])]
    decided = DECIDED[int(prices.decided[row])]
    if decided == "nothing":
        what = f"operator {function!r} is not known to the table" if kind == "other" else f"no {asked} rate for {kind}"
        return f"{what}: bounded by moving its bytes from main memory at the scalar rate"
    if decided == "measurements":
        return f"{asked}, from measurements of this device"
    executed = device.executed(kind, asked)
    if decided == "publications":
        instead = f", where {asked} was asked for" if executed != asked else ""
        return f"{executed}, at rates fitted to published latencies{instead}"
    fallback = f", computed in {executed}" if executed != asked else ""
    return f"{asked}, bound by {decided}{fallback}{_zeros(workload.sparse.get(row), device)}"


def _zeros(pattern: str | None, device: Device) -> str:
    """What becomes of a weight's zeros."""
    if pattern is None:
        return ""
    return f", {pattern} zeros skipped" if pattern in device.sparsity else f", {pattern} zeros computed like others"
