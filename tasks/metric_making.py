"""Metrics of what others wrote: bare functions, and the metrics of torchmetrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import Direction, ErrorFunction, Metric, MetricFunction, Resampling
from kneepoint.tasks.torchmetrics_adapter import TorchMetric, is_of_torchmetrics

if TYPE_CHECKING:
    import torchmetrics


def as_metric(function: Metric | MetricFunction, name: str | None = None, direction: Direction | None = None) -> Metric:
    """A metric from a bare function.

    Args:
        function: A metric, returned with ``name`` and ``direction`` replaced where given, or ``f(outputs, targets)``.
        name: The metric's name; by default the function's ``__name__``.
        direction: By default the function's attribute ``direction``, else "maximize". The attributes ``unit``,
            ``per_sample``, ``ideal`` and ``error`` are read in the same way.

    A metric of torchmetrics is adapted by :func:`from_torchmetrics`.

    Raises:
        TaskError: It cannot be called, has no name of its own and got none, or its direction is unknown.
    """
    if not callable(function):
        raise TaskError(f"a metric must be a function of (outputs, targets), got {type(function).__name__}")
    if is_of_torchmetrics(function):
        return from_torchmetrics(function, name, direction)
    name = name or str(getattr(function, "name", None) or getattr(function, "__name__", "<unnamed>"))
    if name.startswith("<"):
        raise TaskError(f"a metric needs a name, got {name}: use as_metric(function, name=...) or a named function")
    own_direction: Direction = getattr(function, "direction", "maximize")
    return Metric(
        function=function.function if isinstance(function, Metric) else function,
        name=name,
        direction=direction or own_direction,
        unit=getattr(function, "unit", ""),
        per_sample=getattr(function, "per_sample", None),
        ideal=getattr(function, "ideal", None),
        error=getattr(function, "error", None),
    )


def from_torchmetrics(
    metric: torchmetrics.Metric,
    name: str | None = None,
    direction: Direction | None = None,
    *,
    ideal: float | None = None,
    error: ErrorFunction | Resampling | None = "jackknife",
    prepare: Callable[[Any, Any], tuple[Any, ...]] | None = None,
) -> Metric:
    """A metric of torchmetrics, which is the extra ``torchmetrics``; it sees all samples of a split at once.

    Args:
        metric: Computes one number, as ``torchmetrics.classification.MulticlassF1Score(num_classes=10)`` does.
        name: By default the class's name in the manner of functions: ``multiclass_f1_score``.
        direction: By default as the metric's ``higher_is_better`` says.
        ideal: By default the metric's bound on its better side, as it states it for plots.
        error: As in :class:`kneepoint.tasks.metric.Metric`.
        prepare: Maps outputs and targets to the arguments of the metric's ``update``. By default the main output (the
            only one, or the one named ``logits``) and the targets; classes of tokens' logits (N, T, C) move to axis 1
            for metrics of classification and segmentation, which want them there.

    Raises:
        TaskError: torchmetrics is not installed, it is no metric of it, or nobody says whether higher is better.
    """
    adapted = TorchMetric(metric, prepare)
    known = direction or adapted.direction
    if known is None:
        raise TaskError(
            f"{type(metric).__name__} of torchmetrics does not say whether higher is better: "
            "from_torchmetrics(metric, direction='maximize') or 'minimize'"
        )
    bound = adapted.bound(known) if ideal is None else ideal
    return Metric(adapted, name or adapted.name, known, ideal=bound, error=error)
