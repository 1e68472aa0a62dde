"""What a known device would take for networks, part by part: what adapting it to another device scales."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneepoint.deployment.calibration.samples import SampleTable
from kneepoint.hardware_models.device import DEFAULT, Device, Rates
from kneepoint.hardware_models.features import variants
from kneepoint.hardware_models.kernels import FORMATS, KERNEL_KINDS
from kneepoint.hardware_models.latency_model import LatencyModel
from kneepoint.hardware_models.roofline import MAC_KINDS, Roofline
from kneepoint.tasks.errors import DeviceError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

GROUPS = (
    "products fp32", "products int8", "products packed", "grouped fp32", "grouped int8", "elements fp32",
    "elements int8", "conversions",
)  # fmt: skip
LAUNCHES = ("launching products", "launching views", "launching others")
PARTS = (*GROUPS, *LAUNCHES, "bandwidth", "inference", "unpriced")
"""What has a factor of its own: the arithmetic of each group of kernels; launching kernels of three kinds; moving
bytes; an inference apart from its kernels; the arithmetic of kernels without a price."""
BANDWIDTH, INFERENCE, UNPRICED = range(len(GROUPS) + len(LAUNCHES), len(PARTS))
_VIEWS = frozenset({"view", "copy", "select"})
_GROUPED = frozenset({"depthwise_conv", "grouped_conv"})
_CONVERSIONS = frozenset({"quantize", "dequantize", "reorder", "transpose"})
_SIMILAR: Mapping[str, tuple[str, ...]] = {
    "conv": ("linear", "matmul"),
    "depthwise_conv": ("grouped_conv",),
    "grouped_conv": ("depthwise_conv",),
    "conv_transpose": ("conv",),
    "linear": ("matmul", "conv"),
    "matmul": ("linear", "conv"),
}
"""Where a rate is taken from that a device lacks."""
_ENDLESS = 1e12
"""Makes a rate so large that its part of a price vanishes."""


def group_of(kind: str, format_: str) -> int:
    """The position in ``GROUPS`` of kernels of a kind that compute in a format."""
    if kind in _CONVERSIONS:
        return GROUPS.index("conversions")
    numbers = "fp32" if format_ == "fp32" else "packed" if format_.startswith("packed") else "int8"
    work = "grouped" if kind in _GROUPED else "products" if kind in MAC_KINDS else "elements"
    if numbers == "packed" and work != "products":
        numbers = "fp32"
    return GROUPS.index(f"{work} {numbers}")


def launch_of(kind: str) -> int:
    """The position in ``PARTS`` of launching a kernel of a kind."""
    name = "products" if kind in MAC_KINDS else "views" if kind in _VIEWS else "others"
    return PARTS.index(f"launching {name}")


@dataclass(frozen=True, eq=False)
class BasePrices:
    """The kernels of many networks on a known device, in microseconds.

    A kernel takes launch + max(compute, memory), each times the factor of its part; compute + memory where the device
    has no price for it and bounds it from above.

    Attributes:
        device: The device, at one of the thread counts it is described for, with rates where it lacked them.
        model: What it was calibrated to; None for a roofline.
        network: (kernels,) the network that each belongs to.
        part: (kernels,) the part its arithmetic belongs to, a position in ``PARTS``.
        launched: (kernels,) the part its launch belongs to.
        launch: (kernels,)
        compute: (kernels,)
        memory: (kernels,)
        inference_us: Of one inference apart from its kernels.
        networks: How many there are.
        lacking: What the device itself has no price for, or none in the format: in how many kernels, by kind and
            format.
    """

    device: Device
    model: LatencyModel | None
    network: Integers
    part: Integers
    launched: Integers
    launch: Floats
    compute: Floats
    memory: Floats
    inference_us: float
    networks: int
    lacking: Mapping[str, int]

    @classmethod
    def of(cls, device: Device, table: SampleTable, threads: int) -> BasePrices:
        """What ``device`` would take for the networks in ``table``.

        Args:
            device: A known device.
            table: Networks.
            threads: Of an inference; a device that does not say how it scales is taken at its own.
        """
        described, model = at_threads(device, threads)
        base = with_guessed_rates(described)
        workload = table.workload
        roofline = _roofline_parts(base, table)
        launch, compute, memory, priced = roofline.launch, roofline.compute, roofline.memory, roofline.priced
        executed = [
            base.executed(KERNEL_KINDS[kind], FORMATS[format_])
            for kind, format_ in zip(workload.kind, workload.format, strict=True)
        ]
        if model is not None:
            lowest, predicted, known = _measured_parts(model, table)
            launch, compute = np.where(known, lowest, launch), np.where(known, predicted - lowest, compute)
            memory, priced = np.where(known, 0.0, memory), priced | known
            own = [FORMATS[format_] for format_ in workload.format]
            executed = [mine if of_model else other for mine, other, of_model in zip(own, executed, known, strict=True)]
        groups = [group_of(KERNEL_KINDS[kind], name) for kind, name in zip(workload.kind, executed, strict=True)]
        return cls(
            device=base,
            model=model,
            network=table.network,
            part=np.where(priced, np.array(groups, np.int64), UNPRICED),
            launched=np.array([launch_of(KERNEL_KINDS[kind]) for kind in workload.kind], np.int64),
            launch=launch,
            compute=compute,
            memory=memory,
            inference_us=model.network_floor_us if model is not None else base.network_floor_us,
            networks=len(table.total_us),
            lacking=_lacking(described, table, model),
        )

    def shares(self, factors: Floats) -> Floats:
        """(networks, parts): microseconds of each network that each part takes, under factors of the parts."""
        compute, memory = factors[self.part] * self.compute, factors[BANDWIDTH] * self.memory
        both = self.part == UNPRICED
        found = np.zeros((self.networks, len(PARTS)))
        np.add.at(found, (self.network, self.part), np.where(both | (compute >= memory), compute, 0.0))
        found[:, BANDWIDTH] += self._sum(np.where(both | (memory > compute), memory, 0.0))
        np.add.at(found, (self.network, self.launched), factors[self.launched] * self.launch)
        found[:, INFERENCE] += factors[INFERENCE] * self.inference_us
        return found

    def total_us(self, factors: Floats) -> Floats:
        """(networks,) microseconds."""
        total: Floats = self.shares(factors).sum(1)
        return total

    def _sum(self, kernels: Floats) -> Floats:
        return np.asarray(np.bincount(self.network, kernels, self.networks), np.float64)

    def some(self, chosen: Bools) -> BasePrices:
        """Of some of the networks alone."""
        place = np.cumsum(chosen) - 1
        rows = chosen[self.network]
        arrays = {name: getattr(self, name)[rows] for name in ("part", "launched", "launch", "compute", "memory")}
        return BasePrices(
            device=self.device,
            model=self.model,
            network=place[self.network[rows]],
            inference_us=self.inference_us,
            networks=int(chosen.sum()),
            lacking=self.lacking,
            **arrays,
        )


def at_threads(device: Device, threads: int) -> tuple[Device, LatencyModel | None]:
    """The device at ``threads``, or at the nearest count it is described for, and the model it was calibrated to."""
    if device.calibration is None:
        try:
            return device.at_threads(threads), None
        except DeviceError:  # it does not say how it scales
            return device, None
    count = device.calibration.nearest_count(threads)
    model = device.calibration.model(count)
    return device.at_threads(count), model if isinstance(model, LatencyModel) else None


# --- parts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Parts:
    launch: Floats
    compute: Floats
    memory: Floats
    priced: Bools


def _roofline_parts(device: Device, table: SampleTable) -> _Parts:
    """What is left of a price when everything else takes no time."""
    no_floor: dict[str, Any] = {"floor_us": {DEFAULT: 0.0}}
    fast = {"bandwidth_gb_s": _ENDLESS, "caches": ()}
    able = {
        "rates": _times(device.rates, _ENDLESS),
        "element_rates": _times(device.element_rates, _ENDLESS),
        "unpacking": {name: rate * _ENDLESS for name, rate in device.unpacking.items()},
        "scalar_rate": device.scalar_rate * _ENDLESS,
    }

    def price(update: Mapping[str, Any]) -> Floats:
        seconds = Roofline.of(device.model_copy(update=update)).price(table.workload).seconds
        return np.asarray(seconds * 1e6, np.float64)

    return _Parts(
        launch=price({**fast, **able}),
        compute=price({**no_floor, **fast}),
        memory=price({**no_floor, **able}),
        priced=Roofline.of(device).price(table.workload).priced,
    )


def _measured_parts(model: LatencyModel, table: SampleTable) -> tuple[Floats, Floats, Bools]:
    """(kernels,) the least a kernel of its variant takes, what the kernel takes, and whether the model knows it."""
    predicted, known = model.predict(table.workload)
    names = variants(table.workload)
    lowest = np.array([model.variants[name].lowest_us if name in model.variants else 0.0 for name in names])
    return np.minimum(lowest, predicted), predicted, known


def _lacking(device: Device, table: SampleTable, model: LatencyModel | None) -> dict[str, int]:
    priced = Roofline.of(device).price(table.workload).priced
    known = model.predict(table.workload)[1] if model is not None else np.zeros(len(priced), bool)
    found: Counter[str] = Counter()
    for row in np.flatnonzero(~known):
        kind, format_ = KERNEL_KINDS[table.workload.kind[row]], FORMATS[table.workload.format[row]]
        widened = format_ == "int8" and device.executed(kind, format_) == "fp32"
        if widened or not priced[row]:
            found[f"{kind} {format_}"] += 1
    return dict(found)


def with_guessed_rates(device: Device) -> Device:
    """The device with a rate for every product and format: where it has none, that of the most similar kind."""
    rates: dict[str, dict[Any, float]] = {kind: dict(table) for kind, table in device.rates.items()}
    for kind, similar in _SIMILAR.items():
        own = rates.setdefault(kind, dict(device.rates.get(DEFAULT, {})))
        for format_ in FORMATS:
            if format_ not in own and device.executes(kind, format_):
                tables = [device.rates.get(other, {}) for other in similar]
                found = [table[format_] for table in tables if format_ in table]
                found += [own["fp32"]] if "fp32" in own else []
                if found:
                    own[format_] = found[0]
    return device.model_copy(update={"rates": {kind: table for kind, table in rates.items() if table}})


def _times(rates: Rates, gain: float) -> dict[str, dict[str, float]]:
    return {kind: {name: rate * gain for name, rate in table.items()} for kind, table in rates.items()}
