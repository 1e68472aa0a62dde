"""Metrics of networks with several outputs: of one of them, or of all together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kneepoint.tasks.batches import pick
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import FunctionOfSums, Metric, MetricFunction, of_samples
from kneepoint.tasks.metric_making import as_metric

Key = str | int


def of_output(
    output: Key, metric: Metric | MetricFunction, *, target: Key | None = None, name: str | None = None
) -> Metric:
    """A metric of one of several outputs and its target.

    Args:
        output: The output's key, or its position in a tuple.
        metric: What judges it; keeps its standard error, and is raced if it is a mean over samples.
        target: Of the targets; by default the same as ``output``. Targets that are one tensor are taken as they are.
        name: By default the key and the metric's name: ``digit_accuracy``; the metric's name alone for a position.

    Raises:
        TaskError: When it is called: there is no such output or target.
    """
    inner = as_metric(metric)
    where = _Where(output, output if target is None else target)
    function: MetricFunction = _Picked(where, inner.function)
    if isinstance(inner.function, FunctionOfSums):
        function = FunctionOfSums(_Picked(where, inner.function.sums), inner.function.value)
    return Metric(
        function,
        name or (f"{output}_{inner.name}" if isinstance(output, str) else inner.name),
        inner.direction,
        inner.unit,
        None if inner.per_sample is None else _Picked(where, inner.per_sample),
        inner.ideal,
        _Picked(where, inner.error) if callable(inner.error) else inner.error,
    )


def mean_of_outputs(metrics: Mapping[Key, Metric], name: str, weights: Mapping[Key, float] | None = None) -> Metric:
    """The weighted mean of metrics of several outputs: one number to search by where no head may be given up.

    Args:
        metrics: By output; each a mean over samples, all of one direction.
        name: Of the new metric.
        weights: By output; by default all alike. They are divided by their sum.

    Raises:
        TaskError: A metric is no mean over samples, directions differ, or weights name other outputs or are not
            positive.
    """
    given = dict.fromkeys(metrics, 1.0) if weights is None else dict(weights)
    directions = {metric.direction for metric in metrics.values()}
    if given.keys() != metrics.keys() or not all(weight > 0 for weight in given.values()) or not given:
        raise TaskError(f"weights must be positive, one for each of {list(metrics)}, got {given}")
    if len(directions) > 1:
        raise TaskError(f"metrics that are averaged must have one direction, got {sorted(directions)}")
    parts, total = [], sum(given.values())
    for output, metric in metrics.items():
        if metric.per_sample is None:
            raise TaskError(
                f"metrics that are averaged must be means over samples, '{metric.name}' is none: make it an objective "
                "of its own, kneepoint.Accuracy(metric=...)"
            )
        parts.append((given[output] / total, _Picked(_Where(output, output), metric.per_sample)))
    ideals = [metric.ideal for metric in metrics.values()]
    shares = [share for share, _ in parts]
    ideal = _weighted(shares, [one for one in ideals if one is not None]) if None not in ideals else None
    return of_samples(_WeightedSamples(tuple(parts)), name, directions.pop(), ideal)


def _weighted(shares: list[float], values: list[float]) -> float:
    return sum(share * value for share, value in zip(shares, values, strict=True))


@dataclass(frozen=True)
class _Where:
    output: Key
    target: Key

    def pick(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        chosen = targets if isinstance(targets, Tensor) else pick(targets, self.target, "target")
        return pick(outputs, self.output, "output"), chosen


@dataclass(frozen=True)
class _Picked:
    """A function of one output and its target, as one of all; an object so that it pickles."""

    where: _Where
    function: Callable[[Any, Any], Any]

    def __call__(self, outputs: Any, targets: Any) -> Any:
        return self.function(*self.where.pick(outputs, targets))


@dataclass(frozen=True)
class _WeightedSamples:
    parts: tuple[tuple[float, _Picked], ...]

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        values = [share * function(outputs, targets).double() for share, function in self.parts]
        total: Tensor = sum(values[1:], start=values[0])
        return total
