"""What workloads cost on a device: every kernel priced once, by measurements where there are any, or by a roofline.

The latency of a network is the sum over its kernels, and a floor of its own. Nothing is free: a kernel without a price
is bounded from above and reported, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from kneepoint.hardware_models.arena import arena_use
from kneepoint.hardware_models.calibrated import LatencyModel
from kneepoint.hardware_models.cost import Cost, transfer_ms
from kneepoint.hardware_models.device import SCALING_ERROR, Device
from kneepoint.hardware_models.price_table import DECIDED, Floats, PriceTable, RowPrices, Totals
from kneepoint.hardware_models.roofline import Roofline
from kneepoint.hardware_models.workload import Integers, Workload
from kneepoint.tasks.errors import DeviceError

Unpriced = Literal["bound", "refuse"]
_ARITHMETIC, _BANDWIDTH, _MEASUREMENTS, _NOTHING = range(len(DECIDED))


class CostModel:
    """Prices workloads on one device; what it has priced once it does not price again.

    Attributes:
        device: The device.
        unpriced: What to do with a kernel the device has no price for: ``bound`` it from above by moving its bytes
            from main memory and working at the scalar rate, or ``refuse`` the network.
        common_error: One standard error that all priced kernels of a network share, as a fraction.
        floor_ms: Milliseconds of one inference apart from its kernels.
        table: The distinct kernels so far.
    """

    def __init__(self, device: Device, unpriced: Unpriced = "bound") -> None:
        if unpriced not in ("bound", "refuse"):
            raise DeviceError(f"unpriced kernels are handled by 'bound' or 'refuse'; got {unpriced!r}")
        self.device = device
        self.unpriced = unpriced
        self._roofline = Roofline.of(device)
        self._measured, self._gain = _calibrated(device)
        self.table = PriceTable(self._price, surroundings=self.contextual)
        self.common_error = _common_error(device, self._measured, self._gain)
        measured_floor = self._measured.network_floor_us * self._gain if self._measured else device.network_floor_us
        self.floor_ms = measured_floor / 1e3

    @property
    def contextual(self) -> bool:
        """Whether a kernel's price depends on where it stands, as measured ones do."""
        return self._measured is not None

    @overload
    def cost(self, workload: Workload) -> Cost: ...

    @overload
    def cost(self, workload: Sequence[Workload]) -> list[Cost]: ...

    def cost(self, workload: Workload | Sequence[Workload]) -> Cost | list[Cost]:
        """The cost of one workload, or of each of many; all rows are priced together.

        Raises:
            DeviceError: If a kernel has no price and the model is told to refuse.
        """
        if isinstance(workload, Workload):
            return self._costs([workload])[0]
        return self._costs(list(workload))

    def latencies(self, workload: Workload) -> Floats:
        """(kernels,) milliseconds of each kernel.

        Raises:
            DeviceError: If a kernel has no price and the model is told to refuse.
        """
        prices = self.table.prices(self.table.places(workload))
        self._check(workload, prices)
        return prices.latency_ms

    def latencies_of_many(self, kernels: Workload, rows: Integers, lengths: Integers) -> tuple[Floats, Floats]:
        """Milliseconds of many networks and their standard errors, both (networks,).

        Args:
            kernels: Distinct ones, each with the place it stands in where that counts.
            rows: (kernels of all networks,) which of them each is, one network after the other.
            lengths: (networks,) how many kernels belong to each.

        Raises:
            DeviceError: If a kernel has no price and the model is told to refuse.
        """
        places = self.table.places(kernels)
        self._check(kernels, self.table.prices(places))
        totals = self.table.totals(places[rows], lengths)
        return totals.latency_ms + self.floor_ms, self._errors(totals)

    def _errors(self, totals: Totals) -> Floats:
        """One standard error of each latency: what kernels share, what each has for itself, all that is bounded."""
        common = self.common_error * (totals.latency_ms + self.floor_ms - totals.bounded_ms)
        return np.asarray(np.sqrt(common**2 + totals.error_ms**2 + totals.bounded_ms**2))

    def _check(self, workload: Workload, prices: RowPrices) -> None:
        if self.unpriced == "refuse" and not prices.priced.all():
            raise DeviceError(_refusal(self.device, workload, prices))

    def _costs(self, workloads: list[Workload]) -> list[Cost]:
        if not workloads:
            return []
        places = [self.table.places(workload) for workload in workloads]
        lengths = np.array([len(workload) for workload in workloads], np.int64)
        totals = self.table.totals(np.concatenate(places), lengths)
        errors = self._errors(totals)
        return [
            self._cost(workload, self.table.prices(place), totals, errors, index)
            for index, (workload, place) in enumerate(zip(workloads, places, strict=True))
        ]

    def _cost(self, workload: Workload, prices: RowPrices, totals: Totals, errors: Floats, index: int) -> Cost:
        self._check(workload, prices)
        device = self.device
        total, bounded = float(totals.latency_ms[index]), float(totals.bounded_ms[index])
        latency = total + self.floor_ms
        arena = arena_use(workload.buffers, device.memory)
        resident = 0 if device.memory.flash_mb else workload.resident_bytes
        return Cost(
            device=device.name,
            latency_ms=latency,
            latency_ms_error=float(errors[index]),
            energy_mj=device.power.active_w * latency if device.power else None,
            peak_memory_bytes=resident + arena.touched_bytes,
            reserved_memory_bytes=resident + arena.reserved_bytes,
            storage_bytes=workload.storage_bytes,
            transfer_ms=transfer_ms(workload.storage_bytes, device),
            coverage=1 - bounded / total if total else 1.0,
            common_error=self.common_error,
            _workload=workload,
            _prices=prices,
            _device=device,
        )

    def _price(self, rows: Workload) -> RowPrices:
        """The roofline prices what was not measured."""
        roofline = self._roofline.price(rows)
        latency, error = roofline.seconds * 1e3, np.zeros(len(rows))
        decided = np.where(roofline.by_compute, _ARITHMETIC, _BANDWIDTH)
        decided = np.where(roofline.priced, decided, _NOTHING)
        if self._measured is not None:
            microseconds, known = self._measured.predict(rows)
            measured = np.maximum(microseconds, 0.0) * self._gain / 1e3
            error = np.where(known, self._measured.kernel_error * measured, self.device.relative_error * latency)
            error = np.where(known | roofline.priced, error, 0.0)  # what is bounded may be wrong as a whole
            latency, decided = np.where(known, measured, latency), np.where(known, _MEASUREMENTS, decided)
        return RowPrices(latency, error, decided.astype(np.int8))


def _calibrated(device: Device) -> tuple[LatencyModel | None, float]:
    """The model of the measured thread count that is nearest, and what its times are multiplied by."""
    if device.calibration is None:
        return None, 1.0
    count = device.calibration.nearest_count(device.threads)
    return device.calibration.model(count), float((count / device.threads) ** (device.thread_exponent or 0.0))


def _common_error(device: Device, measured: LatencyModel | None, gain: float) -> float:
    if measured is None:
        return device.relative_error
    return float(np.hypot(measured.common_error, SCALING_ERROR if gain != 1.0 else 0.0))


def _refusal(device: Device, workload: Workload, prices: RowPrices) -> str:
    rows = np.flatnonzero(~prices.priced)
    listed = ", ".join(f"{workload.names[i]} ({workload.functions[i] or workload.kinds[i]})" for i in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return (
        f"device {device.name!r} has no rate for {listed}{more}; add rates to its device file, or bound such kernels "
        "from above with unpriced='bound'"
    )
