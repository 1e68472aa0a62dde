"""The best prediction that does not look at the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.batches import leaves, rebuild


def constant_outputs(outputs: Any, targets: Any) -> Any:
    """One prediction for all samples, in the structure and shape of ``outputs``.

    Args:
        outputs: A network's outputs for all samples, along dimension 0.
        targets: The targets of the same samples.

    Returns:
        For logits (N, C, ...) and class indices (N, ...) the logarithms of the classes' frequencies among the targets;
        otherwise the mean over samples of each of the outputs, or their mode where they are integers.
    """
    return rebuild(outputs, [_constant(leaf, targets).expand_as(leaf) for leaf in leaves(outputs)])


def _constant(leaf: Tensor, targets: Any) -> Tensor:
    """The best prediction for one sample, with a leading dimension of one."""
    if not _is_classification(leaf, targets):
        return leaf.mean(dim=0, keepdim=True) if leaf.is_floating_point() else leaf.mode(dim=0, keepdim=True).values
    classes = leaf.shape[1]
    counts = torch.bincount(targets[(targets >= 0) & (targets < classes)].flatten(), minlength=classes)
    # Log-frequencies are the best constant logits of both accuracy (their top is the majority) and cross-entropy.
    logits = (counts.clamp(min=1e-6) / counts.sum()).log().to(leaf.dtype)
    return logits.view(1, classes, *[1] * (leaf.dim() - 2))


def _is_classification(outputs: Tensor, targets: Any) -> bool:
    return (
        isinstance(targets, Tensor)
        and outputs.is_floating_point()
        and not targets.is_floating_point()
        and targets.dtype is not torch.bool
        and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    )
