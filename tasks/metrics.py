"""The ready metrics, and what makes metrics of your own: everything behind ``kneepoint.metrics``."""

from __future__ import annotations

from kneepoint.tasks.box_metrics import box_iou
from kneepoint.tasks.class_metrics import accuracy, correctness, cross_entropies, cross_entropy, macro_f1
from kneepoint.tasks.entity_metrics import entity_f1
from kneepoint.tasks.losses import classification_loss
from kneepoint.tasks.metric import Direction, Metric, MetricFunction, Score, of_samples, of_sums
from kneepoint.tasks.metric_making import as_metric, from_torchmetrics
from kneepoint.tasks.output_metrics import mean_of_outputs, of_output
from kneepoint.tasks.regression_metrics import (
    absolute_errors,
    mean_absolute_error,
    mean_squared_error,
    r2,
    squared_errors,
)
from kneepoint.tasks.segmentation_metrics import mean_iou
from kneepoint.tasks.token_metrics import next_token_perplexity, perplexity, token_accuracy, token_macro_f1

__all__ = [
    "Direction",
    "Metric",
    "MetricFunction",
    "Score",
    "absolute_errors",
    "accuracy",
    "as_metric",
    "box_iou",
    "classification_loss",
    "correctness",
    "cross_entropies",
    "cross_entropy",
    "entity_f1",
    "from_torchmetrics",
    "macro_f1",
    "mean_absolute_error",
    "mean_iou",
    "mean_of_outputs",
    "mean_squared_error",
    "next_token_perplexity",
    "of_output",
    "of_samples",
    "of_sums",
    "perplexity",
    "r2",
    "squared_errors",
    "token_accuracy",
    "token_macro_f1",
]
