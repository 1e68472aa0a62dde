"""Metrics of numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.batches import main_output
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import of_samples, of_sums


def squared_errors(outputs: Any, targets: Tensor) -> Tensor:
    """The mean squared error of each sample; shape (N,)."""
    return _sample_means(_differences(outputs, targets).square())


def absolute_errors(outputs: Any, targets: Tensor) -> Tensor:
    """The mean absolute error of each sample; shape (N,)."""
    return _sample_means(_differences(outputs, targets).abs())


def _determination_sums(outputs: Any, targets: Tensor) -> Tensor:
    """One, the target, its square and the squared difference of each sample; shape (N, 4, outputs)."""
    differences = _differences(outputs, targets).reshape(len(targets), -1)
    true = targets.double().reshape(len(targets), -1)
    return torch.stack([torch.ones_like(true), true, true.square(), differences.square()], dim=1)


def _determination(sums: Tensor) -> Tensor:
    """1 - residual over total sum of squares, averaged over outputs; from sums of shape (4, outputs)."""
    count, true, squares, residual = sums
    shares: Tensor = 1 - residual / (squares - true.square() / count)
    return shares.mean()


def _sample_means(values: Tensor) -> Tensor:
    """The mean over all dimensions but the first, of shape (samples,)."""
    return values.double().reshape(len(values), -1).mean(dim=1)


def _differences(outputs: Any, targets: Tensor) -> Tensor:
    """Outputs minus targets; unlike plain subtraction this refuses to broadcast (N, 1) against (N,)."""
    values = main_output(outputs)
    if values.shape != targets.shape:
        raise TaskError(
            "outputs and targets of a regression metric must have one shape, got "
            f"{tuple(values.shape)} and {tuple(targets.shape)}: reshape the targets or write a metric of your own"
        )
    return values.double() - targets.double()


mean_squared_error = of_samples(squared_errors, "mean_squared_error", "minimize", 0.0)
"""Mean squared error over samples and elements, lower is better."""

mean_absolute_error = of_samples(absolute_errors, "mean_absolute_error", "minimize", 0.0)
"""Mean absolute error over samples and elements, lower is better."""

r2 = of_sums(_determination_sums, _determination, "r2", "maximize", 1.0)
"""The coefficient of determination, higher is better, 0 for the targets' mean; averaged over several outputs."""
