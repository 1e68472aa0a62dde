"""What a candidate costs: on a device, as its device file prices it, or anywhere."""

from __future__ import annotations

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.devices import load_device
from kneepoint.objectives.objective import Objective
from kneepoint.objectives.view import View
from kneepoint.tasks.errors import ObjectiveError
from kneepoint.tasks.metrics import Score


class OnDevice(Objective):
    """A cost that depends on the device.

    Args:
        device: A name that ``kneepoint devices list`` shows, the path of a device file, or a device.

    Raises:
        DeviceError: If there is no such device.
    """

    prefix = ""
    predicted = True

    def __init__(self, device: str | Device) -> None:
        self.hardware = device if isinstance(device, Device) else load_device(device)
        self.device = self.hardware.name
        self.name = f"{self.prefix}@{self.device}"


class Latency(OnDevice):
    """Predicted milliseconds of one inference at batch 1, with the cost model's standard error."""

    prefix = "latency_ms"
    unit = "ms"

    def score(self, view: View) -> Score:
        """The predicted latency."""
        cost = view.cost(self.hardware)
        return Score(cost.latency_ms, cost.latency_ms_error)


class Energy(OnDevice):
    """Predicted millijoules of one inference."""

    prefix = "energy_mj"
    unit = "mJ"

    def __init__(self, device: str | Device) -> None:
        super().__init__(device)
        if self.hardware.power is None:
            raise ObjectiveError(f"device {self.device!r} states no power, so it has no energy; choose Latency instead")

    def score(self, view: View) -> Score:
        """Power times latency, with the relative errors of both."""
        cost = view.cost(self.hardware)
        if cost.energy_mj is None or cost.energy_mj_error is None:
            raise ObjectiveError(f"device {self.device!r} states no power, so it has no energy; choose Latency instead")
        return Score(cost.energy_mj, cost.energy_mj_error)


class PeakMemory(OnDevice):
    """Predicted megabytes (10^6) of weights and live activations at their peak."""

    prefix = "peak_memory_mb"
    unit = "MB"

    def score(self, view: View) -> Score:
        """The predicted peak."""
        return Score(view.cost(self.hardware).peak_memory_bytes / 1e6)


class Size(Objective):
    """Megabytes (10^6) of the artifact's constants: packed weights, biases, scales and norms.

    The graph itself, a few kilobytes that hardly differ between candidates, is not counted.
    """

    name = "size_mb"
    unit = "MB"
    predicted = True

    def score(self, view: View) -> Score:
        """The stored size."""
        return Score((view.table.storage_bytes + view.table.unattached_bytes) / 1e6)


class Parameters(Objective):
    """The number of deployed parameters."""

    name = "parameters"
    predicted = True

    def score(self, view: View) -> Score:
        """Elements of weights, biases and remaining norms."""
        return Score(float(view.table.parameters))


class MACs(Objective):
    """Multiply-accumulate operations of one inference."""

    name = "macs"
    predicted = True

    def score(self, view: View) -> Score:
        """Of all convolutions, linear layers and matrix products."""
        return Score(float(view.table.macs))
