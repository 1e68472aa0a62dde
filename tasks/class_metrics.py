"""Metrics of classes: one prediction a sample, or one a pixel with the classes on axis 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kneepoint.tasks.batches import main_output
from kneepoint.tasks.class_axis import IGNORED, class_axis
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import of_samples, of_sums


def correctness(outputs: Any, targets: Tensor) -> Tensor:
    """The share of right top-1 predictions of each sample: 0 or 1 unless the outputs are dense.

    Args:
        outputs: Logits of shape (N, C), or (N, C, ...) for dense prediction; a structure that holds them in an entry
            called ``logits``, or nothing else.
        targets: Class indices of shape (N,), or (N, ...); positions of -100 do not count.

    Returns:
        Shape (N,), float64.

    Raises:
        TaskError: The shapes do not fit, or no position of a sample counts.
    """
    logits = class_logits(outputs, targets, "accuracy")
    return _means_of_counted(logits.argmax(dim=1) == targets, targets)


def cross_entropies(outputs: Any, targets: Tensor) -> Tensor:
    """The cross-entropy of each sample in nats, from logits (N, C, ...) and classes (N, ...); shape (N,).

    Positions of -100 do not count.

    Raises:
        TaskError: The shapes do not fit, or no position of a sample counts.
    """
    logits = class_logits(outputs, targets, "cross_entropy")
    return _means_of_counted(F.cross_entropy(logits.double(), targets, reduction="none"), targets)


def class_logits(outputs: Any, targets: Any, metric: str) -> Tensor:
    """The main output, whose axis 1 holds the classes.

    Raises:
        TaskError: The shapes do not fit; the message calls the metric by its name.
    """
    logits = main_output(outputs)
    axis = class_axis(logits, targets)
    if axis == 1:
        return logits
    shapes = f"{tuple(logits.shape)} and {tuple(targets.shape) if isinstance(targets, Tensor) else type(targets)}"
    if axis == -1:
        raise TaskError(
            f"{metric} needs outputs of shape (N, C, ...) and class indices of shape (N, ...), got {shapes}: for a "
            "prediction a token, of shape (N, T, C), take kneepoint.metrics.token_accuracy, token_macro_f1 or "
            "perplexity, or move the classes to axis 1"
        )
    raise TaskError(f"{metric} needs outputs of shape (N, C, ...) and class indices of shape (N, ...), got {shapes}")


def class_counts(predictions: Tensor, targets: Tensor, classes: int) -> Tensor:
    """How often each sample has each class, right, predicted and true.

    Args:
        predictions: Class indices of shape (N, ...).
        targets: The same shape; positions of -100 do not count.
        classes: How many there are.

    Returns:
        Shape (N, 3, classes), float64: counts of right predictions, of predictions and of targets.
    """
    counted = (targets != IGNORED).flatten(1) if targets.dim() > 1 else (targets != IGNORED).unsqueeze(1)
    predicted, true = predictions.reshape(len(targets), -1), targets.reshape(len(targets), -1)
    counts = torch.zeros(len(targets), 3, classes, dtype=torch.float64)
    counts[:, 0].scatter_add_(1, predicted, (counted & (predicted == true)).double())
    counts[:, 1].scatter_add_(1, predicted, counted.double())
    counts[:, 2].scatter_add_(1, true.clamp(min=0), counted.double())
    return counts


def macro_f1_of_counts(counts: Tensor) -> Tensor:
    """The mean F1 over the classes that occur, in predictions or targets, from counts of shape (3, classes)."""
    right, predicted, true = counts
    return mean_of_present(2 * right, predicted + true)


def mean_of_present(numerators: Tensor, denominators: Tensor) -> Tensor:
    """The mean of the quotients whose denominator is above 0; differentiable, 0 where there is none."""
    present = denominators > 0
    shares = numerators / torch.where(present, denominators, 1.0)
    return torch.where(present, shares, 0.0).sum() / present.sum().clamp(min=1)


def _macro_f1_counts(outputs: Any, targets: Tensor) -> Tensor:
    logits = class_logits(outputs, targets, "macro_f1")
    return class_counts(logits.argmax(dim=1), targets, logits.shape[1])


def _means_of_counted(values: Tensor, targets: Tensor) -> Tensor:
    """The mean over each sample's positions whose target is not -100; shape (samples,), float64."""
    counted = (targets != IGNORED).reshape(len(targets), -1)
    numbers = counted.sum(dim=1)
    if not bool((numbers > 0).all()):
        raise TaskError(
            f"every sample needs a target that is not {IGNORED}, sample {int(numbers.argmin())} of a batch has none: "
            "leave such samples out"
        )
    return (values.double().reshape(len(targets), -1) * counted).sum(dim=1) / numbers


accuracy = of_samples(correctness, "accuracy", "maximize", 1.0)
"""Top-1 accuracy in [0, 1], higher is better: the mean over samples, of dense ones of their shares."""

cross_entropy = of_samples(cross_entropies, "cross_entropy", "minimize", 0.0, "nats")
"""Mean cross-entropy of logits, lower is better."""

macro_f1 = of_sums(_macro_f1_counts, macro_f1_of_counts, "macro_f1", "maximize", 1.0)
"""The mean of the classes' F1 in [0, 1], higher is better: rare classes count as much as common ones.

Classes that occur neither in targets nor in predictions are left out, as scikit-learn and torchmetrics do."""
