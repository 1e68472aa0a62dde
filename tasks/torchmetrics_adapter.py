"""A metric object of torchmetrics as a function of outputs and targets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from torch import Tensor

from kneepoint.tasks.batches import main_output
from kneepoint.tasks.class_axis import class_axis
from kneepoint.tasks.errors import TaskError

if TYPE_CHECKING:
    import torchmetrics

_PACKAGE = "torchmetrics"
_CLASSES_ON_AXIS_1 = ("torchmetrics.classification", "torchmetrics.segmentation")


class TorchMetric:
    """``f(outputs, targets) -> float`` by a metric of torchmetrics; picklable as the metric is.

    Attributes:
        name: The class's name in the manner of functions.
        direction: As the metric's ``higher_is_better`` says; None where it does not.
    """

    def __init__(self, metric: torchmetrics.Metric, prepare: Callable[[Any, Any], tuple[Any, ...]] | None) -> None:
        _require_metric(metric)
        self._metric = metric
        self._prepare = prepare
        self.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
        self.direction: Literal["maximize", "minimize"] | None = (
            None if metric.higher_is_better is None else "maximize" if metric.higher_is_better else "minimize"
        )

    def bound(self, direction: Literal["maximize", "minimize"]) -> float | None:
        """The best value in that direction, as the metric states it for plots; None where it states none."""
        return self._metric.plot_upper_bound if direction == "maximize" else self._metric.plot_lower_bound

    def __call__(self, outputs: Any, targets: Any) -> float:
        """The metric of all samples, its state left as new.

        Raises:
            TaskError: It computes something else than one number.
        """
        arguments = self._arguments(outputs, targets) if self._prepare is None else self._prepare(outputs, targets)
        self._metric.reset()
        try:
            self._metric.update(*arguments)
            value = self._metric.compute()
        finally:
            self._metric.reset()
        if isinstance(value, Tensor) and value.numel() == 1:
            return float(value)
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TaskError(
            f"a metric of torchmetrics must compute one number, {type(self._metric).__name__} gives {got}: "
            "set its average, or write a function that picks one"
        )

    def _arguments(self, outputs: Any, targets: Any) -> tuple[Any, ...]:
        logits = main_output(outputs)
        wants_axis_1 = type(self._metric).__module__.startswith(_CLASSES_ON_AXIS_1)
        return (logits.movedim(-1, 1) if wants_axis_1 and class_axis(logits, targets) == -1 else logits), targets


def is_of_torchmetrics(function: Any) -> TypeGuard[torchmetrics.Metric]:
    """Whether it is a metric of torchmetrics, or of a class derived from one; torchmetrics is not imported for that."""
    return any(
        kind.__name__ == "Metric" and kind.__module__.partition(".")[0] == _PACKAGE for kind in type(function).__mro__
    )


def _require_metric(metric: Any) -> None:
    try:
        from torchmetrics import Metric  # takes seconds to import, and is an extra
    except ImportError as error:
        raise TaskError(
            "from_torchmetrics needs the package torchmetrics, which is not installed: pip install "
            "kneepoint[torchmetrics]"
        ) from error
    if not isinstance(metric, Metric):
        raise TaskError(f"from_torchmetrics takes a torchmetrics.Metric, got {type(metric).__name__}")
