"""What an objective sees of a candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kneepoint.hardware_models.cost import Cost
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.workload import Workload
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import ObjectiveError
from kneepoint.tasks.task import Task

_REMEMBERED = 16
"""Devices whose prices are kept ready."""
_known: dict[str, CostModel] = {}


@dataclass
class View:
    """A candidate as objectives see it; what several of them ask for is computed once.

    Attributes:
        task: The problem.
        policy: What the candidate is.
        network: The traced structure the policy refers to.
        outputs: All outputs on the validation data; tensor, tuple or dict of tensors.
        targets: All targets, in the same order.
        write: Makes the serialized artifact; None where nothing can be exported.
    """

    task: Task
    policy: Policy
    network: Network
    outputs: Any
    targets: Any
    write: Callable[[], bytes] | None = None
    _table: OperatorTable | None = field(default=None, repr=False)
    _costs: dict[str, Cost] = field(default_factory=dict, repr=False)

    @cached_property
    def artifact(self) -> bytes:
        """The candidate as it would be deployed: a serialized ONNX model.

        Raises:
            ObjectiveError: If the view was made without a way to write it.
            JobFailed: If torch.onnx cannot write an operator of the network.
        """
        if self.write is None:
            raise ObjectiveError("a view needs a way to write the artifact; this one has none: View(..., write=...)")
        return self.write()

    @property
    def table(self) -> OperatorTable:
        """The operators of the candidate, for one sample."""
        if self._table is None:
            self._table = lower(self.network, self.policy)
        return self._table

    def workload(self, device: Device) -> Workload:
        """The kernels that ``device``'s runtime executes."""
        return Workload.of(self.table, device.fusion)

    def cost(self, device: Device) -> Cost:
        """What the candidate costs on ``device``, with a breakdown by kernel."""
        if device.digest not in self._costs:
            self._costs[device.digest] = model_of(device).cost(self.workload(device))
        return self._costs[device.digest]

    def misfits(self, devices: Iterable[Device]) -> dict[str, float]:
        """The devices that the candidate does not fit, each with what is missing, as a share of what there is."""
        found = {device.name: self.cost(device).misfits for device in devices}
        return {name: max(one.excess for one in exceeded) for name, exceeded in found.items() if exceeded}


def model_of(device: Device) -> CostModel:
    """The cost model of ``device``, which remembers the kernels it has priced for other candidates."""
    if device.digest not in _known:
        if len(_known) >= _REMEMBERED:
            _known.pop(next(iter(_known)))
        _known[device.digest] = CostModel(device)
    return _known[device.digest]
