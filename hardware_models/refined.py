"""A refined roofline: kernels of a class take a launch, and their work at the rate of the class.

    seconds = launch + (operations + a read + b written + c weights) / rate

``kneepoint.hardware_models.kernel_classes`` says what the classes and the parts of the work are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.kernel_classes import CONVOLUTION, KERNEL_CLASSES, WINOGRAD, class_codes, work
from kneepoint.hardware_models.kernels import FORMATS, KERNEL_KINDS
from kneepoint.hardware_models.operators import FP32_BYTES
from kneepoint.hardware_models.workload import KIND_CODES, Workload

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Refined:
    """The refined rates of a device as arrays, by position in ``FORMATS`` and in ``KERNEL_CLASSES``.

    Attributes:
        executed: (kinds, formats) int64, the format that a kernel computes in; -1 where the device has none for it.
        costs: (formats, classes, 4) seconds of an operation, an element read, written, and of a weight; NaN if unknown.
        launch: (formats,) seconds.
    """

    executed: NDArray[np.int64]
    costs: Floats
    launch: Floats

    @classmethod
    def of(cls, device: Device) -> Refined | None:
        """Those of ``device``; None if it has no refined rates."""
        if not device.refined:
            return None
        costs = np.full((len(FORMATS), len(KERNEL_CLASSES), 4), np.nan)
        launch = np.zeros(len(FORMATS))
        for name, rates in device.refined.items():
            row = FORMATS.index(name)
            launch[row] = rates.launch_us / 1e6
            for class_, entry in rates.classes.items():
                parts = np.array([1.0, entry.input, entry.output, entry.weight])
                costs[row, KERNEL_CLASSES.index(class_)] = parts / (entry.rate * 1e9)
        return cls(_executed(device), costs, launch)

    def seconds(self, rows: Workload) -> tuple[Floats, NDArray[np.bool_]]:
        """(kernels,): what each takes, and whether its class has a rate in the format it computes in.

        A view costs its launch.
        """
        formats = self.executed[rows.kind, rows.format]
        codes = self._classes(rows, np.maximum(formats, 0))
        views = rows.kind == KIND_CODES["view"]
        known = (formats >= 0) & (codes >= 0)
        costs = self.costs[np.where(known, formats, 0), np.where(known, codes, 0)]
        known &= np.isfinite(costs[:, 0])
        seconds = self.launch[np.maximum(formats, 0)] + np.where(known, (work(rows, codes) * costs).sum(1), 0.0)
        return seconds, known | (views & (formats >= 0))

    def _classes(self, rows: Workload, formats: NDArray[np.int64]) -> NDArray[np.int64]:
        """(kernels,): a runtime without fast algorithms multiplies matrices for every convolution."""
        codes = class_codes(rows)
        plain = (codes == WINOGRAD) & np.isnan(self.costs[formats, WINOGRAD, 0])
        return np.where(plain, CONVOLUTION, codes)


def _executed(device: Device) -> NDArray[np.int64]:
    def position(kind: str, name: str) -> int:
        executed = device.executed(kind, name)  # type: ignore[arg-type]  # a name of FORMATS
        return FORMATS.index(executed) if executed in device.refined else -1

    return np.array([[position(kind, name) for name in FORMATS] for kind in KERNEL_KINDS], np.int64)


_FP32 = FORMATS.index("fp32")


def float_width(device: Device, rows: Workload) -> Floats:
    """(kernels,): what the bytes of a kernel are multiplied by, as the device holds its floats."""
    return np.where(rows.format == _FP32, device.float_bytes / FP32_BYTES, 1.0)


def streamed_seconds(device: Device, weight_bytes: Floats) -> Floats:
    """What reading the weights of networks takes that the accelerator has no room for, once an inference.

    Args:
        device: With or without a memory for weights of its own.
        weight_bytes: (networks,) of all their kernels.
    """
    memory = device.on_chip_weights
    if memory is None:
        return np.zeros_like(weight_bytes)
    return np.maximum(weight_bytes - memory.mb * 1e6, 0.0) / (memory.stream_gb_s * 1e9)
