"""What workloads cost on a device: every kernel priced once, by measurements where there are any, or by a roofline.

The latency of a network is the sum over its kernels, and a floor of its own. Nothing is free: a kernel without a price
is bounded from above and reported, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.arena import arena_use
from kneepoint.hardware_models.calibrated import LatencyModel
from kneepoint.hardware_models.cost import Cost, transfer_ms
from kneepoint.hardware_models.device import SCALING_ERROR, Device
from kneepoint.hardware_models.energy import watts
from kneepoint.hardware_models.kernels import FORMATS
from kneepoint.hardware_models.price_table import DECIDED, Floats, PriceTable, RowPrices, Totals
from kneepoint.hardware_models.refined import Refined, float_width, streamed_seconds
from kneepoint.hardware_models.roofline import Roofline
from kneepoint.hardware_models.workload import Integers, Workload
from kneepoint.tasks.errors import DeviceError

Unpriced = Literal["bound", "refuse"]
_ARITHMETIC, _BANDWIDTH, _MEASUREMENTS, _PUBLICATIONS, _NOTHING = range(len(DECIDED))


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
        self._roofline, self._refined = Roofline.of(device), Refined.of(device)
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

    def latencies_of_many(
        self, kernels: Workload, rows: Integers, lengths: Integers
    ) -> tuple[Floats, Floats, Floats | None]:
        """Milliseconds of many networks, their standard errors, and millijoules, each (networks,).

        The last is None where the device's power is unknown.

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
        return self._latencies(totals), self._errors(totals), self._energies(totals)

    def _latencies(self, totals: Totals) -> Floats:
        """Kernels, the floor of an inference, and weights that the accelerator has no room for."""
        streamed = streamed_seconds(self.device, totals.weight_bytes) * 1e3
        return np.asarray(totals.latency_ms + self.floor_ms + streamed)

    def _energies(self, totals: Totals) -> Floats | None:
        """Millijoules, or None where the power of the device is unknown."""
        if self.device.power is None:
            return None
        beside = self._latencies(totals) - totals.latency_ms
        return np.asarray(totals.energy_mj + self.device.power.active_w * beside)

    def _errors(self, totals: Totals) -> Floats:
        """One standard error of each latency: what kernels share, what each has for itself, all that is bounded."""
        common = totals.shared_ms + self.common_error * (self._latencies(totals) - totals.latency_ms)
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
        latency = float(self._latencies(totals)[index])
        arena = arena_use(workload.buffers, device.memory)
        resident = 0 if device.memory.flash_mb else workload.resident_bytes
        energy = self._energies(totals)
        return Cost(
            device=device.name,
            latency_ms=latency,
            latency_ms_error=float(errors[index]),
            energy_mj=None if energy is None else float(energy[index]),
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

    def _slowdown(self, rows: Workload) -> Floats:
        """Exported weights have a scale for every channel, for which some accelerators fall back."""
        slowdown = self.device.per_channel_slowdown or 1.0
        return np.where((rows.format == FORMATS.index("int8")) & (rows.weight_bytes > 0), slowdown, 1.0)

    def _shared(self, rows: Workload, priced: NDArray[np.bool_]) -> Floats:
        """(kernels,): one standard error as a fraction that all priced kernels share, by what they compute in."""
        refined = self.device.refined
        known = [refined[name].relative_error if name in refined else self.common_error for name in FORMATS]
        if self._refined is None:
            return np.where(priced, self.common_error, 0.0)
        executed = self._refined.executed[rows.kind, rows.format]
        return np.where(priced, np.where(executed >= 0, np.array(known)[executed], self.common_error), 0.0)

    def _price(self, rows: Workload) -> RowPrices:
        """The roofline prices what was not measured, a refined one first."""
        roofline = self._roofline.price(rows)
        latency, error = roofline.seconds * 1e3, np.zeros(len(rows))
        decided = np.where(roofline.by_compute, _ARITHMETIC, _BANDWIDTH)
        decided = np.where(roofline.priced, decided, _NOTHING)
        if self._refined is not None:
            seconds, fitted = self._refined.seconds(rows)
            latency = np.where(fitted, seconds, roofline.seconds + self._refined.launch.max()) * 1e3
            decided = np.where(fitted, _PUBLICATIONS, decided)
        latency = latency * self._slowdown(rows)
        if self._measured is not None:
            microseconds, known = self._measured.predict(rows)
            measured = np.maximum(microseconds, 0.0) * self._gain / 1e3
            error = np.where(known, self._measured.kernel_error * measured, self.device.relative_error * latency)
            error = np.where(known | roofline.priced, error, 0.0)  # what is bounded may be wrong as a whole
            latency, decided = np.where(known, measured, latency), np.where(known, _MEASUREMENTS, decided)
        shared = self._shared(rows, decided != _NOTHING) * latency
        energy, weights = watts(self.device, rows) * latency, float_width(self.device, rows) * rows.weight_bytes
        return RowPrices(latency, error, decided.astype(np.int8), shared, energy, weights)


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
