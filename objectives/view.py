"""What an objective sees of a candidate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kneepoint.hardware_models.cost_model import Cost, CostModel
from kneepoint.hardware_models.devices import Device
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.workload import Workload
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.task import Task


@dataclass
class View:
    """A candidate as objectives see it; what several of them ask for is computed once.

    Attributes:
        task: The problem.
        policy: What the candidate is.
        network: The traced structure the policy refers to.
        outputs: All outputs on the validation data; tensor, tuple or dict of tensors.
        targets: All targets, in the same order.
    """

    task: Task
    policy: Policy
    network: Network
    outputs: Any
    targets: Any
    _table: OperatorTable | None = field(default=None, repr=False)
    _costs: dict[str, Cost] = field(default_factory=dict, repr=False)

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
            self._costs[device.digest] = CostModel(device).cost(self.workload(device))
        return self._costs[device.digest]
