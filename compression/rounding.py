"""Rounding weights so that the outputs of their layer change least, instead of the weights themselves.

What rounding one weight does to the outputs is taken up by the weights of the same channel that are rounded after it:
GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023,
algorithm 1). Because a channel's squared output error is a quadratic form of its weights' errors, two things are then
cheap: to try several scales and keep every channel's best, and to go over the weights again, moving each to its best
point while the others stay (coordinate descent; Behdin et al., "QuantEase", 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kneepoint.compression.quantizers import dequantized_weight, expanded_scale, integers
from kneepoint.compression.statistics import InputStatistics
from kneepoint.spaces.quant_plan import FLOAT_WEIGHT, WeightQuant

DAMPING = 0.01
"""Share of its mean diagonal that is added to the diagonal of the second moment, as in GPTQ."""
RATIOS = (1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
"""Multiples of the given scale that are tried; of two as good, the first is taken."""
SWEEPS = 1
"""Rounds of coordinate descent; further ones change next to nothing."""
_CHUNK = 2**22  # elements of the weights that are rounded together, all their scales counted
_BLOCK = 128  # columns between two updates of all the others, which one matrix product then does


@dataclass(frozen=True)
class Rounding:
    """A weight on its grid.

    Attributes:
        weight: Integers times ``scale``, exactly: ``round(weight / scale)`` gives the integers back.
        scale: As it was given, or its multiple that served each channel best.
    """

    weight: Tensor
    scale: Tensor


def learned_rounding(
    weight: Tensor,
    quant: WeightQuant,
    statistics: InputStatistics,
    *,
    centered: bool = True,
    keep: Tensor | None = None,
    ratios: Sequence[float] = RATIOS,
    sweeps: int = SWEEPS,
) -> Rounding:
    """The weight on its grid that changes the layer's outputs least, in the mean square over the calibration data.

    A layer whose patches were too wide for a covariance is rounded to nearest.

    Args:
        weight: (out channels, ...) of a linear layer or a convolution with any number of groups; of a sparse one, with
            nothing zeroed yet: what the zeros change is taken up by the other weights, too.
        quant: Its format: integers, with a scale to start from.
        statistics: Of what the layer reads.
        centered: Whether the mean of the error is left to bias correction, which has to follow. Without it, the mean
            counts as error, too.
        keep: Of the weight's shape; False where a sparse weight has to stay zero.
        ratios: Multiples of the scale to choose from; ``(1.0,)`` keeps it.
        sweeps: Rounds of coordinate descent.
    """
    moment = statistics.covariance if centered else statistics.moment
    if moment is None:
        return _settled(weight, quant, keep)
    form = _Form(moment)
    weights = form.ordered(weight.detach().flatten(1).float())
    scales = form.ordered(expanded_scale(weight, quant).expand_as(weight).flatten(1))
    grid = _Grid(quant, scales, None if keep is None else form.ordered(keep.flatten(1)))
    step = max(1, _CHUNK // (weights[:, 0].numel() * len(ratios)))
    parts = [slice(start, start + step) for start in range(0, weights.shape[1], step)]
    rounded, chosen = zip(
        *(_round(form, weights[:, part], grid.rows(part), ratios, sweeps) for part in parts), strict=True
    )
    multiples = torch.cat(chosen, dim=1).flatten()
    result = form.restored(torch.cat(rounded, dim=1)).view_as(weight)
    return _settled(result, replace(quant, scale=_multiplied(quant, multiples)), keep)


def refitted(weight: Tensor, keep: Tensor, statistics: InputStatistics, *, centered: bool = True) -> Tensor:
    """A float weight with zeros, the others refitted so that the layer's outputs change least.

    Errors that zeros make are fed forward as those of rounding are (Frantar & Alistarh, "SparseGPT", ICML 2023). Where
    patches were too wide for a covariance, the others stay as they were.

    Args:
        weight: (out channels, ...), nothing zeroed.
        keep: Of the weight's shape; False where it becomes zero.
        statistics: Of what the layer reads.
        centered: As in :func:`learned_rounding`.
    """
    moment = statistics.covariance if centered else statistics.moment
    if moment is None:
        return weight * keep
    form = _Form(moment)
    weights = form.ordered(weight.detach().flatten(1).float())
    grid = _Grid(FLOAT_WEIGHT, torch.ones_like(weights), form.ordered(keep.flatten(1)))
    fitted, _ = _round(form, weights, grid, (1.0,), SWEEPS)
    return form.restored(fitted).view_as(weight)


class _Form:
    """The quadratic form e^T H e of a channel's squared output error, its elements in the order of rounding.

    Args:
        moment: H of every group, (groups, elements, elements).
    """

    def __init__(self, moment: Tensor) -> None:
        damped = moment.double()
        diagonal = damped.diagonal(dim1=1, dim2=2)
        mean = diagonal.mean(dim=1, keepdim=True)
        extra = torch.where(mean > 0, DAMPING * mean, torch.ones_like(mean)).expand_as(diagonal)
        # Weights whose inputs are largest come first: all the others are left to make up for their errors.
        self.order = diagonal.argsort(dim=1, descending=True, stable=True)
        damped = damped + torch.diag_embed(extra)
        damped = damped.gather(1, self.order.unsqueeze(2).expand_as(damped))
        damped = damped.gather(2, self.order.unsqueeze(1).expand_as(damped))
        inverse = torch.cholesky_inverse(_factorized(damped))
        self.moment = damped.float()
        self.factor = torch.linalg.cholesky(inverse, upper=True).float()
        """Row j holds what the error of element j does to the elements after it (GPTQ, section 3, step 3)."""

    def ordered(self, rows: Tensor) -> Tensor:
        """(channels, elements) by group and in the order of rounding: (groups, channels a group, elements)."""
        grouped = torch.unflatten(rows, 0, (len(self.order), -1))
        return grouped.gather(2, self.order.unsqueeze(1).expand_as(grouped))

    def restored(self, grouped: Tensor) -> Tensor:
        """The inverse of :meth:`ordered`."""
        places = self.order.unsqueeze(1).expand_as(grouped)
        return torch.empty_like(grouped).scatter_(2, places, grouped).flatten(0, 1)

    def error(self, difference: Tensor) -> Tensor:
        """The form's value for every channel."""
        products: Tensor = torch.bmm(difference, self.moment) * difference
        return products.sum(dim=2)


def _factorized(damped: Tensor) -> Tensor:
    """The Cholesky factor of a matrix that is positive definite up to the rounding errors of the sums it is made of.

    Where a layer's inputs hardly vary around a large mean, those errors outweigh the damping, which then grows.
    """
    mean = damped.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
    for more in (0.0, 0.1, 1.0, 10.0, 100.0):
        extra = torch.diag_embed((more * mean).expand(-1, damped.shape[-1]))
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(damped + extra)
        if not bool(failed.any()):
            return factor
    return torch.diag_embed(damped.diagonal(dim1=1, dim2=2).sqrt())


@dataclass(frozen=True)
class _Grid:
    """What (groups, channels, elements) may be rounded to: multiples of the scales, or zero where ``keep`` is False."""

    quant: WeightQuant
    scale: Tensor
    keep: Tensor | None

    def rows(self, part: slice) -> _Grid:
        """The grid of some channels of every group."""
        return _Grid(self.quant, self.scale[:, part], None if self.keep is None else self.keep[:, part])

    def scaled(self, multiples: Tensor) -> _Grid:
        """With scales times ``multiples``, (groups, channels, 1)."""
        return _Grid(self.quant, self.scale * multiples, self.keep)

    def repeated(self, times: int) -> _Grid:
        """All channels, ``times`` times over."""
        keep = None if self.keep is None else self.keep.repeat(1, times, 1)
        return _Grid(self.quant, self.scale.repeat(1, times, 1), keep)

    def nearest(self, values: Tensor, element: int) -> Tensor:
        """The nearest points for one element of every channel."""
        scale = self.scale[:, :, element]
        points = integers(values, scale, self.quant) * scale if self.quant.integer else values
        return points if self.keep is None else points * self.keep[:, :, element]


def _round(form: _Form, weights: Tensor, grid: _Grid, ratios: Sequence[float], sweeps: int) -> tuple[Tensor, Tensor]:
    """Rounded weights (groups, channels, elements), and which multiple of its scale each channel took."""
    groups, channels, _ = weights.shape
    multiples = torch.tensor(ratios).repeat_interleave(channels).view(1, -1, 1)
    wanted = weights.repeat(1, len(ratios), 1)
    tried = _feed_errors_forward(form, wanted, grid.repeated(len(ratios)).scaled(multiples))
    errors = form.error(wanted - tried).view(groups, len(ratios), channels)
    best = errors.argmin(dim=1, keepdim=True)
    places = best.unsqueeze(3).expand(-1, -1, -1, weights.shape[2])
    rounded = tried.view(groups, len(ratios), channels, -1).gather(1, places).squeeze(1)
    chosen = torch.tensor(ratios)[best.squeeze(1)]
    for _ in range(sweeps):
        _descend(form, weights, rounded, grid.scaled(chosen.unsqueeze(2)))
    return rounded, chosen


def _feed_errors_forward(form: _Form, weights: Tensor, grid: _Grid) -> Tensor:
    """GPTQ's algorithm 1."""
    rest, rounded = weights.clone(), torch.empty_like(weights)
    for first, last in _blocks(weights.shape[2]):
        errors = torch.empty_like(rest[:, :, first:last])
        for element in range(first, last):
            value = rest[:, :, element]
            rounded[:, :, element] = grid.nearest(value, element)
            factor = form.factor[:, element, element:last].unsqueeze(1)
            error = (value - rounded[:, :, element]) / factor[:, :, 0]
            rest[:, :, element:last] -= error.unsqueeze(2) * factor
            errors[:, :, element - first] = error
        rest[:, :, last:] -= errors @ form.factor[:, first:last, last:]
    return rounded


def _descend(form: _Form, weights: Tensor, rounded: Tensor, grid: _Grid) -> None:
    """Move every element in turn to its best point while the others stay; ``rounded`` changes in place."""
    slope = (weights - rounded) @ form.moment
    for first, last in _blocks(weights.shape[2]):
        before = rounded[:, :, first:last].clone()
        for element in range(first, last):
            row = form.moment[:, element, first:last].unsqueeze(1)
            old = rounded[:, :, element].clone()
            step = slope[:, :, element] / form.moment[:, element, element].unsqueeze(1)
            rounded[:, :, element] = grid.nearest(old + step, element)
            slope[:, :, first:last] -= (rounded[:, :, element] - old).unsqueeze(2) * row
        changed = rounded[:, :, first:last] - before
        slope[:, :, last:] -= changed @ form.moment[:, first:last, last:]


def _blocks(elements: int) -> Iterator[tuple[int, int]]:
    for first in range(0, elements, _BLOCK):
        yield first, min(first + _BLOCK, elements)


def _multiplied(quant: WeightQuant, multiples: Tensor) -> Tensor:
    """The scale, every channel's times its own multiple."""
    assert quant.scale is not None  # noqa: S101 - expanded_scale refused it otherwise
    return quant.scale * (multiples.unsqueeze(1) if quant.group_size else multiples)


def _settled(weight: Tensor, quant: WeightQuant, keep: Tensor | None) -> Rounding:
    """``weight`` at its nearest points."""
    nearest = dequantized_weight(weight, quant)
    assert quant.scale is not None  # noqa: S101 - dequantized_weight refused it otherwise
    return Rounding(nearest if keep is None else nearest * keep, quant.scale)
