"""What a network is judged by: scores with their standard errors, and the ready metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kneepoint.tasks.batches import main_output
from kneepoint.tasks.errors import TaskError

Direction = Literal["maximize", "minimize"]
MetricFunction = Callable[[Any, Any], Any]
"""``f(outputs, targets) -> float`` over all samples of a split at once."""


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
            declares it gets a standard error and can be estimated from a part of the samples.
        ideal: The best conceivable value; None where there is no such bound.
    """

    function: MetricFunction
    name: str
    direction: Direction = "maximize"
    unit: str = ""
    per_sample: Callable[[Any, Any], Tensor] | None = None
    ideal: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("maximize", "minimize"):
            raise TaskError(
                f"a metric's direction must be 'maximize' or 'minimize', metric '{self.name}' has {self.direction!r}"
            )

    def __call__(self, outputs: Any, targets: Any) -> float:
        """The value of the metric alone, NaN and infinity passed through."""
        return float(self.function(outputs, targets))

    def score(self, outputs: Any, targets: Any) -> Score:
        """The value with its standard error, which is None unless the metric declares ``per_sample``.

        Args:
            outputs: A tensor, tuple or dict of tensors with the samples along dimension 0.
            targets: The same, of the same number of samples.

        Returns:
            The mean of the per-sample values and its standard error: ``sqrt(p (1 - p) / n)`` for values that are all
            0 or 1, the sample standard deviation over ``sqrt(n)`` otherwise, None for a single sample.

        Raises:
            TaskError: ``per_sample`` gives anything but one value a sample.
        """
        if self.per_sample is None:
            return Score(self(outputs, targets))
        values = self.per_sample(outputs, targets).double()
        if values.dim() != 1 or len(values) == 0:
            raise TaskError(
                f"per_sample of metric '{self.name}' must give one value a sample, got shape {tuple(values.shape)}"
            )
        return Score(float(values.mean()), _standard_error(values))


def as_metric(function: Metric | MetricFunction, name: str | None = None, direction: Direction | None = None) -> Metric:
    """A metric from a bare function.

    Args:
        function: A metric, returned with ``name`` and ``direction`` replaced where given, or ``f(outputs, targets)``.
        name: The metric's name; by default the function's ``__name__``.
        direction: By default the function's attribute ``direction``, else "maximize". The attributes ``unit``,
            ``per_sample`` and ``ideal`` are read in the same way.

    Raises:
        TaskError: It cannot be called, has no name of its own and got none, or its direction is unknown.
    """
    if not callable(function):
        raise TaskError(f"a metric must be a function of (outputs, targets), got {type(function).__name__}")
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
    )


def _standard_error(values: Tensor) -> float | None:
    """One standard error of the mean of ``values`` of shape (samples,); None for fewer than two samples."""
    count = len(values)
    if count < 2:
        return None
    if bool(((values == 0) | (values == 1)).all()):
        share = float(values.mean())
        return math.sqrt(share * (1 - share) / count)
    return float(values.std()) / math.sqrt(count)


def _sample_means(values: Tensor) -> Tensor:
    """The mean over all dimensions but the first, of shape (samples,)."""
    return values.double().reshape(len(values), -1).mean(dim=1)


def _differences(outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs minus targets; unlike plain subtraction this refuses to broadcast (N, 1) against (N,)."""
    if outputs.shape != targets.shape:
        raise TaskError(
            "outputs and targets of a regression metric must have one shape, got "
            f"{tuple(outputs.shape)} and {tuple(targets.shape)}: reshape the targets or write a metric of your own"
        )
    return outputs.double() - targets.double()


def classification_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits (N, C, ...), alone or in a structure, and classes (N, ...): a scalar."""
    return F.cross_entropy(main_output(outputs), targets)


def correctness(outputs: Any, targets: Tensor) -> Tensor:
    """The share of right top-1 predictions of each sample: 0 or 1 unless the outputs are dense.

    Args:
        outputs: Logits of shape (N, C), or (N, C, ...) for dense prediction; a structure that holds them in an entry
            called ``logits``, or nothing else.
        targets: Class indices of shape (N,), or (N, ...).

    Returns:
        Shape (N,), float64.
    """
    logits = main_output(outputs)
    predictions = logits.argmax(dim=1)
    if predictions.shape != targets.shape:
        raise TaskError(
            "accuracy needs outputs of shape (N, C, ...) and class indices of shape (N, ...), got "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    return _sample_means(predictions == targets)


def cross_entropies(outputs: Any, targets: Tensor) -> Tensor:
    """The cross-entropy of each sample in nats, from logits (N, C, ...) and classes (N, ...); shape (N,)."""
    return _sample_means(F.cross_entropy(main_output(outputs).double(), targets, reduction="none"))


def squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error of each sample; shape (N,)."""
    return _sample_means(_differences(outputs, targets).square())


def absolute_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute error of each sample; shape (N,)."""
    return _sample_means(_differences(outputs, targets).abs())


@dataclass(frozen=True)
class _Mean:
    """The metric function that belongs to a per-sample one; an object and not a closure so that it pickles."""

    per_sample: Callable[[Any, Any], Tensor]

    def __call__(self, outputs: Any, targets: Any) -> float:
        return float(torch.mean(self.per_sample(outputs, targets)))


def _mean_metric(
    per_sample: Callable[[Any, Any], Tensor], name: str, direction: Direction, ideal: float, unit: str = ""
) -> Metric:
    return Metric(_Mean(per_sample), name, direction, unit, per_sample, ideal)


accuracy = _mean_metric(correctness, "accuracy", "maximize", 1.0)
"""Top-1 accuracy in [0, 1], higher is better."""

cross_entropy = _mean_metric(cross_entropies, "cross_entropy", "minimize", 0.0, "nats")
"""Mean cross-entropy of logits, lower is better."""

mean_squared_error = _mean_metric(squared_errors, "mean_squared_error", "minimize", 0.0)
"""Mean squared error over samples and elements, lower is better."""

mean_absolute_error = _mean_metric(absolute_errors, "mean_absolute_error", "minimize", 0.0)
"""Mean absolute error over samples and elements, lower is better."""
