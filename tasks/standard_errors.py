"""Standard errors of scores over the samples of a split: of means, of functions of sums, and of anything else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.batches import leaves, transform
from kneepoint.tasks.seeding import ORDER_SEED

GROUPS = 20
"""Of samples, that the jackknife leaves out in turn; its own error is then a sixth of what it estimates."""
RESAMPLES = 100
"""Of the bootstrap; its own error is then a fourteenth of what it estimates."""


def of_mean(values: Tensor) -> float | None:
    """One standard error of the mean of ``values`` of shape (samples,).

    Returns:
        ``sqrt(p (1 - p) / n)`` for values that are all 0 or 1, else the sample standard deviation over ``sqrt(n)``;
        None for fewer than two samples.
    """
    count = len(values)
    if count < 2:
        return None
    if bool(((values == 0) | (values == 1)).all()):
        share = float(values.mean())
        return math.sqrt(share * (1 - share) / count)
    return float(values.std()) / math.sqrt(count)


def of_sums(sums: Tensor, value: Callable[[Tensor], Tensor]) -> tuple[float, float | None]:
    """A function of sums over samples, and its standard error by the delta method (Efron & Tibshirani 1993, ch. 21).

    To first order the value moves by the inner product of its gradient with the sums, so its variance is the number of
    samples times that of each sample's own inner product.

    Args:
        sums: Shape (samples, ...), float64: what each sample adds.
        value: Differentiable, from the sums' shape without the samples to a scalar.

    Returns:
        The value, and one standard error of it; None for fewer than two samples.
    """
    with torch.inference_mode(False), torch.enable_grad():
        own = sums.detach().clone()
        total = own.sum(dim=0).requires_grad_()
        result = value(total)
        (gradient,) = torch.autograd.grad(result, total)
    if len(own) < 2:
        return float(result.detach()), None
    moved = (own * gradient).flatten(1).sum(dim=1)
    return float(result.detach()), float(moved.std()) * math.sqrt(len(own))


def jackknife(function: Callable[[Any, Any], Any], outputs: Any, targets: Any) -> float | None:
    """One standard error of ``function(outputs, targets)`` by leaving out each of :data:`GROUPS` groups of samples.

    With values v_g of G groups it is ``sqrt((G - 1) / G * sum (v_g - mean)^2)`` (Efron & Tibshirani 1993, ch. 11).
    Groups are made of every G-th sample, so the same samples in the same order always give the same error.

    Returns:
        The error; None for fewer than two samples, or where a value is not finite.
    """
    samples = len(leaves(outputs)[0])
    groups = min(GROUPS, samples)
    if groups < 2:
        return None
    group = torch.arange(samples) % groups
    values = _values(function, outputs, targets, [torch.nonzero(group != left).flatten() for left in range(groups)])
    return _finite(math.sqrt((groups - 1) * float(values.var(correction=0))))


def bootstrap(function: Callable[[Any, Any], Any], outputs: Any, targets: Any) -> float | None:
    """One standard error of ``function(outputs, targets)``: its spread over samples drawn with replacement.

    :data:`RESAMPLES` draws, always the same for one number of samples (Efron 1979). It takes five times as long as the
    jackknife and suits functions that jump, as medians do.

    Returns:
        The error; None for fewer than two samples, or where a value is not finite.
    """
    samples = len(leaves(outputs)[0])
    if samples < 2:
        return None
    generator = torch.Generator().manual_seed(ORDER_SEED)
    draws = torch.randint(samples, (RESAMPLES, samples), generator=generator)
    return _finite(float(_values(function, outputs, targets, list(draws)).std()))


def _values(function: Callable[[Any, Any], Any], outputs: Any, targets: Any, parts: list[Tensor]) -> Tensor:
    """The function's value on each selection of samples; shape (selections,), float64."""
    return torch.tensor([_value(function, outputs, targets, part) for part in parts], dtype=torch.float64)


def _value(function: Callable[[Any, Any], Any], outputs: Any, targets: Any, part: Tensor) -> float:
    return float(function(transform(lambda leaf: leaf[part], outputs), transform(lambda leaf: leaf[part], targets)))


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None
