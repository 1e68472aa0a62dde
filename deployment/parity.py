"""The gate every artifact passes: the runtime must reach the score that was simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kneepoint.deployment import runtime
from kneepoint.tasks.batches import leaves
from kneepoint.tasks.errors import ParityError
from kneepoint.tasks.metrics import Score
from kneepoint.tasks.task import Split, Task

TOLERANCE = 0.005
"""Half a point of accuracy; for metrics beyond 1, the same share of the simulated value."""


@dataclass(frozen=True)
class Parity:
    """Simulated against executed.

    Attributes:
        simulated: The score of the simulator.
        executed: The score of ONNX Runtime on the same samples.
        agreement: Share of samples with the same prediction; None where outputs are not class scores.
        tolerance: The largest difference of the scores that passes.
    """

    simulated: Score
    executed: Score
    agreement: float | None
    tolerance: float

    @property
    def difference(self) -> float:
        """Executed minus simulated."""
        return self.executed.value - self.simulated.value

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return abs(self.difference) <= self.tolerance

    def require(self, name: str) -> None:
        """Refuse the artifact ``name`` if it did not pass.

        Raises:
            ParityError: With both scores.
        """
        if not self.passed:
            raise ParityError(
                f"{name}: the runtime must reach the simulated score within {self.tolerance:.4g}; simulated "
                f"{self.simulated.value:.4f}, ONNX Runtime {self.executed.value:.4f}; the artifact is not to be trusted"
            )


def compare(model: bytes, task: Task, simulated: tuple[Any, Any], split: Split = "validation") -> Parity:
    """Run ``model`` on a split and set it beside the simulator.

    Args:
        model: The serialized artifact.
        task: Gives data and metric.
        simulated: The simulator's outputs and targets on the same split.
        split: Which data.
    """
    outputs, targets = simulated
    expected = task.metric.score(outputs, targets)
    answered, _ = runtime.predict(runtime.open_session(model), task, split)
    executed = task.metric.score(answered, targets)
    tolerance = TOLERANCE * max(1.0, abs(expected.value))
    return Parity(expected, executed, _agreement(outputs, answered, targets), tolerance)


def _agreement(simulated: Any, executed: Any, targets: Any) -> float | None:
    first, second = leaves(simulated)[0], leaves(executed)[0]
    if not isinstance(targets, Tensor) or targets.is_floating_point() or first.dim() < 2:
        return None
    return float((first.argmax(dim=1) == second.argmax(dim=1)).to(torch.float32).mean())
