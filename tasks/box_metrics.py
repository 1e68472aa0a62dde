"""Metrics of boxes: where something is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.batches import main_output
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import of_samples


def ious(outputs: Any, targets: Tensor) -> Tensor:
    """Intersection over union of each predicted box with its target.

    Args:
        outputs: Corners (left, top, right, bottom) of shape (N, ..., 4), in any unit.
        targets: The same shape and unit.

    Returns:
        Shape (N, ...), float64, in [0, 1]; a box that ends before it begins is empty, and two empty ones have 0.

    Raises:
        TaskError: The shapes do not fit.
    """
    boxes = main_output(outputs)
    if boxes.shape != targets.shape or boxes.dim() < 2 or boxes.shape[-1] != 4:
        raise TaskError(
            "box_iou needs outputs and targets of one shape (N, ..., 4): left, top, right, bottom; got "
            f"{tuple(boxes.shape)} and {tuple(targets.shape)}"
        )
    predicted, true = boxes.double(), targets.double()
    overlap = _area(torch.maximum(predicted[..., :2], true[..., :2]), torch.minimum(predicted[..., 2:], true[..., 2:]))
    union = _area(predicted[..., :2], predicted[..., 2:]) + _area(true[..., :2], true[..., 2:]) - overlap
    return overlap / union.clamp(min=torch.finfo(torch.float64).tiny)


def _sample_ious(outputs: Any, targets: Tensor) -> Tensor:
    return ious(outputs, targets).flatten(1).mean(dim=1) if targets.dim() > 2 else ious(outputs, targets)


def _area(first: Tensor, last: Tensor) -> Tensor:
    return (last - first).clamp(min=0).prod(dim=-1)


box_iou = of_samples(_sample_ious, "box_iou", "maximize", 1.0)
"""The mean intersection over union of boxes with their targets, in [0, 1], higher is better.

For heads that give a known number of boxes in a known order; a mean average precision over any number of boxes needs a
matching, and a metric of your own."""
