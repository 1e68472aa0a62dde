"""The best prediction that does not look at the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.batches import rebuild
from kneepoint.tasks.class_axis import class_axis


def constant_outputs(outputs: Any, targets: Any) -> Any:
    """One prediction for all samples, in the structure and shape of ``outputs``.

    Args:
        outputs: A network's outputs for all samples, along dimension 0.
        targets: The targets of the same samples: one tensor for all outputs, or by the outputs' keys or positions.

    Returns:
        For logits (N, C, ...) and class indices (N, ...), or (N, T, C) and (N, T), the logarithms of the classes'
        frequencies among the targets; otherwise the mean over samples of each of the outputs, or their mode where they
        are integers.
    """
    return rebuild(outputs, [_constant(leaf, target).expand_as(leaf) for leaf, target in _pairs(outputs, targets)])


def _pairs(outputs: Any, targets: Any) -> Iterator[tuple[Tensor, Any]]:
    """Every tensor of the outputs with the targets of its own, where there are such, else with all of them."""
    if isinstance(outputs, Tensor):
        yield outputs, targets
    elif isinstance(outputs, Mapping):
        own = targets if isinstance(targets, Mapping) else {}
        for key, part in outputs.items():
            yield from () if part is None else _pairs(part, own.get(key, targets))
    else:
        paired = isinstance(targets, Sequence) and len(targets) == len(outputs)
        for index, part in enumerate(outputs):
            yield from () if part is None else _pairs(part, targets[index] if paired else targets)


def _constant(leaf: Tensor, targets: Any) -> Tensor:
    """The best prediction for one sample, with a leading dimension of one."""
    axis = class_axis(leaf, targets)
    if axis is None:
        return leaf.mean(dim=0, keepdim=True) if leaf.is_floating_point() else leaf.mode(dim=0, keepdim=True).values
    classes = leaf.shape[axis]
    counts = torch.bincount(targets[(targets >= 0) & (targets < classes)].flatten(), minlength=classes)
    # Log-frequencies are the best constant logits of both accuracy (their top is the majority) and cross-entropy.
    logits = (counts.clamp(min=1e-6) / counts.sum()).log().to(leaf.dtype)
    return logits.view([classes if dimension == axis % leaf.dim() else 1 for dimension in range(leaf.dim())])
