"""Scales of weights: the step between two integers, for every output channel or group of input features."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from kneepoint.compression.quantizers import SMALLEST_SCALE
from kneepoint.spaces.quant_plan import WeightQuant
from kneepoint.tasks.errors import SpaceError, nearest

WeightScaleMethod = Literal["mse", "minmax", "percentile"]
WEIGHT_SCALE_METHODS: tuple[WeightScaleMethod, ...] = get_args(WeightScaleMethod)
PERCENTILE = 99.9
"""Share of a channel's weights, in percent, that ``percentile`` leaves within the range."""
_RATIOS = torch.linspace(0.2, 1.0, 33)
_CHUNK = 2**20  # elements: the intermediate results of a chunk stay in the processor's cache


def weight_scales(
    rows: Tensor,
    bits: int,
    method: WeightScaleMethod = "mse",
    group_size: int = 0,
    importance: Tensor | None = None,
) -> Tensor:
    """Scales of integers that run from -limit to limit, where limit is 2^(bits - 1) - 1; in groups, from -limit - 1.

    The scale of a group is negative where its integers then fit better.

    - ``minmax`` covers the largest weight.
    - ``percentile`` covers ``PERCENTILE`` percent of the weights and lets the others saturate.
    - ``mse`` takes the range, among shares of the largest weight, with the least squared error of the rounded weights.

    One bit holds signs, and the scale with the least squared error is the mean magnitude whatever the method
    (Rastegari et al., "XNOR-Net", ECCV 2016, equation 6).

    Args:
        rows: (channels, elements): ``weight.flatten(1)``.
        bits: 1 to 8.
        method: One of ``WEIGHT_SCALE_METHODS``.
        group_size: Elements that share a scale; 0 for all of a channel. The last group of a channel may be shorter.
        importance: (channels or 1, elements), not negative: what an element's squared error counts, for ``mse``. The
            mean square of the layer's inputs makes it that of the outputs, correlations left aside.

    Returns:
        (channels,), or (channels, groups) with a ``group_size``; float32, positive but in groups.

    Raises:
        SpaceError: If the method is unknown.
    """
    if method not in WEIGHT_SCALE_METHODS:
        raise SpaceError(f"weight scales have no method {method!r}; {nearest(str(method), WEIGHT_SCALE_METHODS)}")
    rows = rows.detach().float()
    counts = (torch.ones_like(rows[:1]) if importance is None else importance.float()).expand_as(rows)
    quant = WeightQuant(bits, group_size=group_size)
    if not group_size:
        return _scales(rows, counts, quant, method)
    whole = rows.shape[1] // group_size * group_size
    groups = [
        _scales(rows[:, part].reshape(-1, size), counts[:, part].reshape(-1, size), quant, method).view(len(rows), -1)
        for part, size in ((slice(whole), group_size), (slice(whole, None), rows.shape[1] - whole))
        if rows[:, part].shape[1]
    ]
    return torch.cat(groups, dim=1)


def _scales(rows: Tensor, importance: Tensor, quant: WeightQuant, method: WeightScaleMethod) -> Tensor:
    """(rows,)."""
    magnitudes = rows.abs()
    if quant.bits == 1:
        scales = magnitudes.mean(dim=1)
    elif method == "percentile":
        covered = math.ceil(PERCENTILE / 100 * rows.shape[1])
        scales = magnitudes.kthvalue(covered, dim=1).values / quant.limit
    elif method == "minmax":
        scales = _whole_range(rows, quant)
    else:
        scales = _least_error(rows, importance, magnitudes.amax(dim=1) / quant.limit, quant)
    return torch.where(scales.abs() < SMALLEST_SCALE, torch.full_like(scales, SMALLEST_SCALE), scales)


def _whole_range(rows: Tensor, quant: WeightQuant) -> Tensor:
    """The largest magnitude lies at the end of the range that reaches farther."""
    if quant.lowest == -quant.limit:
        return rows.abs().amax(dim=1) / quant.limit
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).squeeze(1)
    return largest / quant.lowest


def _least_error(rows: Tensor, importance: Tensor, largest: Tensor, quant: WeightQuant) -> Tensor:
    ratios = _RATIOS if quant.lowest == -quant.limit else torch.cat([_RATIOS, -_RATIOS])
    step = max(1, _CHUNK // (len(ratios) * rows.shape[1]))
    candidates = largest.clamp_min(SMALLEST_SCALE).unsqueeze(1) * ratios  # (rows, ratios)
    best = [
        candidate.gather(1, _errors(part, counts, candidate, quant).argmin(dim=1, keepdim=True)).squeeze(1)
        for part, counts, candidate in zip(
            rows.split(step), importance.split(step), candidates.split(step), strict=True
        )
    ]
    return torch.cat(best)


def _errors(rows: Tensor, importance: Tensor, candidates: Tensor, quant: WeightQuant) -> Tensor:
    """Weighted squared error of every row under each of its candidate scales, (rows, candidates)."""
    steps = rows.unsqueeze(1) / candidates.unsqueeze(2)  # (rows, candidates, elements)
    squares = steps.sub_(steps.round().clamp_(quant.lowest, quant.limit)).square_()
    return (squares @ importance.unsqueeze(2)).squeeze(2) * candidates.square()
