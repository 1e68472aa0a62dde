"""What a network is judged by: scores with their standard errors, and named metrics that give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from kneepoint.tasks import standard_errors
from kneepoint.tasks.errors import TaskError

Direction = Literal["maximize", "minimize"]
MetricFunction = Callable[[Any, Any], Any]
"""``f(outputs, targets) -> float`` over all samples of a split at once."""
ErrorFunction = Callable[[Any, Any], "float | None"]
"""``f(outputs, targets) -> one standard error`` of the metric on these samples, None where it is unknown."""
Resampling = Literal["jackknife", "bootstrap"]


@dataclass(frozen=True)
class Score:
    """A measured value and, where it is known, one standard error of it.

    Attributes:
        value: The value, in the unit of what was measured.
        error: One standard error in the same unit; None where it is unknown.
    """

    value: float
    error: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """The score as it stands in a run directory: ``{"value": float, "error": float or null}``."""
        return {"value": self.value, "error": self.error}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Score:
        """The inverse of ``to_json``; a missing ``error`` reads as unknown."""
        error = data.get("error")
        return cls(float(data["value"]), None if error is None else float(error))


@dataclass(frozen=True)
class Metric:
    """A named, directed ``f(outputs, targets) -> float``.

    Attributes:
        function: Maps all outputs of a split and all its targets to one number.
        name: The name of the objective made of it.
        direction: "maximize" where a larger value is better, else "minimize".
        unit: The unit of the value; empty for a pure number.
        per_sample: Maps outputs and targets to a tensor of shape (samples,) whose mean is the metric. A metric that
            declares it gets a standard error and can be estimated from a part of the samples, so that candidates are
            raced. A perplexity, an F1 or an IoU over all samples is no such mean.
        ideal: The best conceivable value; None where there is no such bound.
        error: How one standard error is found where there is no ``per_sample``: ``jackknife`` (20 evaluations of the
            function), ``bootstrap`` (100), a function of (outputs, targets), or None for none. A metric of
            :func:`of_sums` needs none: the delta method gives it.
    """

    function: MetricFunction
    name: str
    direction: Direction = "maximize"
    unit: str = ""
    per_sample: Callable[[Any, Any], Tensor] | None = None
    ideal: float | None = None
    error: ErrorFunction | Resampling | None = None

    def __post_init__(self) -> None:
        if not (self.error is None or callable(self.error) or self.error in _RESAMPLINGS):
            raise TaskError(
                f"a metric's error is one of {', '.join(map(repr, _RESAMPLINGS))}, a function or None; metric "
                f"'{self.name}' has {self.error!r}"
            )
        if self.direction not in ("maximize", "minimize"):
            raise TaskError(
                f"a metric's direction must be 'maximize' or 'minimize', metric '{self.name}' has {self.direction!r}"
            )

    def __call__(self, outputs: Any, targets: Any) -> float:
        """The value of the metric alone, NaN and infinity passed through."""
        return float(self.function(outputs, targets))

    def score(self, outputs: Any, targets: Any) -> Score:
        """The value with its standard error, None where the metric has no way to find it.

        Args:
            outputs: A tensor, tuple or dict of tensors with the samples along dimension 0.
            targets: The same, of the same number of samples.

        Returns:
            Of a metric with ``per_sample`` the mean of its values and its standard error: ``sqrt(p (1 - p) / n)`` for
            values that are all 0 or 1, the sample standard deviation over ``sqrt(n)`` otherwise. Of any other metric
            the value, with the error that :mod:`kneepoint.tasks.standard_errors` gives by the metric's ``error``. The
            error is None for a single sample.

        Raises:
            TaskError: ``per_sample`` gives anything but one value a sample.
        """
        if self.per_sample is None:
            return self._score_of_all(outputs, targets)
        values = self.per_sample(outputs, targets).double()
        if values.dim() != 1 or len(values) == 0:
            raise TaskError(
                f"per_sample of metric '{self.name}' must give one value a sample, got shape {tuple(values.shape)}"
            )
        return Score(float(values.mean()), standard_errors.of_mean(values))

    def _score_of_all(self, outputs: Any, targets: Any) -> Score:
        """The score of a metric that sees all samples at once."""
        if isinstance(self.function, FunctionOfSums):
            return self.function.score(outputs, targets)
        if self.error is None:
            return Score(self(outputs, targets))
        if callable(self.error):
            return Score(self(outputs, targets), self.error(outputs, targets))
        return Score(self(outputs, targets), _RESAMPLINGS[self.error](self.function, outputs, targets))


@dataclass(frozen=True)
class MeanOfSamples:
    """The metric function that belongs to a per-sample one; an object and not a closure so that it pickles."""

    per_sample: Callable[[Any, Any], Tensor]

    def __call__(self, outputs: Any, targets: Any) -> float:
        """The mean over samples."""
        return float(torch.mean(self.per_sample(outputs, targets)))


@dataclass(frozen=True)
class FunctionOfSums:
    """A metric function that depends on the samples through sums over them alone; see :func:`of_sums`."""

    sums: Callable[[Any, Any], Tensor]
    value: Callable[[Tensor], Tensor]

    def __call__(self, outputs: Any, targets: Any) -> float:
        """The function of the sums over all samples."""
        return float(self.value(self.sums(outputs, targets).double().sum(dim=0)))

    def score(self, outputs: Any, targets: Any) -> Score:
        """The same with its standard error, the sums being taken once."""
        return Score(*standard_errors.of_sums(self.sums(outputs, targets).double(), self.value))


def of_samples(
    per_sample: Callable[[Any, Any], Tensor],
    name: str,
    direction: Direction = "maximize",
    ideal: float | None = None,
    unit: str = "",
) -> Metric:
    """The mean of one value a sample, as a metric that has a standard error and is raced.

    Args:
        per_sample: Maps outputs and targets to a tensor of shape (samples,).
        name: The metric's name.
        direction: "maximize" where a larger value is better, else "minimize".
        ideal: The best conceivable value.
        unit: Of the value.
    """
    return Metric(MeanOfSamples(per_sample), name, direction, unit, per_sample, ideal)


def of_sums(
    sums: Callable[[Any, Any], Tensor],
    value: Callable[[Tensor], Tensor],
    name: str,
    direction: Direction = "maximize",
    ideal: float | None = None,
    unit: str = "",
) -> Metric:
    """A metric that is a function of sums over samples: an F1 of counts, an IoU of areas, a perplexity of losses.

    It is no mean over samples, so it is not raced; it has a standard error by the delta method, which costs nothing.

    Args:
        sums: Maps outputs and targets to what each sample adds: a tensor of shape (samples, ...).
        value: Maps the sum over samples, float64 of shape (...), to a scalar; made of differentiable operations.
        name: The metric's name.
        direction: "maximize" where a larger value is better, else "minimize".
        ideal: The best conceivable value.
        unit: Of the value.
    """
    return Metric(FunctionOfSums(sums, value), name, direction, unit, None, ideal)


_RESAMPLINGS: Mapping[str, Callable[[MetricFunction, Any, Any], float | None]] = {
    "jackknife": standard_errors.jackknife,
    "bootstrap": standard_errors.bootstrap,
}
