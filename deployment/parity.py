"""The gate every artifact passes: the runtime must reach the score that was simulated, with the same outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kneepoint.deployment import runtime
from kneepoint.tasks.batches import as_pair, concatenate, leaves, transform
from kneepoint.tasks.class_axis import class_axis
from kneepoint.tasks.errors import ParityError, TaskError
from kneepoint.tasks.metrics import Score
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import ORDER_SEED, seeded
from kneepoint.tasks.task import Split, Task

TOLERANCE = 0.005
"""Half a point of accuracy; for metrics beyond 1, the same share of the simulated value."""
LARGEST_DEVIATION = 0.1
"""Of the outputs. Values that fall between two integers may be rounded either way, which stays well below this;
a wrong scale or a saturating kernel does not, whatever the metric makes of it."""


@dataclass(frozen=True)
class Parity:
    """Simulated against executed.

    Attributes:
        simulated: The score of the simulator.
        executed: The score of ONNX Runtime on the same samples.
        agreement: Share of samples with the same prediction; None where outputs are not class scores.
        tolerance: The largest difference of the scores that passes.
        deviation: Root mean square of executed minus simulated outputs, over that of the simulated ones.
    """

    simulated: Score
    executed: Score
    agreement: float | None
    tolerance: float
    deviation: float = 0.0

    @property
    def difference(self) -> float:
        """Executed minus simulated."""
        return self.executed.value - self.simulated.value

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance, and the outputs are the same but for rounding."""
        return abs(self.difference) <= self.tolerance and self.deviation <= LARGEST_DEVIATION

    def require(self, name: str) -> None:
        """Refuse the artifact ``name`` if it did not pass.

        Raises:
            ParityError: With both scores.
        """
        if not self.passed:
            raise ParityError(
                f"{name}: the runtime must reach the simulated score within {self.tolerance:.4g} and the simulated "
                f"outputs within {LARGEST_DEVIATION:.0%}; simulated {self.simulated.value:.4f}, ONNX Runtime "
                f"{self.executed.value:.4f}, outputs off by {self.deviation:.2%}; the artifact is not to be trusted"
            )


def compare(model: bytes, task: Task, module: nn.Module, split: Split = "validation") -> Parity:
    """Run ``model`` and its simulator side by side, each on every batch of a split.

    Args:
        model: The serialized artifact.
        task: Gives data and metric.
        module: The simulator.
        split: Which data.

    Raises:
        JobFailed: If the model's inputs or outputs do not match the simulator's.
    """
    simulated, executed, targets = _run_both(runtime.open_session(model), task, module, split)
    expected = task.metric.score(simulated, targets)
    return Parity(
        simulated=expected,
        executed=task.metric.score(executed, targets),
        agreement=_agreement(simulated, executed, targets),
        tolerance=TOLERANCE * max(1.0, abs(expected.value)),
        deviation=max(map(deviation, leaves(simulated), leaves(executed))),
    )


def _run_both(session: Any, task: Task, module: nn.Module, split: Split) -> tuple[Any, Any, Any]:
    """Simulated outputs, executed outputs and targets; one pass, so that a loader cannot hand out other samples."""
    simulated, executed, targets = [], [], []
    with seeded(ORDER_SEED), module_mode(module, training=False):
        for batch in task.loader(split):
            inputs, target = as_pair(batch, split)
            with torch.inference_mode():  # not around the loader: what it keeps would become unfit for training
                simulated.append(transform(Tensor.cpu, task.call(module, inputs)))
            executed.append(runtime.answer(session, inputs, simulated[-1]))
            targets.append(transform(Tensor.cpu, target))
    if not simulated:
        raise TaskError(f"{split}: the loader gave no batches: it must be re-iterable and not empty")
    return concatenate(simulated), concatenate(executed), concatenate(targets)


def deviation(simulated: Tensor, executed: Tensor) -> float:
    """Root mean square of executed minus simulated outputs, over that of the simulated ones."""
    if not simulated.is_floating_point():
        return 0.0
    first, second = simulated.double(), executed.double()
    unequal = first != second  # leaves out infinities that both have
    difference = (second - first)[unequal].square().sum()
    size = first[first.isfinite()].square().sum()
    return float((difference / size).sqrt()) if bool(unequal.any()) else 0.0


def _agreement(simulated: Any, executed: Any, targets: Any) -> float | None:
    first, second = leaves(simulated)[0], leaves(executed)[0]
    axis = class_axis(first, targets)
    return None if axis is None else float((first.argmax(axis) == second.argmax(axis)).to(torch.float32).mean())
