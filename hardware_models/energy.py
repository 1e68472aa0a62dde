"""Energy is power times time: watts of the whole device while it runs, idle apart.

Per-operation tables of picojoules are off by orders for whole systems; the power of one runtime in one precision and
power mode hardly depends on the network, and time does (1.4 to 5 % of mean error on a Raspberry Pi 4B).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.kernels import FORMATS
from kneepoint.hardware_models.workload import Workload


def kernel_watts(device: Device, kind: str, format_code: int) -> float:
    """Watts while a kernel runs, by the format it really computes in.

    Raises:
        ValueError: If the power of the device is unknown.
    """
    if device.power is None:
        raise ValueError(f"the power of {device.name!r} is unknown")
    executed = device.executed(kind, FORMATS[int(format_code)])
    return device.power.by_format.get(executed, device.power.active_w)


def watts(device: Device, rows: Workload) -> NDArray[np.float64]:
    """(kernels,): watts while each kernel runs; 0 where the power of the device is unknown."""
    if device.power is None:
        return np.zeros(len(rows))
    if not device.power.by_format:
        return np.full(len(rows), device.power.active_w)
    return np.array([kernel_watts(device, kind, code) for kind, code in zip(rows.kinds, rows.format, strict=True)])
