"""Metrics of images whose every pixel has a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kneepoint.tasks.class_metrics import class_counts, class_logits, mean_of_present
from kneepoint.tasks.metric import of_sums


def _pixel_counts(outputs: Any, targets: Tensor) -> Tensor:
    logits = class_logits(outputs, targets, "mean_iou")
    return class_counts(logits.argmax(dim=1), targets, logits.shape[1])


def _mean_iou(counts: Tensor) -> Tensor:
    right, predicted, true = counts
    return mean_of_present(right, predicted + true - right)


mean_iou = of_sums(_pixel_counts, _mean_iou, "mean_iou", "maximize", 1.0)
"""The mean over classes of intersection over union, in [0, 1], higher is better (Everingham et al. 2015, section 4.1).

From logits (N, C, H, W) and classes (N, H, W), where -100 marks pixels that do not count. Intersections and unions are
summed over all images; classes that occur neither in targets nor in predictions are left out. Its standard error is
over images. It is ``MulticlassJaccardIndex`` of torchmetrics with the average "macro"."""
