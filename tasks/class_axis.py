"""Where the classes of logits lie."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""A target that counts neither in a loss nor in a metric: padding, or a pixel that nobody labelled. Torch's default."""


def class_axis(outputs: Any, targets: Any) -> int | None:
    """The axis of ``outputs`` that holds a score of every class, where ``targets`` are class indices.

    Args:
        outputs: Logits of shape (N, C, ...), as torch has them, or (N, T, C), as the Transformers library has them for
            tokens.
        targets: Indices of shape (N, ...) or (N, T).

    Returns:
        1, or -1 for tokens; 1 where both fit (as many tokens as classes); None where these are no classes.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return None
    if not outputs.is_floating_point() or targets.is_floating_point() or targets.dtype is torch.bool:
        return None
    if outputs.shape[:1] + outputs.shape[2:] == targets.shape:
        return 1
    return -1 if outputs.dim() == 3 and outputs.shape[:-1] == targets.shape else None
